// The page's side of `Player` in player.py: layers, time line, votes and keys of a clip, in a notebook or in a page
// without a kernel.
//
// The kernel sends the pictures of a layer once. The page blends them as `over` in pictures.py does, so that no change
// of layers, opacity, zoom or frame needs a new picture. The page plays by itself and shows every frame, also when it
// is late. It sends the number of the frame to the kernel a few times a second, and when the clip stops.
const SPEEDS = [["¼", 0.25], ["½", 0.5], ["1", 1], ["2", 2]];
const AHEAD = 12;  // frames whose pictures are decoded in advance
const ORDERS = [
  ["as filmed", "temporal order", ""], ["swap pair", "swap the two snippets around the cursor", "key-x"],
  ["reverse", "the last snippet comes first", "key-r"], ["shuffle", "a random order", ""]];

/** The pictures of one layer. Each is decoded when it is first needed. */
class Pictures {
  constructor(sent, ready) {
    Object.assign(this, {sent, ready, images: new Map()});
  }

  at(frame) {
    const number = this.sent.numbers?.[frame], data = this.sent.data?.[number];
    if (!data) return null;
    if (!this.images.has(number)) {
      const image = new Image();
      image.onload = () => {
        URL.revokeObjectURL(image.src);
        this.ready();
      };
      image.src = typeof data === "string" ? "data:image/png;base64," + data : URL.createObjectURL(new Blob([data]));
      this.images.set(number, image);
    }
    return this.images.get(number);
  }
}

const percent = share => (100 * share).toFixed(0);

/** Score bars of the most probable actions and of the true one, with a column for each head. */
function bars({actions, heads, fused, label}, at, count = 5) {
  const columns = heads.map(({name, colour, votes, probabilities, pairs}) => {
    const vote = votes[at], about = pairs ? `pair ${vote + 1}-${vote + 2}` : `snippet ${vote + 1}`;
    return {name, colour, shares: probabilities[vote], about};
  });
  columns.push({name: "late fusion", about: "the video", shares: fused.probabilities, colour: fused.colour});
  const score = fused.probabilities, shown = [...actions.keys()].sort((a, b) => score[b] - score[a]).slice(0, count);
  const truth = actions.indexOf(label);
  if (truth >= 0 && !shown.includes(truth)) shown[shown.length - 1] = truth;
  const bar = ({shares, colour}, action) => make("td", {},
    make("i", {style: `width:${100 * shares[action]}%;background:${colour}`}), make("b", {}, percent(shares[action])));
  return make("table", {className: "bars"},
    make("thead", {}, make("tr", {}, make("td"),
      ...columns.map(c => make("th", {scope: "col"}, c.name, make("small", {}, c.about))))),
    make("tbody", {}, ...shown.map(action => make("tr", {className: action === truth ? "true" : ""},
      make("th", {scope: "row", title: actions[action]}, action === truth ? "✓ " : "", ...words(actions[action])),
      ...columns.map(column => bar(column, action))))));
}

/** The probability of an action over the frames: one line for each head, one step for each vote. */
function curve(heads, action, last) {
  const lines = heads.map(({votes, probabilities, colour}) => {
    const steps = votes.flatMap((vote, i) =>
      i && votes[i - 1] === vote ? [] : `${i ? `H${i}V` : "M0 "}${1 - probabilities[vote][action]}`);
    return `<path d="${steps.join("")}H${last}" stroke="${colour}"/>`;
  });
  return `<svg viewBox="0 -.04 ${Math.max(1, last)} 1.08" preserveAspectRatio="none">${lines.join("")}</svg><em></em>`;
}

function player({model, el}) {
  const live = Boolean(model.send), pictures = {}, opacities = {}, zoom = {by: 1, x: 0, y: 0};
  let at = 0, playing = 0, due = 0, speed = 1, reporting = 0, layers = {};
  const get = name => model.get(name), last = () => get("clip").shown - 1;
  const button = (text, title, onclick, key = "") => make("button", {title, onclick, className: key}, text);
  const set = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };

  // -- the parts

  const part = (tag, className, more = {}) => make(tag, {className, ...more});
  const title = part("div", "title"), canvas = part("canvas", "", {tabIndex: -1}), line = part("div", "ifttn-line");
  const frame = part("input", "ifttn-frame", {type: "range", min: 0, value: 0, ariaLabel: "Frame"});
  const votes = part("div", "curve"), values = part("div", "legend"), where = part("small", "where");
  const scores = part("div", "scores"), verdict = part("div", "verdict"), rows = part("div", "layers");
  const legends = part("div", "legends"), saved = part("small", "saved", {role: "status"});
  const keys = part("small", "keys");
  const mapAction = make("select", {ariaLabel: "maps (CAM) of", onchange: () => set("map_action", mapAction.value)});
  const play = button("▶ play", "play or pause", () => playing ? stop() : start(), "ifttn-play key-space");
  const rates = SPEEDS.map(([name, by]) => button(name, `${by} times as fast`, () => {
    speed = by;
    rates.forEach(each => each.ariaPressed = each.textContent === name);
  }));
  rates[2].ariaPressed = true;
  const full = () => document.fullscreenElement ? document.exitFullscreen() : left.requestFullscreen();
  const view = [button("+", "larger", () => magnify(1.5), "key-plus"),
    button("−", "smaller", () => magnify(1 / 1.5), "key-minus"),
    button("1:1", "true size of the frame; press again to go back", () => trueSize()),
    button("full", "full screen; press again to go back", full, "key-f")];
  const send = what => {
    report();
    model.send(what);
  };
  const saving = ["PNG", "GIF", "MP4"].map(kind =>
    button(kind, `save as ${kind}`, () => send({save: kind}), kind === "PNG" ? "key-s" : ""));
  const group = (...children) => make("div", {className: "group"}, ...children);
  const left = make("div", {className: "left"}, title, make("div", {className: "picture"}, canvas),
    frame, line, votes, values,
    group(play, ...rates, part("span", "gap"), ...view),
    group(button("< snippet", "go to the previous snippet", () => jump(-1), "key-shift-arrowleft"),
      button("snippet >", "go to the next snippet", () => jump(1), "key-shift-arrowright"), part("span", "gap"),
      ...live ? [make("small", {}, "save as"), ...saving] : []),
    where, saved, keys);
  const order = live ? [
    make("h4", {}, "Does order matter? ", make("small", {}, "most likely action, probability in %")),
    group(...ORDERS.map(([text, tip, key]) => button(text, tip, () => send({reorder: text}), key))), verdict] : [];
  const fade = by => {
    const name = get("offered").map(each => each.name).filter(each => each in layers).at(-1);
    if (name) setLayers({...layers, [name]: Math.round(20 * Math.min(1, Math.max(0, layers[name] + by))) / 20});
  };
  const right = make("div", {className: "right"},
    make("h4", {}, "Predictions ", make("small", {}, "probability in %")), scores, ...order,
    make("h4", {}, "Layers ", make("small", {}, "on or off, and their opacity")), rows, legends,
    make("div", {hidden: true},
      button("", "", () => fade(-0.1), "key-less"), button("", "", () => fade(0.1), "key-more")),
    ...live ? [make("label", {className: "map-action"}, "maps (CAM) of ", mapAction)] : []);
  const root = make("div", {className: "ifttn-player"}, left, right);
  el.append(root);

  // -- the picture

  const magnify = (by, x = canvas.width / 2, y = canvas.height / 2) => {
    const wanted = Math.min(12, Math.max(1, zoom.by * by)), times = wanted / zoom.by;
    const inside = (value, side) => Math.min(0, Math.max(side * (1 - wanted), value));
    Object.assign(zoom, {by: wanted, x: inside(x - times * (x - zoom.x), canvas.width),
      y: inside(y - times * (y - zoom.y), canvas.height)});
    draw();
  };
  const trueSize = () => {
    canvas.style.width = canvas.style.width ? "" : `${get("clip").width}px`;
  };
  const draw = () => {
    const on = get("offered").filter(each => each.name in layers).sort((a, b) => a.above - b.above);
    const images = on.map(each => pictures[each.name]?.at(at));
    for (let i = 1; i <= AHEAD; i++) on.forEach(each => pictures[each.name]?.at(at + i));
    if (images.some(image => image && !image.complete)) return;  // the image draws when it is decoded
    const pen = canvas.getContext("2d"), {width, height} = canvas;
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.globalAlpha = 1;
    pen.fillStyle = "#181818";
    pen.fillRect(0, 0, width, height);
    pen.setTransform(zoom.by, 0, 0, zoom.by, zoom.x, zoom.y);
    images.forEach((image, i) => {
      if (!image?.naturalWidth) return;
      const {where, smooth} = pictures[on[i].name].sent, [x, y, w, h] = where ?? [0, 0, 1, 1];
      pen.globalAlpha = layers[on[i].name];
      pen.imageSmoothingEnabled = smooth;
      pen.drawImage(image, x * width, y * height, w * width, h * height);
      pen.globalAlpha = 1;
      pen.strokeStyle = "#a0a0a0";
      if (where) pen.strokeRect(x * width + 0.5, y * height + 0.5, w * width - 1, h * height - 1);
    });
    if (images.some(Boolean)) canvas.dataset.drawn = at;
  };

  // -- the frame

  const showFrame = () => {
    const {seconds, kinds, fps, step, count} = get("clip"), {heads} = get("votes");
    const share = last() > 0 ? at / last() : 0, number = Math.min(at * step, count - 1);
    frame.value = at;
    frame.ariaValueText = `frame ${number + 1} of ${count}`;
    for (const each of [line, votes]) each.style.setProperty("--at", share);
    where.replaceChildren("frame ", make("b", {}, `${number + 1}`),
      ` of ${count} · ${seconds[at].toFixed(2)} s at ${+fps.toPrecision(3)} frames/s · ${kinds[at]}-frame`);
    const now = heads?.map(head => head.votes[at]).join();
    if (heads && now !== scores.dataset.votes) scores.replaceChildren(bars(get("votes"), at));
    scores.dataset.votes = now;
    showValues(at);
    draw();
    root.dispatchEvent(new CustomEvent("ifttn-frame", {bubbles: true, detail: share}));
  };
  const report = () => {
    clearTimeout(reporting);
    reporting = 0;
    if (el.isConnected && get("frame") !== at) set("frame", at);  // not in a panel that was closed while it played
  };
  const go = wanted => {
    at = Math.min(last(), Math.max(0, wanted));
    showFrame();
    reporting ||= setTimeout(report, 250);
  };
  const jump = by => {
    const {sampled, step} = get("clip"), places = sampled.map(each => Math.floor(each / step));
    const there = by > 0 ? places.find(each => each > at) : places.findLast(each => each < at);
    if (there !== undefined) go(there);
  };
  const stop = () => {
    cancelAnimationFrame(playing);
    playing = 0;
    play.textContent = "▶ play";
  };
  const start = () => {
    if (at >= last()) go(0);
    due = performance.now();
    play.textContent = "❚❚ pause";
    playing = requestAnimationFrame(step);
  };
  const step = now => {
    if (!el.isConnected) return stop();
    const rate = get("clip").fps / get("clip").step * speed, many = Math.ceil(rate / 60), each = 1000 * many / rate;
    if (now > due - 4) {
      due = Math.max(due + each, now);
      go(at + many);
      if (at >= last()) return stop();
    }
    playing = requestAnimationFrame(step);
  };

  // -- predictions

  const action = () => {
    const {actions, fused} = get("votes"), named = actions.indexOf(get("map_action"));
    return named >= 0 ? named : fused.probabilities.indexOf(Math.max(...fused.probabilities));
  };
  const showValues = index => {
    const {heads, actions} = get("votes");
    if (!heads) return;
    const shown = action(), each = heads.map(({name, colour, votes, probabilities: p}) => make("span", {},
      make("i", {style: `background:${colour}`}), name, make("b", {}, ` ${p[votes[index]][shown].toFixed(2)}`)));
    values.replaceChildren(make("span", {}, `probability of ${actions[shown]} over time (0 to 1):`), ...each);
  };
  const showVotes = () => {
    const {heads, actions, unread} = get("votes");
    votes.hidden = values.hidden = !heads;
    if (!heads) return void (scores.innerHTML = unread ?? "");
    delete scores.dataset.votes;
    votes.innerHTML = curve(heads, action(), last());
    mapAction.replaceChildren(make("option", {value: ""}, "the predicted action"),
      ...actions.map(name => make("option", {value: name}, name)));
    mapAction.value = get("map_action");
  };

  // -- layers

  const setLayers = chosen => {
    layers = chosen;
    showLayers();
    set("layers", layers);
  };
  const toggle = name => {
    const {[name]: opacity, ...others} = layers;
    setLayers(opacity === undefined ? {...others, [name]: opacities[name]} : others);
  };
  const showLayers = () => {
    Object.assign(opacities, layers);
    for (const row of rows.children) {
      const name = row.dataset.layer;
      row.firstChild.ariaPressed = name in layers;
      row.lastChild.value = opacities[name];
    }
    const motion = make("span", {}, part("i", "wheel"), "hue: direction, saturation: speed");
    const map = make("span", {}, "against −1", part("i", "bar"), "+1 for the action, in the square that the network sees");
    legends.replaceChildren(...["flow", "vectors"].some(name => name in layers) ? [motion] : [],
      ...Object.keys(layers).some(name => name.startsWith("CAM")) ? [map] : []);
    draw();
  };
  const offer = () => {
    rows.replaceChildren(...get("offered").map(({name, label, opacity}, i) => {
      opacities[name] ??= opacity;
      const range = make("input", {type: "range", min: 0, max: 1, step: 0.05, ariaLabel: `opacity of ${label}`});
      range.oninput = () => {
        opacities[name] = range.valueAsNumber;
        if (name in layers) layers = {...layers, [name]: opacities[name]};
        draw();
      };
      range.onchange = () => name in layers && set("layers", layers);
      const key = `${i + 1}`;
      return make("div", {"data-layer": name}, button(label, `key ${key}`, () => toggle(name), `key-${key}`), range);
    }));
    keys.textContent = `← → frame, with Shift snippet · Space play · 1 to ${rows.children.length} layer · [ ] opacity` +
      ` · + − zoom · f full screen${live ? " · s save · r reverse" : ""}`;
    showLayers();
  };
  const take = name => {
    pictures[name] = new Pictures(get(`pictures of ${name}`), draw);
    draw();
  };

  // -- the clip

  const showClip = () => {
    const clip = get("clip");
    stop();
    if (!clip.shown) return;
    title.innerHTML = clip.title;
    line.innerHTML = clip.line;
    Object.assign(canvas, {width: clip.size[0], height: clip.size[1]});
    canvas.setAttribute("role", "img");
    canvas.ariaLabel = clip.name;
    Object.assign(zoom, {by: 1, x: 0, y: 0});
    frame.max = last();
    at = Math.min(get("frame"), last());
    showVotes();
    offer();
    showFrame();
  };
  const here = event => {
    const box = event.currentTarget.firstElementChild.getBoundingClientRect();
    return Math.round(last() * Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)));
  };
  frame.oninput = () => {
    stop();
    go(frame.valueAsNumber);
  };
  root.addEventListener("ifttn-go", event => {  // a player beside this one moved (pair.js)
    stop();
    if (get("clip").shown) go(Math.round(event.detail * last()));
  });
  for (const each of [line, votes]) {
    each.onpointerdown = event => (each.setPointerCapture(event.pointerId), go(here(event)));
    each.onpointermove = event => event.buttons ? go(here(event)) : each === votes && showValues(here(event));
    each.onpointerleave = () => showValues(at);
  }
  const finer = () => canvas.width / canvas.clientWidth;
  const spot = event => [event.offsetX * finer(), event.offsetY * finer()];
  canvas.ondblclick = event => magnify(2, ...spot(event));
  canvas.onpointermove = event => {
    if (!event.buttons || zoom.by === 1) return;
    zoom.x += event.movementX * finer();
    zoom.y += event.movementY * finer();
    magnify(1);
  };
  canvas.addEventListener("wheel", event => {
    if (!event.ctrlKey) return;  // a wheel alone scrolls the notebook
    event.preventDefault();
    magnify(event.deltaY < 0 ? 1.2 : 1 / 1.2, ...spot(event));
  }, {passive: false});

  const onChange = (name, call) => model.on(`change:${name}`, call);
  onChange("clip", showClip);
  onChange("votes", () => get("clip").shown && (showVotes(), showFrame()));
  onChange("map_action", () => get("clip").shown && (showVotes(), showFrame()));
  onChange("offered", offer);
  onChange("frame", () => get("frame") !== at && !reporting && get("clip").shown && go(get("frame")));
  onChange("layers", () => (layers = get("layers"), showLayers()));
  onChange("verdict", () => verdict.innerHTML = get("verdict"));
  onChange("saved", () => saved.innerHTML = get("saved"));
  layers = get("layers");
  for (const name of get("known")) {
    take(name);
    onChange(`pictures of ${name}`, () => take(name));
  }
  verdict.innerHTML = get("verdict");
  showClip();
  whenThere(el, () => {
    if (el.closest(".ifttn")) return;
    el.classList.add("ifttn");  // alone, outside of a panel
    listen(el, "Clip");
  });
  return stop;
}

/** A model for a page without a kernel: it only holds the state. */
function offline(state) {
  const calls = {};
  return {
    get: name => state[name],
    set(name, value) {
      state[name] = value;
      for (const call of calls[`change:${name}`] ?? []) call();
    },
    on: (name, call) => (calls[name] ??= []).push(call),
    save_changes() {},
  };
}

export default {render: player};
