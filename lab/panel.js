// Runs once in the page for each panel, when the panel's style sheet is loaded; `this` is the <style> element.
//
// Every key without Ctrl or Meta ends at the panel: JupyterLab listens further out, and would delete or turn the cell.
// --at is set on the time line and the slider alone: on the whole panel, every step would style every element anew.
// The page plays by itself: it shows each frame at its time, and where it comes late it leaves none out. It tells the
// kernel the frame a few times a second and at the end, for every step would cost six messages.
const root = this.closest(".ifttn");
if (root && !root.dataset.keys) {
  root.dataset.keys = "on";
  root.tabIndex = 0;
  root.setAttribute("role", "region");
  root.setAttribute("aria-label", this.dataset.title);
  const names = {" ": "space", "[": "less", "]": "more", "?": "help"};
  const find = what => root.querySelector(what);
  const slider = () => find(".ifttn-scrub .noUi-target")?.noUiSlider;
  let at = 0, playing = 0, due = 0, reported = 0, line;

  const show = (frame, last) => {
    at = frame;
    for (const each of root.querySelectorAll(".ifttn-line,.ifttn-scrub"))
      each.style.setProperty("--at", last > 0 ? frame / last : 0);
    const reel = find(".ifttn-reel"), now = reel?.children[frame];
    if (now && !now.matches(".at")) {
      reel.querySelector(".at")?.classList.remove("at");
      now.classList.add("at");
    }
  };
  const follow = () => {
    const handle = find(".ifttn-scrub .noUi-handle");
    if (!handle) return;
    handle.setAttribute("aria-label", "Frame");
    show(Math.round(handle.getAttribute("aria-valuenow")), +handle.getAttribute("aria-valuemax"));
  };
  new MutationObserver(follow).observe(
    root, {subtree: true, attributes: true, attributeFilter: ["aria-valuenow", "aria-valuemax"]});

  const label = text => {
    const button = find(".ifttn-play");
    if (button) button.textContent = text;
  };
  const stop = () => {
    cancelAnimationFrame(playing);
    playing = 0;
    slider()?.set(at);
    label("▶ play");
  };
  const step = now => {
    const scrub = slider(), rate = +find(".ifttn-rate")?.dataset.rate;
    const many = Math.ceil(rate / 60), each = 1000 * many / rate;
    if (!scrub || !root.isConnected || find(".timeline") !== line) return stop();
    if (now > due - 4) {
      const last = scrub.options.range.max;
      due = Math.max(due + each, now);
      show(Math.min(last, at + many), last);
      if (at >= last) return stop();
      if (now > reported + 250) {
        reported = now;
        scrub.set(at);
      }
    }
    playing = requestAnimationFrame(step);
  };
  const play = () => {
    if (playing) return stop();
    line = find(".timeline");
    if (at >= slider()?.options.range.max) at = -1;
    due = reported = performance.now();
    label("❚❚ pause");
    playing = requestAnimationFrame(step);
  };

  root.addEventListener("keydown", event => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey) return;
    event.stopPropagation();
    if (event.altKey || target.matches("input:not([type=checkbox]),textarea,select")) return;
    const handle = find(".ifttn-scrub .noUi-handle");
    const moves = ["ArrowLeft", "ArrowRight", "Home", "End"].includes(event.key) && !event.shiftKey;
    if (handle && moves && !target.closest(".noUi-handle")) {
      if (playing) stop();
      handle.dispatchEvent(new KeyboardEvent("keydown", {key: event.key, cancelable: true}));
      event.preventDefault();
      return;
    }
    if (target.matches("button") && (event.key === " " || event.key === "Enter")) return;
    const shift = event.shiftKey && event.key.length > 1 ? "shift-" : "";
    const bound = find("." + CSS.escape("key-" + shift + (names[event.key] || event.key.toLowerCase())));
    if (bound) {
      (bound.matches("button") ? bound : bound.querySelector("button")).click();
      event.preventDefault();
    }
  });
  root.addEventListener("click", event => {
    if (event.target.closest(".ifttn") !== root) return;
    if (event.target.closest(".ifttn-play")) return play();
    const clicked = event.target.closest(".timeline"), scrub = slider();
    if (clicked && scrub) {
      const box = clicked.getBoundingClientRect(), range = scrub.options.range;
      scrub.set(Math.round(range.min + (range.max - range.min) * (event.clientX - box.left) / box.width));
    }
  });
}
