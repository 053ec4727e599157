"""The DeepDraw studio: gradient ascent from noise to what an action looks like, live, with stop and resume.

Shapes: M snippets, H x W pixels, A actions.
"""

import base64
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import numpy as np
import torch
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML, Box, Dropdown, HBox, Image, IntText, Layout, ToggleButton, VBox
from jaxtyping import Float
from torch import Tensor
from traitlets import Enum, HasTraits, Int, Unicode

from ifttn.experiment.recipes import LATE_FUSION
from ifttn.experiment.runs import Run
from ifttn.insight import deepdraw
from ifttn.insight.deepdraw import Material, Octave, Palette, Settings
from ifttn.insight.denoiser import denoiser_file, load_denoiser
from ifttn.insight.localisation import whole_snippets
from ifttn.insight.pictures import facts, write_png
from ifttn.model.network import Network, undisturbed
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError, Video
from lab import pictures, sketches
from lab.figures import SERIES, flow_colours
from lab.panel import STYLE, Panel, choose
from lab.shelf import Shelf

EVERY = 0.15
"""Seconds between two pictures in the page."""
TILES = ("A: frame", "B: frame", "A: motion", "B: motion")
WAVE_RATE = 0.05
"""Of Adam, where amplitudes of waves are drawn; of the published lucid and lucent."""
FITTED_ON = 48
"""Training videos whose colours a palette is fitted on."""

OPTIONS: dict[str, tuple[str, tuple[tuple[str, object], ...]]] = {
    "objective": (
        "ascend",
        (
            ("as the recipe", "recipe"),
            ("the logit alone", "logit"),
            ("the logit less all others", "contrast"),
            ("log-probability", "log-probability"),
        ),
    ),
    "canvas": ("draw", (("pixels", "pixels"), ("waves (Fourier)", "waves"))),
    "colours": ("colours", (("any", "any"), ("as in real frames, decorrelated", "real"))),
    "start": ("begin with", (("noise", "noise"), ("the same noise twice", "shared"), ("a real frame, twice", "frame"))),
    "motion": ("motion", (("drawn", "drawn"), ("still", "still"), ("of a real video", "real"))),
    "shake": ("jitter", (("of the recipe", "recipe"), ("none", "none"), ("slight", "slight"), ("strong", "strong"))),
    "smooth": ("total variation, space", (("0", 0.0), ("0.1", 0.1), ("0.3", 0.3), ("1", 1.0), ("3", 3.0))),
    "calm": ("in time", (("0", 0.0), ("0.1", 0.1), ("0.3", 0.3), ("1", 1.0), ("3", 3.0))),
    "length": ("steps", (("¼", 0.25), ("½", 0.5), ("of the recipe", 1.0), ("twice", 2.0), ("four times", 4.0))),
}
"""Trait of `StudioState` -> its name and what can be chosen."""


def _choice(name: str, default: object = None) -> Enum:
    values = [value for _, value in OPTIONS[name][1]]
    return Enum(values, values[0] if default is None else default)


class StudioState(HasTraits):
    """All that a person chooses."""

    dataset = Unicode()
    split = Int(1)
    run = Unicode()
    action = Unicode()
    head = Unicode()
    settings = Unicode(help="a name of ifttn.insight.deepdraw.PRESETS")
    seed = Int(0)
    objective, canvas, colours, start, motion = map(_choice, ("objective", "canvas", "colours", "start", "motion"))
    shake, smooth, calm, length = _choice("shake"), _choice("smooth"), _choice("calm"), _choice("length", 1.0)

    def asked(self) -> Settings:
        """How it is to be drawn."""
        plain = deepdraw.PRESETS[self.settings]
        octaves = tuple(replace(octave, steps=max(1, round(octave.steps * self.length))) for octave in plain.octaves)
        if self.canvas == "waves":  # on one canvas, by Adam: no blur, and its own rate
            octaves = (Octave(sum(o.steps for o in octaves), octaves[0].canvas, (0.0, 0.0), (WAVE_RATE, WAVE_RATE)),)
        shaken = {"recipe": plain.shift / plain.crop, "none": 0.0, "slight": 1 / 16, "strong": 1 / 8}[self.shake]
        zoom, turn = (plain.zoom, plain.turn) if self.shake == "recipe" else (2.4 * shaken, 160 * shaken)
        return replace(
            plain,
            octaves=octaves,
            objective=plain.objective if self.objective == "recipe" else self.objective,
            waves=self.canvas == "waves",
            shared_start=self.start == "shared",
            shift=shaken * plain.crop,
            zoom=zoom,
            turn=turn,
            smooth=self.smooth,
            smooth_in_time=self.calm,
        )

    def in_words(self) -> str:
        """What was chosen beside the recipe."""
        usual = StudioState.class_traits()
        chosen = {name: getattr(self, name) for name in OPTIONS}
        called = {name: {value: text for text, value in what} for name, (_, what) in OPTIONS.items()}
        return ", ".join(f"{OPTIONS[n][0]} {called[n][v]}" for n, v in chosen.items() if v != usual[n].default_value)


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
    apart: float | None
    """Probability of the action by a network of another split."""


class DeepDrawStudio(Panel):
    """`DeepDrawStudio("results")` in a cell.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        out: where kept drawings go.
        chosen: traits of `StudioState` to begin with.
    """

    state: StudioState

    def __init__(self, results: Shelf | Path | str, out: Path | str = "drawings", **chosen: object) -> None:
        super().__init__("DeepDraw studio", StudioState(), results)
        self.out = Path(out)
        self.drawn: deepdraw.State | None = None
        """The latest step."""
        self.gallery: list[Drawing] = []
        self.said: dict[str, list[tuple[int, float]]] = {}
        """Curve -> (step, value): "logit", "p(A,B)", "p(B,A)", and the last two "apart", by another split's network."""
        self._title, self._facts = "", {}
        self._palettes: dict[Path, dict[str, Palette]] = {}
        self._build()
        self.begin(chosen)

    def _build(self) -> None:
        self.dataset, self.split, self.run = choose("data set"), choose("split", (1, 2, 3)), choose("run")
        self.action, self.head = choose("action", flex="1 1 260px"), choose("head")
        self.settings = choose("recipe", tuple(deepdraw.PRESETS))
        self.options: dict[str, Dropdown] = {name: choose(text, what) for name, (text, what) in OPTIONS.items()}
        self.seed = IntText(description="seed", layout=Layout(width="110px"))
        self.seed.style.description_width = "initial"
        self.start_button = self.button("▶ draw", self.start, "from new noise", "d")
        self.pause_button = self.button("pause", self.pause, "or go on", "space")
        self.stop_button = self.button("■ stop", self.stop, "for good", "escape")
        self.keep_button = self.button("keep", self.keep, f"in the gallery, and as a file in {self.out}", "k")
        tiles = []
        self.tiles = [Image(format="jpeg", layout=Layout(width="100%")) for _ in TILES]
        for name, image in zip(TILES, self.tiles, strict=True):
            image.add_class("picture")
            tiles.append(VBox([HTML(f"<small>{name}</small>"), image], layout=Layout(width="48%")))
        self._tiles = Box(tiles, layout=Layout(flex_flow="row wrap", grid_gap="6px", width="100%"))
        self._tiles.layout.display = "none"
        self._blank = HTML(
            "<div class=empty>Press <b>draw</b>: from noise towards what the action looks like to the network.<br>"
            "<kbd>d</kbd> draw · <kbd>Space</kbd> pause · <kbd>Esc</kbd> stop · <kbd>k</kbd> keep</div>"
        )
        self._chart, self._swap, self._kept, self._compared = HTML(), HTML(), HTML(), HTML()
        self.first, self.second = choose("compare", max_width="49%"), choose("with", max_width="49%")
        row = Layout(flex_flow="row wrap", grid_gap="8px", width="100%", align_items="center")
        self.fill(HBox([self.dataset, self.split, self.run, self.head], layout=row))
        self.fill(HBox([self.action, self.settings, self.seed], layout=row))
        more = Layout(flex_flow="row wrap", grid_gap="6px 14px", width="100%", align_items="center", display="none")
        self.more = ToggleButton(description="options", tooltip="how it is drawn (key o)", layout=Layout(width="auto"))
        self.more.add_class("key-o")
        self._options = HBox(list(self.options.values()), layout=more)
        buttons = [self.start_button, self.pause_button, self.stop_button, self.keep_button, self.more]
        self.fill(HBox(buttons, layout=row), self._options)
        self.watch(self.more, ["value"], self._show_options)
        left = VBox([self._blank, self._tiles], layout=Layout(flex="1 1 380px", min_width="300px"))
        right = VBox([self._chart, self._swap], layout=Layout(flex="1 1 380px", min_width="300px", grid_gap="8px"))
        self.fill(
            Box([left, right], layout=Layout(flex_flow="row wrap", grid_gap="20px", width="100%")),
            HTML("<h4>Gallery</h4>"),
        )
        self.fill(self._kept, HBox([self.first, self.second], layout=row), self._compared)
        self.offer("dataset", "split", "run", "action", "head", "settings")
        self.tie((self.state, "seed"), (self.seed, "value"))
        for name, control in self.options.items():
            self.tie((self.state, name), (control, "value"))
        self.watch(self.state, ["dataset", "split", "run"], self._list)
        self.watch(self.worker, ["doing", "paused"], self._show_buttons)
        for each in (self.first, self.second):
            self.watch(each, ["value"], self._show_compared)
        self._show_buttons()
        self._show_gallery()
        self._chart.value = sketches.chart([], "logit")

    def _list(self) -> None:
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
        heads = (*temporal, *modalities, "fused")
        fitting = self._fitting(ready[run].preset().size, modalities)
        with self.filling():
            self.dataset.value, self.split.options = state.dataset, self.shelf.splits(state.dataset)
            self.split.value = state.split
            self.run.options, self.run.value = tuple(ready), run
            self.action.options = asked["actions"]
            self.action.value = state.action if state.action in asked["actions"] else asked["actions"][0]
            self.head.options, self.head.value = heads, state.head if state.head in heads else heads[0]
            self.settings.value = state.settings or fitting
        for name in ("run", "action", "head", "settings"):
            setattr(state, name, getattr(self, name).value)

    def _fitting(self, size: int, modalities: Sequence[str]) -> str:
        """The recipe for networks of crops of that side: with a denoiser, once one is trained."""
        names = [name for name, settings in deepdraw.PRESETS.items() if settings.crop == size]
        has = denoiser_file(self.shelf.places.runs, self.state.dataset, self.state.split, modalities).exists()
        return next((n for n in names if deepdraw.PRESETS[n].denoised == has), next(iter((*names, *deepdraw.PRESETS))))

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
        state, settings = self.state, self.state.asked()
        run = self.shelf.runs(state.dataset, state.split)[state.run]
        recognizer = self.shelf.recognizer(run)
        witness = self._trained_apart()
        yield None
        material = self._material(run, recognizer)
        action, head = recognizer.actions.index(state.action), state.head
        where = f"{state.dataset}/split{state.split}/{state.run}"
        words = state.in_words()
        self._title = f"{state.action}, {head} of {where}, seed {state.seed}" + (f", {words}" if words else "")
        self._facts = {**facts(settings, action=state.action, seed=state.seed, head=head, run=where), "options": words}
        self.said, self.drawn = {}, None
        steps = deepdraw.draw(recognizer.network, action, settings, head=head, seed=state.seed, material=material)
        shown = 0.0
        while True:
            with self.shelf.lock:
                drawn = next(steps, None)
            if drawn is None:
                break
            self.drawn = drawn
            self._say("logit", drawn.logit)
            self._say("p(A,B)", drawn.probability)
            if time.monotonic() - shown > EVERY or drawn.step == drawn.of:
                shown = time.monotonic()
                self._swap_it(recognizer.network, witness, action, head)
                self._show()
            yield drawn.step / drawn.of

    def _trained_apart(self) -> Network | None:
        """The network of another split, which never saw what this one did."""
        state = self.state
        for split in self.shelf.splits(state.dataset):
            other = self.shelf.runs(state.dataset, split).get(state.run)
            if split != state.split and other is not None and other.finished:
                return self.shelf.recognizer(other).network
        return None

    def _material(self, run: Run, recognizer: Recognizer) -> Material:
        """What the drawing is made from, as the options ask."""
        state, modalities = self.state, recognizer.network.settings.modalities
        if state.head in modalities[1:] and state.motion != "drawn":
            raise IfttnError(f"the head {state.head} sees motion alone: draw the motion, or choose another head")
        if state.start == "frame" and state.canvas == "waves":
            raise IfttnError("waves begin with noise: draw pixels to begin with a real frame")
        denoiser = None
        if deepdraw.PRESETS[state.settings].denoised:
            where = denoiser_file(self.shelf.places.runs, state.dataset, state.split, modalities)
            denoiser = load_denoiser(where, str(recognizer.device))
        palettes = self._fitted(run, modalities) if state.colours == "real" else {}
        real = self._real(run, modalities) if "frame" in state.start or state.motion == "real" else {}
        snippets = 1 if state.head in modalities else 2
        first = state.seed % recognizer.preset.segments
        twice = {modality: x[[first] * snippets].float() for modality, x in real.items()}
        held = twice[modalities[1]] if state.motion == "real" else ("still" if state.motion == "still" else "drawn")
        return Material(palettes, held, twice["rgb"] if state.start == "frame" else None, denoiser)

    def _whole(self, run: Run, videos: Sequence[Video], modalities: Sequence[str]) -> list[dict[str, Tensor]]:
        store = self.shelf.store(self.state.dataset, run.asked["preset"])
        if store is None:
            raise IfttnError(
                f"{self.state.dataset} is not prepared for the preset {run.asked['preset']}, so that its real frames "
                "cannot be read: `ifttn prepare` does it, or choose noise, any colours and drawn motion"
            )
        return [
            whole_snippets(store, video, modalities, run.preset().segments) for video in videos if video.name in store
        ]

    def _fitted(self, run: Run, modalities: Sequence[str]) -> dict[str, Palette]:
        if run.folder not in self._palettes:
            train = self.shelf.split(self.state.dataset, self.state.split).train
            seen = self._whole(run, train[:: max(1, len(train) // FITTED_ON)], modalities)
            self._palettes[run.folder] = {m: Palette.of(torch.cat([each[m] for each in seen])) for m in modalities}
        return self._palettes[run.folder]

    def _real(self, run: Run, modalities: Sequence[str]) -> dict[str, Tensor]:
        """The snippets of a training video of the action; which one, the seed says."""
        split = self.shelf.split(self.state.dataset, self.state.split)
        own = [video for video in split.train if video.action == self.state.action]
        return self._whole(run, [own[self.state.seed % len(own)]], modalities)[0]

    def _say(self, curve: str, value: float) -> None:
        assert self.drawn is not None
        self.said.setdefault(curve, []).append((self.drawn.step, value))

    def _swap_it(self, network: Network, witness: Network | None, action: int, head: str) -> None:
        """What the drawing network, and one trained apart, say of the pair as it is and swapped."""
        drawn = self.drawn
        if drawn is None or drawn.rgb is None or drawn.motion is None or len(drawn.rgb) < 2:
            return
        pair = dict(zip(network.settings.modalities, (drawn.rgb, drawn.motion), strict=True))
        with self.shelf.lock:
            self._say("p(B,A)", probabilities(network, pair, head)[1, action].item())
            if witness is not None:
                forth, back = probabilities(witness, pair, head)[:, action].tolist()
                self._say("apart p(A,B)", forth)
                self._say("apart p(B,A)", back)

    def _show(self) -> None:
        drawn = self.drawn
        assert drawn is not None
        self._blank.layout.display, self._tiles.layout.display = "none", ""
        for image, tile, picture in zip(self.tiles, self._tiles.children, tiles(drawn), strict=True):
            tile.layout.display = "none" if picture is None else ""
            image.value = b"" if picture is None else pictures.jpeg(picture, 90)
        curves = {name: tuple(zip(*points, strict=True)) for name, points in self.said.items()}
        colours = {"p(A,B)": SERIES[2], "p(B,A)": SERIES[2], "apart p(A,B)": SERIES[3], "apart p(B,A)": SERIES[3]}
        probable = [
            sketches.Curve(name, curves[name][0], curves[name][1], colour, dashed="(B,A)" in name)
            for name, colour in colours.items()
            if name in curves
        ]
        logit = sketches.Curve("logit", curves["logit"][0], curves["logit"][1], SERIES[0])
        charts = (
            sketches.chart([logit], "logit", height=150),
            sketches.chart(probable, "probability", height=150, top=1.0),
        )
        self._chart.value = "".join(charts)
        smoothed = "noise {:.2f}" if deepdraw.PRESETS[self.state.settings].denoised else "blur {:.2f} px"
        told = f"octave {drawn.octave + 1}, step {drawn.step} of {drawn.of}, {smoothed.format(drawn.sigma)}."
        if "apart p(A,B)" in curves:
            told += "<br><b>apart</b>: a network trained on another split, which did not draw: the witness that counts."
        elif "p(B,A)" in curves:
            told += (
                "<br>A drawing passes the swap on the network that drew it whatever it means: train another split, "
                "and its network bears witness here."
            )
        self._swap.value = f"<small>{told}</small>"

    def as_html(self) -> HTMLPicture:
        """The drawing as far as it is, and its curves, for a page without a kernel."""
        while self.drawn is None and not self.wait(0):  # the first step may still load a network
            time.sleep(EVERY)
        drawn = self.drawn
        pair = [] if drawn is None else [None if tile is None else pictures.png(tile) for tile in tiles(drawn)]
        images = "".join(_image(name, png, 240) for name, png in zip(TILES, pair, strict=False) if png)
        beside = "display:flex;flex-wrap:wrap;gap:8px 24px;align-items:flex-start"
        parts = (
            f"<div style='display:grid;grid-template-columns:240px 240px;gap:6px'>{images}</div>"
            f"<div style='flex:1 1 380px;max-width:480px'>{self._chart.value}{self._swap.value}</div>"
        )
        inside = f"<h4>{escape(self._title)}</h4><div style='{beside}'>{parts}</div>" if images else self._blank.value
        return HTMLPicture(f"<div class=ifttn>{inside}</div><style>{STYLE}</style>")

    # -- the gallery

    def keep(self) -> None:
        """Put the drawing into the gallery, and its pictures into the folder `out`."""
        drawn = self.drawn
        if drawn is None:
            raise IfttnError("there is no drawing to keep yet: press draw first")
        drawings = tiles(drawn)
        made = tuple(b"" if picture is None else pictures.png(picture) for picture in drawings)
        last = {name: points[-1][1] for name, points in self.said.items()}
        title = f"{self._title}, step {drawn.step} of {drawn.of}"
        kept = Drawing(title, made, drawn.logit, drawn.probability, last.get("p(B,A)"), last.get("apart p(A,B)"))
        self.gallery.append(kept)
        rows = [[picture for picture in row if picture is not None] for row in (drawings[:2], drawings[2:])]
        sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows if row])
        name = f"{len(self.gallery):02d}_{self._facts['action']}_{self._facts['head']}_seed{self._facts['seed']}.png"
        write_png(self.out / name, sheet, {**self._facts, "step": f"{drawn.step} of {drawn.of}"})
        self._show_gallery()

    def _show_gallery(self) -> None:
        self._kept.value = (
            "<div style='display:flex;flex-wrap:wrap;gap:14px'>"
            + "".join(_card(d, 104) for d in self.gallery)
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

    def _show_options(self) -> None:
        self._options.layout.display = "" if self.more.value else "none"

    def _show_buttons(self) -> None:
        doing = bool(self.worker.doing)
        self.pause_button.disabled = self.stop_button.disabled = not doing
        self.pause_button.description = "▶ go on" if self.worker.paused else "pause"


def probabilities(network: Network, pair: Mapping[str, Tensor], head: str) -> Float[Tensor, "2 A"]:
    """Of the pair in order, and of the pair swapped; "fused" is the late fusion of all heads, as it was ascended."""
    both = {modality: torch.stack([x, x.flip(0)]) for modality, x in pair.items()}
    with undisturbed(network), torch.no_grad():
        logits = network(both).logits
    fused = sum(LATE_FUSION[name] * each for name, each in logits.items())
    return torch.as_tensor(fused if head == "fused" else logits[head]).softmax(1)


def tiles(drawn: deepdraw.State) -> list[np.ndarray | None]:
    """The pictures of TILES; None where the head draws no such thing."""
    rgb = [] if drawn.rgb is None else [_bytes(x).transpose(1, 2, 0) for x in drawn.rgb]
    motion = [] if drawn.motion is None else list(flow_colours(_bytes(drawn.motion)))
    return [rgb[i] if i < len(rgb) else None for i in (0, 1)] + [motion[i] if i < len(motion) else None for i in (0, 1)]


def _bytes(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().clamp(0, 255).round().to("cpu", torch.uint8).numpy())


def _image(name: str, png: bytes, width: int) -> str:
    """A tile, under its name where it is large enough to be looked at by itself."""
    image = f"<img width={width} alt='{escape(name)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
    return f"<div><small style='display:block'>{name}</small>{image}</div>" if width > 150 else image


def _card(drawing: Drawing, width: int) -> str:
    images = "".join(
        _image(name, content, width) for name, content in zip(TILES, drawing.tiles, strict=True) if content
    )
    swapped = "" if drawing.swapped is None else f", swapped {drawing.swapped:.2f}"
    swapped += "" if drawing.apart is None else f", apart {drawing.apart:.2f}"
    return (
        f"<figure style='max-width:{2 * width + 8}px'><div style='display:flex;flex-wrap:wrap;gap:4px'>{images}</div>"
        f"<figcaption><small>{escape(drawing.title)}: p = {drawing.probability:.2f}{swapped}</small></figcaption>"
        "</figure>"
    )
