"""The DeepDraw studio: live gradient ascent from noise to a picture of an action, with pause and stop."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

import numpy as np
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML, Image, IntSlider, Layout, Text, ToggleButton, VBox
from traitlets import dlink, link

from ifttn.files import write_whole
from ifttn.insight.deepdraw import DrawingStep, draw
from ifttn.insight.drawing_settings import DRAWING_PRESETS
from ifttn.insight.embedded.denoiser import Denoiser, denoiser_file, load_denoiser
from ifttn.model.network import Network
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError
from lab import pictures, sketches
from lab.drawings import OPTIONS, TILES, Drawing, KeptDrawing, StudioState, card, next_number, outcome, tile_html, tiles
from lab.figures import SERIES
from lab.panel import Panel, as_picture, bind_key, dropdown, labelled, row
from lab.shelf import Shelf

SHOW_EVERY = 0.15
"""Shortest time between two pictures in the page (s)."""
SEED_END = 2**32
CURVES = {"p(A,B)": SERIES[2], "p(B,A)": SERIES[2], "witness p(A,B)": SERIES[3], "witness p(B,A)": SERIES[3]}
"""Curve of a probability -> its colour. The curves of swapped pairs are dashed."""
LEGEND = f"<div class=legends>{sketches.WHEEL}</div>"


class DeepDrawStudio(Panel):
    """`DeepDrawStudio("results")` in a cell.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        out: folder for kept drawings.
        chosen: first values of traits of `StudioState`.
    """

    state: StudioState

    def __init__(self, results: Shelf | Path | str, out: Path | str = "drawings", **chosen: object) -> None:
        super().__init__("DeepDraw studio", StudioState(), results)
        self.out = Path(out)
        self.drawing = Drawing()
        """The present or the last drawing."""
        self.gallery: list[KeptDrawing] = []
        self._add_controls()
        self._add_pictures()
        self._watch_all()
        self._show_buttons()
        self._show_gallery()
        self._chart.value = sketches.chart([], "logit over steps")
        self.begin(chosen)

    def _add_controls(self) -> None:
        self.dataset, self.split, self.run = dropdown("data set"), dropdown("split", (1, 2, 3)), dropdown("run")
        self.action, self.head = dropdown("action", flex="1 1 260px"), dropdown("head")
        self.settings = dropdown("recipe", tuple(DRAWING_PRESETS))
        # a number field of a browser would read 1e3 as 1
        self.seed = labelled("seed", Text("0", continuous_update=False, layout=Layout(width="120px")))
        self.seeds = dropdown("drawings", [*OPTIONS["seeds"].items()])
        self.length = dropdown("steps", [*OPTIONS["length"].items()])
        self.start_button = self.button("▶ draw", self.start, "draw from new noise", "d")
        self.pause_button = self.button("pause", self.pause, "pause or continue", "space")
        self.stop_button = self.button("■ stop", self.stop, "end this drawing", "escape")
        self.keep_button = self.button("keep", self.keep, f"add to the gallery and save in {self.out}", "k")
        self.fill(row(self.dataset, self.split, self.run, self.head), row(self.action, self.settings, self.length))
        buttons = self.start_button, self.pause_button, self.stop_button, self.keep_button
        self.fill(row(*buttons, self.seed, self.seeds))

    def _add_pictures(self) -> None:
        self.tiles = [Image(format="jpeg", layout=Layout(width="100%")) for _ in TILES]
        named = []
        for name, image in zip(TILES, self.tiles, strict=True):
            image.add_class("picture")
            named.append(VBox([HTML(f"<small>{name}</small>"), image], layout=Layout(width="48%")))
        self._tiles = row(*named, align_items="stretch", width="100%")
        self.ascent = labelled("step", IntSlider(max=0, readout=False, layout=Layout(flex="1 1 160px")))
        self.swapped = ToggleButton(description="swap A and B", layout=Layout(width="auto"))
        bind_key(self.swapped, "x")
        self._order = HTML()
        self._drawn = VBox([self._tiles, row(self.ascent, self.swapped), self._order], layout=Layout(display="none"))
        self._blank = HTML(
            "<div class=empty>Press <b>draw</b>: gradient ascent changes noise until the network sees the action.<br>"
            "<kbd>d</kbd> draw · <kbd>Space</kbd> pause · <kbd>Esc</kbd> stop · <kbd>k</kbd> keep · <kbd>x</kbd> swap"
            "</div>"
        )
        self._chart, self._status_line, self._kept = HTML(), HTML(), HTML()
        columns = [
            VBox(half, layout=Layout(flex="1 1 380px", min_width="300px", grid_gap="8px"))
            for half in ([self._blank, self._drawn], [self._chart, self._status_line])
        ]
        self.fill(row(*columns, align_items="stretch", grid_gap="20px", width="100%"))
        self.fill(HTML("<h4>Gallery</h4>"), self._kept)

    def _watch_all(self) -> None:
        self.offer("dataset", "split", "run", "action", "head", "settings")
        self.watch(self.seed, ["value"], self._read_seed)
        dlink((self.state, "seed"), (self.seed, "value"), str)
        for name in ("seeds", "length"):
            link((self.state, name), (getattr(self, name), "value"))
        for control in (self.ascent, self.swapped):
            self.watch_choice(control, self._show_step)
        self.watch(self.state, ["dataset", "split", "run"], self._list)
        self.watch(self.worker, ["doing", "paused"], self._show_buttons)

    def _list(self) -> None:
        """Fill every list with the options that the choices above it leave."""
        state = self.state
        ready = self.shelf.networks(state.dataset, state.split)
        if not ready:
            raise self.shelf.no_network(state.dataset, state.split)
        run = state.run if state.run in ready else self.shelf.usual_run(state.dataset, state.split)
        identity = ready[run].identity
        modalities, fusion = identity["network"]["modalities"], identity["network"]["fusion"]
        temporal = () if not fusion else tuple(f"ttn-{m}" for m in modalities) if fusion == "separate" else ("ttn",)
        heads = (*temporal, *modalities, *(("fused",) if len(modalities) > 1 else ()))
        with self.filling():
            self.dataset.value, self.split.options = state.dataset, self.shelf.splits(state.dataset)
            self.split.value = state.split
            self.run.options, self.run.value = tuple(ready), run
            self.action.options = identity["actions"]
            self.action.value = state.action if state.action in identity["actions"] else identity["actions"][0]
            self.settings.value = state.settings or self._usual_preset(ready[run].preset().size, modalities)
            # Figures 1 and 7 draw the late fusion with a denoiser, because the differences of TTN remove the scene.
            usual = heads[-1 if DRAWING_PRESETS[self.settings.value].denoised else 0]
            self.head.options, self.head.value = heads, state.head if state.head in heads else usual
        for name in ("run", "action", "head", "settings"):
            setattr(state, name, getattr(self, name).value)

    def _usual_preset(self, size: int, modalities: Sequence[str]) -> str:
        """The preset for networks with this crop size (px); it uses a denoiser if one is trained."""
        fitting = [name for name, settings in DRAWING_PRESETS.items() if settings.crop == size] or list(DRAWING_PRESETS)
        trained = denoiser_file(self.shelf.places.runs, self.state.dataset, self.state.split, modalities).exists()
        return next((name for name in fitting if DRAWING_PRESETS[name].denoised == trained), fitting[0])

    def _read_seed(self) -> None:
        text = self.seed.value.strip()
        if not (text.isdecimal() and int(text) < SEED_END):
            raise IfttnError(f"the seed {text!r} is not a whole number from 0 to {SEED_END - 1}")
        self.worker.error = ""
        self.state.seed = int(text)

    @property
    def drawn(self) -> DrawingStep | None:
        """The latest step of the present or the last drawing."""
        return self.drawing.step

    # -- drawing

    def start(self) -> None:
        """Start a drawing from new noise with the present choices. It replaces the present drawing.

        Raises:
            IfttnError: the text of the seed is no valid seed, or no network is trained.
        """
        self._read_seed()
        if not self.state.head:
            raise self.shelf.no_network(self.state.dataset or self.shelf.usual_dataset, self.state.split)
        chosen = StudioState(**self.state.trait_values())
        self.work(f"drawing {chosen.action}", lambda: self._draw_seeds(chosen))

    def pause(self) -> None:
        """Pause or continue the drawing."""
        if self.worker.doing:
            self.worker.pause(not self.worker.paused)

    def stop(self) -> None:
        """End the drawing. The panel still shows the last step."""
        self.worker.stop()

    def _draw_seeds(self, chosen: StudioState) -> Iterator[float | None]:
        """Draw from each seed. With several seeds, all drawings go to the gallery, and the panel shows the best one."""
        if chosen.seeds == 1:
            yield from self._draw(chosen)
            return
        made, first = list[Drawing](), chosen.seed
        for number in range(int(chosen.seeds)):
            chosen.seed = (first + number) % SEED_END
            yield from self._draw(chosen)
            made.append(self.drawing)
            self.keep()
        self.drawing = max(made, key=lambda each: each.rating)
        self._show(self.drawing, f"the best of {len(made)} seeds is {self.drawing.facts['seed']}")

    def _draw(self, chosen: StudioState) -> Iterator[float | None]:
        run = self.shelf.networks(chosen.dataset, chosen.split)[chosen.run]
        recognizer = self.shelf.recognizer(run)
        witness = self._network_of_another_split(chosen)
        yield None
        settings, denoiser = chosen.drawing_settings(), self._denoiser(chosen, recognizer)
        network, action, head = recognizer.network, recognizer.actions.index(chosen.action), chosen.head
        where = f"{chosen.dataset}/split{chosen.split}/{chosen.run}"
        words = chosen.in_words
        title = f"{chosen.action}, {head} of {where}, seed {chosen.seed}" + (f", {words}" if words else "")
        facts = {"action": chosen.action, "seed": str(chosen.seed), "head": head, "run": where}
        facts |= {"settings": json.dumps(asdict(settings)), "options": words}
        drawing = self.drawing = Drawing(title, facts, settings.denoised)
        steps = draw(network, action, settings, head=head, seed=chosen.seed, denoiser=denoiser)
        shown = 0.0
        while True:
            with self.shelf.lock:
                drawn = next(steps, None)
            if drawn is None:
                break
            drawing.step = drawn
            drawing.add("logit", drawn.logit)
            drawing.add("p(A,B)", drawn.probability)
            if time.monotonic() - shown > SHOW_EVERY or drawn.step == drawn.steps:
                shown = time.monotonic()
                with self.shelf.lock:
                    drawing.add_swap(network, witness, action, head)
                self._show(drawing)
            yield drawn.step / drawn.steps

    def _network_of_another_split(self, chosen: StudioState) -> Network | None:
        """A network of the same recipe that was not trained on this split, or None."""
        apart = [split for split in self.shelf.splits(chosen.dataset) if split != chosen.split]
        runs = filter(None, (self.shelf.networks(chosen.dataset, split).get(chosen.run) for split in apart))
        return next((self.shelf.recognizer(run).network for run in runs), None)

    def _denoiser(self, chosen: StudioState, recognizer: Recognizer) -> Denoiser | None:
        if not DRAWING_PRESETS[chosen.settings].denoised:
            return None
        modalities = recognizer.network.settings.modalities
        file = denoiser_file(self.shelf.places.runs, chosen.dataset, chosen.split, modalities)
        return load_denoiser(file, str(recognizer.device))

    def _show(self, drawing: Drawing, best: str = "") -> None:
        """Show the latest step and the curves. An earlier step that a person chose stays visible."""
        drawn = drawing.step
        assert drawn is not None
        self._blank.layout.display, self._drawn.layout.display = "none", ""
        drawing.seen[drawn.step] = [b"" if each is None else pictures.jpeg(each, 90) for each in tiles(drawn)]
        follows = self.ascent.value == self.ascent.max or self.ascent.max >= len(drawing.seen)
        with self.filling(), self.ascent.hold_sync():
            self.ascent.max = len(drawing.seen) - 1
            if follows:
                self.ascent.value = self.ascent.max
        self._show_step()
        logit = sketches.Curve("logit", *_xy(drawing, "logit"), SERIES[0])
        names = [name for name in CURVES if name in drawing.curves]
        probable = [sketches.Curve(name, *_xy(drawing, name), CURVES[name], dashed="(B,A)" in name) for name in names]
        self._chart.value = sketches.chart([logit], "logit over steps", height=150)
        self._chart.value += sketches.chart(probable, "probability over steps", height=150, top=1.0)
        self._status_line.value = f"<small>{_status(drawing, drawn, best)}</small>"

    def _show_step(self) -> None:
        """Show the pictures and probabilities of the chosen step, with A and B in the chosen order."""
        if not self.drawing.seen:
            return
        step, shown = list(self.drawing.seen.items())[self.ascent.value]
        order = (1, 0, 3, 2) if self.swapped.value and shown[1] else range(4)
        for place, number in enumerate(order):
            name, image = self._tiles.children[place].children
            name.value, image.value = f"<small>{TILES[number]}</small>", shown[number]
            self._tiles.children[place].layout.display = "" if shown[number] else "none"
        pair = "p(B,A)" if self.swapped.value else "p(A,B)"
        values = [
            f"{name} = {dict(points)[step]:.2f}"
            for name, points in tuple(self.drawing.curves.items())
            if name.endswith(pair) and step in dict(points)
        ]
        self._order.value = f"<small>step {step}: {', '.join(values)}</small>" + (LEGEND if shown[2] else "")

    def as_html(self) -> HTMLPicture:
        """The latest step of the drawing and its curves, for a page without a kernel."""
        while self.drawn is None and not self.wait(0):  # the first step may still load a network
            time.sleep(SHOW_EVERY)
        inside = self._blank.value
        if self.drawn is not None:
            pair = [b"" if tile is None else pictures.png(tile) for tile in tiles(self.drawn)]
            inside = (
                f"<h4>{escape(self.drawing.title)}</h4>"
                "<div style='display:flex;flex-wrap:wrap;gap:8px 24px;align-items:flex-start'>"
                f"<div style='display:grid;grid-template-columns:240px 240px;gap:6px'>{tile_html(pair, 240)}"
                f"{LEGEND if pair[2] else ''}</div>"
                f"<div style='flex:1 1 380px;max-width:480px'>{self._chart.value}{self._status_line.value}</div></div>"
            )
        return as_picture(inside)

    # -- the gallery

    def keep(self) -> None:
        """Add the drawing to the gallery, and write its pictures into the folder `out`."""
        drawing, drawn = self.drawing, self.drawing.step
        if drawn is None:
            raise IfttnError("there is no drawing to keep yet: press draw first")
        facts, step = drawing.facts, f"{drawn.step} of {drawn.steps}"
        images = tiles(drawn)
        rows = [[image for image in row if image is not None] for row in (images[:2], images[2:])]
        whole = np.concatenate([np.concatenate(row, axis=1) for row in rows if row])
        path = self.out / f"{next_number(self.out):02d}_{facts['action']}_{facts['head']}_seed{facts['seed']}.png"
        write_whole(path, pictures.png(whole, {**facts, "step": step}))
        made = tuple(b"" if image is None else pictures.png(image) for image in images)
        last = {name: points[-1][1] for name, points in tuple(drawing.curves.items())}
        title = f"{drawing.title}, step {step}"
        swapped, witness = last.get("p(B,A)"), last.get("witness p(A,B)")
        self.gallery.append(KeptDrawing(path, title, made, outcome(drawn), swapped, witness))
        self._show_gallery()

    def _show_gallery(self) -> None:
        empty = "<div class=empty>The gallery shows the drawings that you keep, with their seeds.</div>"
        cards = "".join(map(card, self.gallery))
        self._kept.value = f"<div style='display:flex;flex-wrap:wrap;gap:14px'>{cards}</div>" if cards else empty

    def _show_buttons(self) -> None:
        self.pause_button.disabled = self.stop_button.disabled = not self.worker.doing
        # A slow page would send an earlier step back, and the pictures would stay there.
        self.ascent.continuous_update = not self.worker.doing
        self.pause_button.description = "▶ continue" if self.worker.paused else "pause"


def _xy(drawing: Drawing, curve: str) -> tuple[tuple[int, ...], tuple[float, ...]]:
    steps, values = zip(*drawing.curves[curve], strict=True)
    return steps, values


def _status(drawing: Drawing, drawn: DrawingStep, best: str) -> str:
    """The progress of a drawing, and what its probabilities mean."""
    smoothed = f"noise {drawn.sigma:.2f}" if drawing.denoised else f"blur {drawn.sigma:.2f} px"
    text = f"octave {drawn.octave + 1}, step {drawn.step} of {drawn.steps}, {smoothed}."
    if drawn.step == drawn.steps:
        text += f"<br><b>{outcome(drawn)}</b>{best and f', {best}'}"
    if "p(B,A)" in drawing.curves:
        text += "<br>p(A,B) is the probability of the action for the pair as drawn, p(B,A) with A and B swapped."
    if "witness p(A,B)" in drawing.curves:
        text += "<br>The witness is a network of another split, which did not draw: only its probabilities are a test."
    elif "p(B,A)" in drawing.curves:
        text += (
            "<br>A network can distinguish its own pair from the swapped one even if the pair shows no order. Train "
            "another split: its network is then a witness."
        )
    return text
