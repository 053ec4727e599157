// The keys of a panel. `in_page("keys.js", ...)` in panel.py puts this file before the module that listens.
//
// A panel handles every key without Ctrl or Meta and stops its event: the notebook would delete or convert the cell.
// JupyterLab listens on an outer element, which the event does not reach. Notebook 7 listens before the panel; an
// attribute of Lumino makes it ignore the key. A key presses the control with its class: "key-s", "key-space",
// "key-shift-arrowleft". The arrow keys, Home and End move the frame of a player, unless another slider has the focus.
const NAMES = {" ": "space", "[": "less", "]": "more", "?": "help", "+": "plus", "-": "minus"};
const MOVES = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity};

/** Call once the notebook has put an element into its page: it does so some time after `render`. */
function whenThere(el, call) {
  if (el.isConnected) call();
  else requestAnimationFrame(() => whenThere(el, call));
}

const alone = event => !event.ctrlKey && !event.metaKey;

if (!window.ifttnKeys) {
  window.ifttnKeys = true;
  window.addEventListener("keydown", event => {
    if (event.target.closest?.(".ifttn")) event.target.toggleAttribute("data-lm-suppress-shortcuts", alone(event));
  }, true);
}

/** Give the sliders of ipywidgets, which have no name, the text of their label. */
function nameSliders(root) {
  for (const handle of root.querySelectorAll(".noUi-handle:not([aria-label])")) {
    const label = handle.closest(".widget-slider")?.querySelector(".widget-label")?.textContent;
    if (label) handle.ariaLabel = label;
  }
}

function listen(root, title) {
  if (root.dataset.keys) return;
  root.dataset.keys = "on";
  root.tabIndex = 0;
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", title);
  new MutationObserver(() => nameSliders(root)).observe(root, {childList: true, subtree: true});
  nameSliders(root);
  root.addEventListener("keydown", event => {
    const target = event.target, frame = root.querySelector("input.ifttn-frame");
    if (!alone(event)) return;
    event.stopPropagation();
    if (event.altKey || target.matches("input:not([type=checkbox],[type=range]),textarea,select")) return;
    const slides = target.matches("input[type=range],.noUi-handle");
    if (event.key in MOVES && !event.shiftKey) {
      if (slides || !frame) return;
      frame.value = Math.min(+frame.max, Math.max(0, frame.valueAsNumber + MOVES[event.key]));
      frame.dispatchEvent(new Event("input"));
      return event.preventDefault();
    }
    if (target.matches("button") && (event.key === " " || event.key === "Enter")) return;
    const shift = event.shiftKey && event.key.length > 1 ? "shift-" : "";
    const bound = root.querySelector("." + CSS.escape("key-" + shift + (NAMES[event.key] || event.key.toLowerCase())));
    if (bound) {
      (bound.matches("button") ? bound : bound.querySelector("button")).click();
      event.preventDefault();
    }
  });
}
