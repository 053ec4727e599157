// HTML with parts that can be pressed (`data-pick`). Tab moves to them, arrow keys move between them, Enter presses one.
const WAYS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

function render({model, el}) {
  const root = document.createElement("div"), parts = () => [...root.querySelectorAll("[data-pick]:not(:disabled)")];
  const centre = part => {
    const box = part.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
  };
  const next = (from, [right, down]) => {
    const [x, y] = centre(from);
    const steps = parts().map(part => {
      const [dx, dy] = [centre(part)[0] - x, centre(part)[1] - y];
      return {part, along: dx * right + dy * down, aside: Math.abs(dx * down) + Math.abs(dy * right)};
    });
    return steps.filter(each => each.along > 1).sort((a, b) => a.along + 3 * a.aside - b.along - 3 * b.aside)[0]?.part;
  };
  const show = () => {
    const at = parts().indexOf(document.activeElement);
    root.innerHTML = model.get("value");
    parts().forEach((part, place) => {
      part.tabIndex = place ? -1 : 0;
      if (!part.matches("button")) part.setAttribute("role", "button");
    });
    parts()[at]?.focus();
  };
  const pick = part => { if (part && parts().includes(part)) model.send({pick: part.dataset.pick}); };
  root.addEventListener("click", event => pick(event.target.closest("[data-pick]")));
  root.addEventListener("keydown", event => {
    const part = event.target.closest("[data-pick]");
    if (!part || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" || event.key === " ") pick(part);
    else if (WAYS[event.key]) next(part, WAYS[event.key])?.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  el.append(root);
  model.on("change:value", show);
  show();
  return () => model.off("change:value", show);
}

export default {render};
