"""The DeepDraw studio: gradient ascent from noise to what an action looks like, live, with stop and resume.

Shapes: M snippets, H x W pixels.
"""

import base64
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
import torch
from ipywidgets import HTML, Box, Checkbox, HBox, Image, IntText, Layout, VBox
from torch import Tensor
from traitlets import Bool, HasTraits, Int, Unicode

from ifttn.experiment.runs import write_atomically
from ifttn.insight import deepdraw
from ifttn.insight.order import swap_report
from ifttn.model.network import Network
from ifttn.vocabulary import IfttnError
from lab import pictures, sketches
from lab.figures import SERIES, flow_colours
from lab.panel import Panel, choose
from lab.shelf import Shelf

EVERY = 0.15
"""Seconds between two pictures in the page."""
TILES = ("A: frame", "B: frame", "A: motion", "B: motion")


class StudioState(HasTraits):
    """All that a person chooses."""

    dataset = Unicode()
    split = Int(1)
    run = Unicode()
    action = Unicode()
    head = Unicode()
    settings = Unicode(help="a name of ifttn.insight.deepdraw.PRESETS")
    contrastive = Bool(True, help="ascend the logit less the log-sum-exp of the others'")
    seed = Int(0)


@dataclass(frozen=True)
class Drawing:
    """A drawing that was kept, and how to draw it again."""

    title: str
    tiles: tuple[bytes, ...]
    """PNG, of TILES."""
    logit: float
    probability: float
    swapped: float | None
    """Probability of the action for the pair in reverse order."""


class DeepDrawStudio(Panel):
    """`DeepDrawStudio("results")` in a cell.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        out: where kept drawings go.
        chosen: traits of `StudioState` to begin with.
    """

    state: StudioState

    def __init__(self, results: Shelf | Path | str, out: Path | str = "drawings", **chosen: object) -> None:
        super().__init__("DeepDraw studio", StudioState())
        self.shelf = results if isinstance(results, Shelf) else Shelf(results)
        self.out = Path(out)
        self.drawn: deepdraw.State | None = None
        """The latest step."""
        self.gallery: list[Drawing] = []
        self._network: Network | None = None
        self._logits: list[tuple[int, float, float]] = []
        self._swaps: list[tuple[int, float]] = []
        self._silent = False
        self._build()
        self.guard(lambda: self._begin(chosen))

    def _build(self) -> None:
        self.dataset, self.split, self.run = choose("data set"), choose("split", (1, 2, 3)), choose("run")
        self.action, self.head = choose("action", flex="1 1 260px"), choose("head")
        self.settings = choose("recipe", tuple(deepdraw.PRESETS))
        self.contrastive = Checkbox(description="against the other actions", indent=False, layout=Layout(width="auto"))
        self.seed = IntText(description="seed", layout=Layout(width="110px"))
        self.seed.style.description_width = "initial"
        self.start_button = self.button("▶ draw", self.start, "from new noise", "d")
        self.pause_button = self.button("pause", self.pause, "or go on", "space")
        self.stop_button = self.button("■ stop", self.stop, "for good", "escape")
        self.keep_button = self.button("keep", self.keep, "in the gallery, and as files", "k")
        tiles = []
        self.tiles = [Image(format="jpeg", layout=Layout(width="100%")) for _ in TILES]
        for name, image in zip(TILES, self.tiles, strict=True):
            image.add_class("picture")
            tiles.append(VBox([HTML(f"<small>{name}</small>"), image], layout=Layout(width="48%")))
        self._tiles = Box(tiles, layout=Layout(flex_flow="row wrap", grid_gap="6px", width="100%"))
        self._chart, self._swap, self._kept, self._compared = HTML(), HTML(), HTML(), HTML()
        self.first, self.second = choose("compare", flex="1 1 200px"), choose("with", flex="1 1 200px")
        row = Layout(flex_flow="row wrap", grid_gap="8px", width="100%", align_items="center")
        self.fill(HBox([self.dataset, self.split, self.run, self.head], layout=row))
        self.fill(HBox([self.action, self.settings, self.contrastive, self.seed], layout=row))
        self.fill(HBox([self.start_button, self.pause_button, self.stop_button, self.keep_button], layout=row))
        left = VBox([self._tiles], layout=Layout(flex="1 1 380px", min_width="300px"))
        right = VBox([self._chart, self._swap], layout=Layout(flex="1 1 380px", min_width="300px", grid_gap="8px"))
        self.fill(
            Box([left, right], layout=Layout(flex_flow="row wrap", grid_gap="20px", width="100%")),
            HTML("<h4>Gallery</h4>"),
        )
        self.fill(self._kept, HBox([self.first, self.second], layout=row), self._compared)
        for name in ("dataset", "split", "run", "action", "head", "settings"):
            control = getattr(self, name)
            self.watch(control, ["value"], lambda name=name, control=control: self._set(name, control.value))
        self.tie((self.state, "contrastive"), (self.contrastive, "value"))
        self.tie((self.state, "seed"), (self.seed, "value"))
        self.watch(self.state, ["dataset", "split", "run"], self._offer)
        self.watch(self.worker, ["doing", "paused"], self._show_buttons)
        for each in (self.first, self.second):
            self.watch(each, ["value"], self._show_compared)
        self._show_buttons()
        self._show_gallery()
        self._chart.value = sketches.chart([], "logit")

    def _begin(self, chosen: dict[str, object]) -> None:
        datasets = self.shelf.datasets
        self.dataset.options = datasets
        with self.state.hold_trait_notifications():
            self.state.dataset = max(datasets, key=lambda name: len(self.shelf.runs(name, 1)))
            for name, value in chosen.items():
                setattr(self.state, name, value)

    def _set(self, name: str, value: object) -> None:
        if not self._silent and value is not None:
            setattr(self.state, name, value)

    def _offer(self) -> None:
        state = self.state
        ready = {name: run for name, run in self.shelf.runs(state.dataset, state.split).items() if run.finished}
        if not ready:
            raise IfttnError(
                f"no trained run of {state.dataset}, split {state.split}: `ifttn reproduce --quick` trains one"
            )
        run = (
            state.run
            if state.run in ready
            else next((n for n in ("if-ttn", "mv-if-ttn") if n in ready), next(iter(ready)))
        )
        asked = ready[run].asked
        modalities, fusion = asked["network"]["modalities"], asked["network"]["fusion"]
        temporal = () if not fusion else tuple(f"ttn-{m}" for m in modalities) if fusion == "separate" else ("ttn",)
        heads = (*temporal, *modalities)
        fitting = next(
            (n for n, s in deepdraw.PRESETS.items() if s.crop == ready[run].preset().size), next(iter(deepdraw.PRESETS))
        )
        self._silent = True
        try:
            self.dataset.value, self.split.options = state.dataset, self.shelf.splits(state.dataset)
            self.split.value = state.split
            self.run.options, self.run.value = tuple(ready), run
            self.action.options = asked["actions"]
            self.action.value = state.action if state.action in asked["actions"] else asked["actions"][0]
            self.head.options, self.head.value = heads, state.head if state.head in heads else heads[0]
            self.settings.value = state.settings or fitting
        finally:
            self._silent = False
        for name in ("run", "action", "head", "settings"):
            setattr(state, name, getattr(self, name).value)

    # -- drawing

    def start(self) -> None:
        """Draw from new noise, in place of what is being drawn."""
        self.work(f"drawing {self.state.action}", self._draw)

    def pause(self) -> None:
        """Halt, or go on where it halted."""
        if self.worker.doing:
            self.worker.pause(not self.worker.paused)

    def stop(self) -> None:
        """Give up the drawing; what is drawn stays."""
        self.worker.stop()

    def _draw(self) -> Iterator[float | None]:
        state = self.state
        run = self.shelf.runs(state.dataset, state.split)[state.run]
        recognizer = self.shelf.recognizer(run)
        self._network, self._logits, self._swaps, self.drawn = recognizer.network, [], [], None
        settings = replace(deepdraw.PRESETS[state.settings], contrastive=state.contrastive)
        action = recognizer.actions.index(state.action)
        title = f"{state.action}, {state.head} of {state.dataset}/split{state.split}/{state.run}, seed {state.seed}"
        self._title = title + ("" if state.contrastive else ", logit alone")
        steps = deepdraw.draw(recognizer.network, action, settings, head=state.head, seed=state.seed)
        shown = 0.0
        while True:
            with self.shelf.lock:
                drawn = next(steps, None)
            if drawn is None:
                break
            self.drawn = drawn
            self._logits.append((drawn.step, drawn.logit, drawn.probability))
            if time.monotonic() - shown > EVERY or drawn.step == drawn.of:
                shown = time.monotonic()
                self._show(recognizer.network, action, state.head)
            yield drawn.step / drawn.of

    def _show(self, network: Network, action: int, head: str) -> None:
        drawn = self.drawn
        assert drawn is not None
        for image, picture in zip(self.tiles, tiles(drawn), strict=True):
            image.value = b"" if picture is None else pictures.jpeg(picture, 90)
        steps, logits, probabilities = zip(*self._logits, strict=True)
        curves = [sketches.Curve("logit", steps, logits, SERIES[0])]
        swapped = self._swapped(network, action, head)
        more = [sketches.Curve("p(A,B)", steps, probabilities, SERIES[2])]
        if swapped is not None:
            self._swaps.append((drawn.step, swapped))
            at, values = zip(*self._swaps, strict=True)
            more.append(sketches.Curve("p(B,A), swapped", at, values, SERIES[1], dashed=True))
        self._chart.value = sketches.chart(curves, "logit", height=150) + sketches.chart(
            more, "probability", height=150, top=1.0
        )
        octave = f"octave {drawn.octave + 1}, step {drawn.step} of {drawn.of}, blur {drawn.sigma:.2f} px"
        told = (
            ""
            if swapped is None
            else (
                "<br>A drawing passes the swap on the network that drew it whatever it means: only a network trained "
                "apart can bear witness."
            )
        )
        self._swap.value = f"<small>{octave}.{told}</small>"

    def _swapped(self, network: Network, action: int, head: str) -> float | None:
        drawn = self.drawn
        if drawn is None or drawn.rgb is None or drawn.motion is None or len(drawn.rgb) < 2:
            return None
        pair = {network.settings.modalities[0]: drawn.rgb, network.settings.modalities[1]: drawn.motion}
        with self.shelf.lock:
            return float(swap_report({"this network": network}, pair, action, head=head)["p(B,A)"].iloc[0])

    # -- the gallery

    def keep(self) -> None:
        """Put the drawing into the gallery, and its pictures into the folder `out`."""
        drawn = self.drawn
        if drawn is None:
            raise IfttnError("there is no drawing to keep yet: press draw first")
        made = tuple(b"" if picture is None else pictures.png(picture) for picture in tiles(drawn))
        swapped = self._swaps[-1][1] if self._swaps else None
        title = f"{self._title}, step {drawn.step} of {drawn.of}"
        self.gallery.append(Drawing(title, made, drawn.logit, drawn.probability, swapped))
        for name, content in zip(TILES, made, strict=True):
            if content:
                tile = name.replace(": ", "_")
                write_atomically(
                    self.out / f"{len(self.gallery):02d}_{self.state.action}_seed{self.state.seed}_{tile}.png", content
                )
        self._show_gallery()

    def _show_gallery(self) -> None:
        self._kept.value = (
            "<div style='display:flex;flex-wrap:wrap;gap:14px'>"
            + "".join(_card(d, 76) for d in self.gallery)
            + "</div>"
            if self.gallery
            else "<div class=empty>Drawings that you keep come here, with their seeds.</div>"
        )
        options = [(f"{i} {drawing.title}", i - 1) for i, drawing in enumerate(self.gallery, 1)]
        for each, index in ((self.first, -2), (self.second, -1)):
            each.options = options
            each.value = options[index][1] if len(options) > 1 else None
            each.layout.display = "" if len(options) > 1 else "none"

    def _show_compared(self) -> None:
        chosen = [each.value for each in (self.first, self.second) if each.value is not None]
        if len(chosen) < 2:
            self._compared.value = ""
            return
        cards = "".join(_card(self.gallery[int(index)], 180) for index in chosen)
        self._compared.value = f"<div style='display:flex;flex-wrap:wrap;gap:24px'>{cards}</div>"

    def _show_buttons(self) -> None:
        doing = bool(self.worker.doing)
        self.pause_button.disabled = self.stop_button.disabled = not doing
        self.pause_button.description = "▶ go on" if self.worker.paused else "pause"


def tiles(drawn: deepdraw.State) -> list[np.ndarray | None]:
    """The pictures of TILES; None where the head draws no such thing."""
    rgb = [] if drawn.rgb is None else [_bytes(x).transpose(1, 2, 0) for x in drawn.rgb]
    motion = [] if drawn.motion is None else list(flow_colours(_bytes(drawn.motion)))
    return [rgb[i] if i < len(rgb) else None for i in (0, 1)] + [motion[i] if i < len(motion) else None for i in (0, 1)]


def _bytes(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().clamp(0, 255).round().to("cpu", torch.uint8).numpy())


def _card(drawing: Drawing, width: int) -> str:
    images = "".join(
        f"<img width={width} alt='{escape(name)}' src='data:image/png;base64,{base64.b64encode(content).decode()}'>"
        for name, content in zip(TILES, drawing.tiles, strict=True)
        if content
    )
    swapped = "" if drawing.swapped is None else f", swapped {drawing.swapped:.2f}"
    return (
        f"<figure style='max-width:{2 * width + 8}px'><div style='display:flex;flex-wrap:wrap;gap:4px'>{images}</div>"
        f"<figcaption><small>{escape(drawing.title)}: p = {drawing.probability:.2f}{swapped}</small></figcaption>"
        "</figure>"
    )
