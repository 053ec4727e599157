// The grid of clips. The page holds the visible cells only. Python sends all videos once, then the rows to show in their
// order. The page requests the strips that it lacks when it has not scrolled for a moment.
const LEAST = 132, CAPTION = 84, TALL = 560, KEPT = 1200;  // pixels, and strips
const STILL = 60;  // milliseconds

// An array of numbers from bytes of Python. A copy, because the bytes may begin at any address of their message.
const numbers = (view, Kind) =>
  view?.byteLength ? new Kind(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength)) : new Kind(0);

function render({model, el}) {
  const mine = `clips-${Math.random().toString(36).slice(2)}`, cells = new Map(), strips = new Map();
  const part = (className, ...children) => make("div", {className}, ...children);
  const sheet = part("sheet"), tagging = part("tagging"), known = make("datalist", {id: `${mine}-tags`});
  const view = make("div", {className: "view", tabIndex: 0, role: "listbox", ariaLabel: "Clips"}, sheet);
  const root = make("div", {className: "ifttn-clips", "data-lm-suppress-shortcuts": true}, view, tagging, known);
  const field = make("input", {placeholder: "a tag, then Enter", ariaLabel: "Tag of the clip at the cursor"});
  let names = [], actions = [], labels = [], predicted = [], rows = [], values = [], tags = {};
  let at = 0, columns = 1, width = LEAST, step = 1, drawing = 0, asking = 0, edition = -1;

  field.setAttribute("list", known.id);
  el.append(root);

  const read = () => {
    const videos = model.get("videos"), shown = model.get("shown");
    if (videos.edition !== edition) {
      edition = videos.edition;
      for (const url of strips.values()) URL.revokeObjectURL(url);
      strips.clear();
      [names, actions] = [videos.names ?? [], videos.actions ?? []];
      labels = numbers(videos.labels, Int16Array);
    }
    const before = rows;
    predicted = numbers(model.get("predicted"), Int16Array);
    rows = numbers(shown.rows, Uint32Array);
    values = numbers(shown.values, Float32Array);
    tags = model.get("tags");
    if (rows.length !== before.length || rows.some((row, place) => row !== before[place])) at = view.scrollTop = 0;
    for (const cell of cells.values()) cell.remove();
    cells.clear();
    draw();
    showTags();
  };

  const stem = row => names[row].slice(names[row].lastIndexOf("/") + 1);
  const cell = (row, place) => {
    const scored = predicted[row] >= 0, right = predicted[row] === labels[row], value = values[place];
    const action = actions[labels[row]], prediction = actions[predicted[row]];
    const number = Number.isFinite(value) ? `${model.get("shown").quantity} ${value.toFixed(2)}` : "";
    const about = [number, ...(tags[row] ?? []).map(tag => `#${tag}`)].filter(Boolean).join(" ");
    const made = make("div", {className: "clip", id: `${mine}-${row}`, role: "option", title: names[row]}, part("strip"),
      part(scored ? (right ? "right" : "wrong") : "", scored ? make("b", {}, right ? "✓ " : "✗ ") : null, ...words(action)),
      part("quiet", ...(scored && !right ? ["predicted ", ...words(prediction)] : [stem(row).replace(action, "…")])),
      part("quiet", about));
    made.dataset.row = row;
    showStrip(made);
    return made;
  };
  const showStrip = made => {
    const url = strips.get(+made.dataset.row), strip = made.firstChild;
    if (url?.startsWith("blob:")) strip.style.backgroundImage = `url(${url})`;
    else strip.textContent = url ?? "";
  };

  const draw = () => {
    drawing = 0;
    const room = view.clientWidth;
    if (!room) return;
    columns = Math.max(1, Math.floor(room / LEAST));
    width = room / columns;
    step = Math.round((width - 8) * 3 / 4) + CAPTION;
    const lines = Math.ceil(rows.length / columns);
    sheet.style.height = `${lines * step}px`;
    view.style.height = `${rows.length ? Math.min(TALL, lines * step + 2) : 80}px`;
    view.querySelector(".empty")?.remove();
    if (!rows.length) view.append(part("empty", "No clip fits these choices."));
    const first = Math.max(0, Math.floor(view.scrollTop / step) - 1) * columns;
    const end = Math.min(rows.length, (Math.ceil((view.scrollTop + view.clientHeight) / step) + 1) * columns);
    const seen = new Set(rows.subarray(first, end));
    for (const [row, made] of cells) if (!seen.has(row)) {
      made.remove();
      cells.delete(row);
    }
    for (let place = first; place < end; place++) {
      const row = rows[place];
      if (!cells.has(row)) {
        cells.set(row, cell(row, place));
        sheet.append(cells.get(row));
      }
      const made = cells.get(row), y = Math.floor(place / columns) * step;
      made.style.width = `${width}px`;
      made.style.transform = `translate(${(place % columns) * width}px,${y}px)`;
      made.setAttribute("aria-selected", place === at);
      made.setAttribute("aria-posinset", place + 1);
      made.setAttribute("aria-setsize", rows.length);
    }
    if (rows.length) view.setAttribute("aria-activedescendant", `${mine}-${rows[at]}`);
    clearTimeout(asking);
    asking = setTimeout(ask, STILL);
  };
  const soon = () => { drawing ||= requestAnimationFrame(draw); };
  const ask = () => {
    const wanted = [...cells.keys()].filter(row => !strips.has(row));
    if (wanted.length) model.send({wanted, edition});
  };

  // If there are too many strips, the oldest hidden one goes.
  const keep = (row, url) => {
    URL.revokeObjectURL(strips.get(row));
    strips.set(row, url);
    if (strips.size > KEPT) for (const old of strips.keys()) if (!cells.has(old)) {
      URL.revokeObjectURL(strips.get(old));
      strips.delete(old);
      break;
    }
    if (cells.has(row)) showStrip(cells.get(row));
  };
  const receive = (message, buffers) => {
    if (message.edition !== edition) return;
    message.rows.forEach((row, i) => keep(row, URL.createObjectURL(new Blob([buffers[i]], {type: "image/jpeg"}))));
    for (const [row, why] of message.failed) keep(row, why);
  };

  const showTags = () => {
    const row = rows[at], found = [...new Set(Object.values(tags).flat())].sort();
    known.replaceChildren(...found.map(value => make("option", {value})));
    const chips = (tags[row] ?? []).map(tag =>
      make("button", {title: "remove this tag", onclick: () => model.send({row, tag})}, `${tag} ✕`));
    tagging.hidden = row === undefined;
    if (row === undefined) return;
    const had = document.activeElement === field;
    tagging.replaceChildren(make("span", {className: "quiet"}, `Tags of ${stem(row)}:`), ...chips, field);
    if (had) field.focus();
  };
  const move = place => {
    if (!rows.length) return;
    at = Math.min(rows.length - 1, Math.max(0, place));
    const top = Math.floor(at / columns) * step;
    if (top < view.scrollTop) view.scrollTop = top;
    else if (top + step > view.scrollTop + view.clientHeight) view.scrollTop = top + step - view.clientHeight;
    draw();
    showTags();
  };
  const open = () => { if (rows.length) model.send({open: rows[at]}); };

  const page = () => columns * Math.max(1, Math.floor(view.clientHeight / step));
  const keys = {
    ArrowLeft: () => move(at - 1), ArrowRight: () => move(at + 1), Home: () => move(0), End: () => move(rows.length - 1),
    ArrowUp: () => at >= columns && move(at - columns), ArrowDown: () => at + columns < rows.length && move(at + columns),
    PageUp: () => move(at - page()), PageDown: () => move(at + page()), Enter: open, t: () => field.focus(),
  };
  // As in all panels, a key without Ctrl or Meta does not reach the notebook.
  root.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey) return;
    event.stopPropagation();
    if (event.target === field) {
      if (event.key === "Escape") view.focus();
      else if (event.key === "Enter" && field.value.trim()) {
        model.send({row: rows[at], tag: field.value.trim()});
        field.value = "";
      }
    } else if (event.target === view && keys[event.key]) {
      event.preventDefault();
      keys[event.key]();
    }
  });
  view.addEventListener("click", event => {
    const clicked = event.target.closest(".clip");
    if (!clicked) return;
    view.focus();
    move(rows.indexOf(+clicked.dataset.row));
    open();
  });
  view.addEventListener("scroll", soon);
  const sizes = new ResizeObserver(soon), traits = ["videos", "predicted", "shown", "tags"];
  sizes.observe(view);
  let reading = 0;
  const changed = () => { reading ||= requestAnimationFrame(() => { reading = 0; read(); }); };
  for (const trait of traits) model.on(`change:${trait}`, changed);
  model.on("msg:custom", receive);
  read();
  return () => {
    sizes.disconnect();
    clearTimeout(asking);
    for (const trait of traits) model.off(`change:${trait}`, changed);
    model.off("msg:custom", receive);
    for (const url of strips.values()) URL.revokeObjectURL(url);
  };
}

export default {render};
