"""The DeepDraw studio: gradient ascent from noise to what an action looks like, live, with stop and resume."""

import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML, Box, Dropdown, HBox, Image, Layout, Text, ToggleButton, VBox
from torch import Tensor
from traitlets import link

from ifttn.data.loading import whole_snippets
from ifttn.experiment.runs import Run
from ifttn.insight import deepdraw
from ifttn.insight.deepdraw import Material, Palette
from ifttn.insight.denoiser import denoiser_file, load_denoiser
from ifttn.insight.pictures import facts, write_png
from ifttn.model.network import Network
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError, Video
from lab import pictures, sketches
from lab.drawing_choices import OPTIONS, StudioState, refuse
from lab.drawings import TILES, Drawing, Sheet, as_image, card, found, next_number, swap, tiles
from lab.figures import SERIES
from lab.panel import Panel, as_picture, bind_key, dropdown, labelled
from lab.shelf import Shelf

EVERY = 0.15
"""Seconds between two pictures in the page."""
SEEDS = 2**32
FITTED_ON = 48
"""Training videos whose colours a palette is fitted on."""


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
        self.sheet = Sheet()
        """Of the drawing under way, or of the last one; the next one has its own."""
        self.gallery: list[Drawing] = []
        self._palettes: dict[Path, dict[str, Palette]] = {}
        self._build()
        self.begin(chosen)

    def _build(self) -> None:
        self.dataset, self.split, self.run = dropdown("data set"), dropdown("split", (1, 2, 3)), dropdown("run")
        self.action, self.head = dropdown("action", flex="1 1 260px"), dropdown("head")
        self.settings = dropdown("recipe", tuple(deepdraw.PRESETS))
        self.options: dict[str, Dropdown] = {name: dropdown(text, what) for name, (text, what) in OPTIONS.items()}
        # A browser's field for numbers takes 1e3 for 1, and says nothing.
        self.seed = labelled("seed", Text("0", continuous_update=False, layout=Layout(width="120px")))
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
        self.first, self.second = dropdown("compare", max_width="49%"), dropdown("with", max_width="49%")
        row = Layout(flex_flow="row wrap", grid_gap="8px", width="100%", align_items="center")
        self.fill(HBox([self.dataset, self.split, self.run, self.head], layout=row))
        self.fill(HBox([self.action, self.settings, self.seed], layout=row))
        more = Layout(flex_flow="row wrap", grid_gap="6px 14px", width="100%", align_items="center", display="none")
        self.more = ToggleButton(description="options", tooltip="how it is drawn", layout=Layout(width="auto"))
        bind_key(self.more, "o")
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
        self.watch(self.seed, ["value"], self._read_seed)
        self.watch(self.state, ["seed"], self._show_seed)
        for name, control in self.options.items():
            link((self.state, name), (control, "value"))
        self.watch(self.state, ["dataset", "split", "run"], self._list)
        self.watch(self.worker, ["doing", "paused"], self._show_buttons)
        for each in (self.first, self.second):
            self.watch(each, ["value"], self._show_compared)
        self._show_buttons()
        self._show_gallery()
        self._chart.value = sketches.chart([], "logit")

    def _list(self) -> None:
        state = self.state
        ready = self.shelf.networks(state.dataset, state.split)
        if not ready:
            raise self.shelf.no_network(state.dataset, state.split)
        run = state.run if state.run in ready else self.shelf.usual_run(state.dataset, state.split)
        asked = ready[run].asked
        modalities, fusion = asked["network"]["modalities"], asked["network"]["fusion"]
        temporal = () if not fusion else tuple(f"ttn-{m}" for m in modalities) if fusion == "separate" else ("ttn",)
        heads = (*temporal, *modalities, *(("fused",) if len(modalities) > 1 else ()))
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

    def _read_seed(self) -> None:
        """Raises:
        IfttnError: no seed is written in the field.
        """
        text = self.seed.value.strip()
        if not (text.isdecimal() and int(text) < SEEDS):
            raise IfttnError(f"the seed {text!r} is not a whole number from 0 to {SEEDS - 1}")
        self.worker.error = ""
        self.state.seed = int(text)

    def _show_seed(self) -> None:
        self.seed.value = str(self.state.seed)

    @property
    def drawn(self) -> deepdraw.State | None:
        """The latest step of the drawing under way, or of the last one."""
        return self.sheet.drawn

    # -- drawing

    def start(self) -> None:
        """Draw from new noise, in place of what is being drawn, as the choices are at this moment.

        Raises:
            IfttnError: no seed is written in its field.
        """
        self._read_seed()
        chosen = StudioState(**self.state.trait_values())
        self.work(f"drawing {chosen.action}", lambda: self._draw(chosen))

    def pause(self) -> None:
        """Halt, or go on where it halted."""
        if self.worker.doing:
            self.worker.pause(not self.worker.paused)

    def stop(self) -> None:
        """Give up the drawing; what is drawn stays."""
        self.worker.stop()

    def _draw(self, chosen: StudioState) -> Iterator[float | None]:
        run = self.shelf.networks(chosen.dataset, chosen.split)[chosen.run]
        recognizer = self.shelf.recognizer(run)
        witness = self._trained_apart(chosen)
        yield None
        settings, material = chosen.asked(), self._material(chosen, run, recognizer)
        network, action, head = recognizer.network, recognizer.actions.index(chosen.action), chosen.head
        where = f"{chosen.dataset}/split{chosen.split}/{chosen.run}"
        words = chosen.in_words()
        title = f"{chosen.action}, {head} of {where}, seed {chosen.seed}" + (f", {words}" if words else "")
        about = facts(settings, action=chosen.action, seed=chosen.seed, head=head, run=where)
        sheet = self.sheet = Sheet(title, {**about, "options": words}, settings.denoised)
        steps = deepdraw.draw(network, action, settings, head=head, seed=chosen.seed, material=material)
        shown = 0.0
        while True:
            with self.shelf.lock:
                drawn = next(steps, None)
            if drawn is None:
                break
            sheet.drawn = drawn
            sheet.say("logit", drawn.logit)
            sheet.say("p(A,B)", drawn.probability)
            if time.monotonic() - shown > EVERY or drawn.step == drawn.of:
                shown = time.monotonic()
                with self.shelf.lock:
                    swap(sheet, network, witness, (action, head))
                self._show(sheet)
            yield drawn.step / drawn.of

    def _trained_apart(self, chosen: StudioState) -> Network | None:
        """The network of another split, which never saw what this one did."""
        for split in self.shelf.splits(chosen.dataset):
            other = self.shelf.networks(chosen.dataset, split).get(chosen.run)
            if split != chosen.split and other is not None:
                return self.shelf.recognizer(other).network
        return None

    def _material(self, chosen: StudioState, run: Run, recognizer: Recognizer) -> Material:
        """What the drawing is made from, as the options ask."""
        modalities, head = recognizer.network.settings.modalities, chosen.head
        seen = (head,) if head in modalities else modalities
        refuse(chosen, seen)
        denoiser = None
        if deepdraw.PRESETS[chosen.settings].denoised:
            where = denoiser_file(self.shelf.places.runs, chosen.dataset, chosen.split, modalities)
            denoiser = load_denoiser(where, str(recognizer.device))
        palettes = self._fitted(chosen, run, modalities) if chosen.colours == "real" else {}
        real = self._real(chosen, run, modalities) if chosen.start == "frame" or chosen.motion == "real" else {}
        snippets = 1 if head in modalities else 2
        first = chosen.seed % recognizer.preset.segments
        twice = {modality: x[[first] * snippets].float() for modality, x in real.items()}
        held = twice[modalities[1]] if chosen.motion == "real" else ("still" if chosen.motion == "still" else "drawn")
        return Material(palettes, held, twice["rgb"] if chosen.start == "frame" else None, denoiser)

    def _whole(
        self, chosen: StudioState, run: Run, videos: Sequence[Video], modalities: Sequence[str]
    ) -> list[dict[str, Tensor]]:
        store = self.shelf.store(chosen.dataset, run.asked["preset"])
        if store is None:
            raise IfttnError(
                f"{chosen.dataset} is not prepared for the preset {run.asked['preset']}, so that its real frames "
                "cannot be read: `ifttn prepare` does it, or choose noise, any colours and drawn motion"
            )
        return [
            whole_snippets(store, video, modalities, run.preset().segments) for video in videos if video.name in store
        ]

    def _fitted(self, chosen: StudioState, run: Run, modalities: Sequence[str]) -> dict[str, Palette]:
        if run.folder not in self._palettes:
            train = self.shelf.split(chosen.dataset, chosen.split).train
            seen = self._whole(chosen, run, train[:: max(1, len(train) // FITTED_ON)], modalities)
            self._palettes[run.folder] = {m: Palette.of(torch.cat([each[m] for each in seen])) for m in modalities}
        return self._palettes[run.folder]

    def _real(self, chosen: StudioState, run: Run, modalities: Sequence[str]) -> dict[str, Tensor]:
        """The snippets of a training video of the action; which one, the seed says."""
        split = self.shelf.split(chosen.dataset, chosen.split)
        own = [video for video in split.train if video.action == chosen.action]
        return self._whole(chosen, run, [own[chosen.seed % len(own)]], modalities)[0]

    def _show(self, sheet: Sheet) -> None:
        drawn, said = sheet.drawn, sheet.said
        assert drawn is not None
        self._blank.layout.display, self._tiles.layout.display = "none", ""
        for image, tile, picture in zip(self.tiles, self._tiles.children, tiles(drawn), strict=True):
            tile.layout.display = "none" if picture is None else ""
            image.value = b"" if picture is None else pictures.jpeg(picture, 90)
        curves = {name: tuple(zip(*points, strict=True)) for name, points in said.items()}
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
        smoothed = f"noise {drawn.sigma:.2f}" if sheet.denoised else f"blur {drawn.sigma:.2f} px"
        told = f"octave {drawn.octave + 1}, step {drawn.step} of {drawn.of}, {smoothed}."
        told += f"<br><b>{found(drawn)}</b>" if drawn.step == drawn.of else ""
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
        while self.sheet.drawn is None and not self.wait(0):  # the first step may still load a network
            time.sleep(EVERY)
        sheet = self.sheet
        drawn = sheet.drawn
        pair = [] if drawn is None else [None if tile is None else pictures.png(tile) for tile in tiles(drawn)]
        images = "".join(as_image(name, png, 240) for name, png in zip(TILES, pair, strict=False) if png)
        beside = "display:flex;flex-wrap:wrap;gap:8px 24px;align-items:flex-start"
        parts = (
            f"<div style='display:grid;grid-template-columns:240px 240px;gap:6px'>{images}</div>"
            f"<div style='flex:1 1 380px;max-width:480px'>{self._chart.value}{self._swap.value}</div>"
        )
        inside = f"<h4>{escape(sheet.title)}</h4><div style='{beside}'>{parts}</div>" if images else self._blank.value
        return as_picture(inside)

    # -- the gallery

    def keep(self) -> None:
        """Put the drawing into the gallery, and its pictures into the folder `out`."""
        sheet = self.sheet
        drawn, about = sheet.drawn, sheet.facts
        if drawn is None:
            raise IfttnError("there is no drawing to keep yet: press draw first")
        drawings = tiles(drawn)
        made = tuple(b"" if picture is None else pictures.png(picture) for picture in drawings)
        rows = [[picture for picture in row if picture is not None] for row in (drawings[:2], drawings[2:])]
        whole = np.concatenate([np.concatenate(row, axis=1) for row in rows if row])
        path = self.out / f"{next_number(self.out):02d}_{about['action']}_{about['head']}_seed{about['seed']}.png"
        write_png(path, whole, {**about, "step": f"{drawn.step} of {drawn.of}"})
        last = {name: points[-1][1] for name, points in tuple(sheet.said.items())}
        title = f"{sheet.title}, step {drawn.step} of {drawn.of}"
        kept = Drawing(path, title, made, found(drawn), last.get("p(B,A)"), last.get("apart p(A,B)"))
        self.gallery.append(kept)
        self._show_gallery()

    def _show_gallery(self) -> None:
        self._kept.value = (
            "<div style='display:flex;flex-wrap:wrap;gap:14px'>"
            + "".join(card(d, 104) for d in self.gallery)
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
        cards = "".join(card(self.gallery[int(index)], 180) for index in chosen)
        self._compared.value = f"<div style='display:flex;flex-wrap:wrap;gap:24px'>{cards}</div>"

    def _show_options(self) -> None:
        self._options.layout.display = "" if self.more.value else "none"

    def _show_buttons(self) -> None:
        doing = bool(self.worker.doing)
        self.pause_button.disabled = self.stop_button.disabled = not doing
        self.pause_button.description = "▶ go on" if self.worker.paused else "pause"
