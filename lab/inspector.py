"""The clip inspector: a video frame by frame, its motion, and what a network sees in it and says of it.

Every frame is a picture of its own in the page, and the slider chooses one there: to scrub asks nothing of the kernel.
Shapes: T frames, K snippets, H x W pixels.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from ipywidgets import (
    HTML,
    Box,
    Button,
    FloatSlider,
    HBox,
    Image,
    IntSlider,
    Layout,
    ToggleButton,
    ToggleButtons,
    VBox,
)
from jaxtyping import UInt8
from traitlets import Dict, Int, TraitError, Tuple, Unicode, validate

from ifttn.experiment.scores import LATE_FUSION, OF_PEERS
from ifttn.files import write_whole
from ifttn.insight.cam import shown
from ifttn.vocabulary import IfttnError
from lab import pictures, sketches
from lab.clip import Clip, Reading
from lab.figures import flow_colours
from lab.panel import choose, columns
from lab.shelf import Shelf
from lab.video_panel import VideoPanel, VideoState

HEADS = tuple(head for head in LATE_FUSION if head not in OF_PEERS)
LAYERS = ("rgb", "flow", "flow arrows", "vectors", "vector arrows", *(f"CAM {head}" for head in HEADS))
"""What can be drawn, from below to above."""
NAMES = {"rgb": "RGB", "flow": "flow colours", "vectors": "motion vectors"}
USUAL = {"rgb": 1.0, "flow": 0.7, "flow arrows": 0.9, "vectors": 0.6, "vector arrows": 0.9}
FLOW_INK, VECTOR_INK = (255, 230, 80), (120, 255, 255)
"""Colours of the arrows."""
Layer = Callable[[np.ndarray, int], np.ndarray]
"""(picture, frame shown) -> the picture with the layer over it."""
SHOWN_WIDTH = 400
"""Pixels across a picture, about."""
EMPTY = (
    "<div class='empty stage'><p><b>The video comes here.</b></p>"
    "<p>Choose one above, or type the path of a file of your own: MP4, AVI, whatever FFmpeg reads.</p></div>"
)
SPEEDS = {"¼": 0.25, "½": 0.5, "1": 1.0, "2": 2.0}


class InspectorState(VideoState):
    """All that a person chooses; set it from a notebook as well."""

    asked = Unicode(help="the action of the maps; empty: the one predicted")
    layers = Dict({"rgb": 1.0}, help="layer -> opacity in 0..1, of those that are on")
    frame = Int(0, help="shown, from 0")
    order = Tuple(help="of the snippets, in the test of order; empty: as filmed")

    @validate("layers")
    def _known(self, proposal: Mapping[str, Any]) -> dict[str, float]:
        layers = proposal["value"]
        if unknown := [name for name in layers if name not in LAYERS]:
            raise TraitError(f"no layer {unknown[0]!r}: choose from {', '.join(LAYERS)}")
        for name, opacity in layers.items():
            if not (isinstance(opacity, int | float) and 0 <= opacity <= 1):
                raise TraitError(f"the opacity of {name} is {opacity!r}: it is a number from 0 to 1")
        return layers


class Inspector(VideoPanel):
    """`Inspector("results")` in a cell; `Inspector("results", file="my.mp4")` for a file of one's own.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        out: where saved pictures go.
        chosen: traits of `InspectorState` to begin with.
    """

    state: InspectorState

    def __init__(self, results: Shelf | Path | str, out: Path | str = "pictures", **chosen: object) -> None:
        super().__init__("Clip inspector", InspectorState(), results)
        self.out = Path(out)
        self.reordered: Reading | None = None
        self._drawn: tuple[object, ...] = ()
        self._told: tuple[int, ...] = ()
        """Of which votes the score bars speak."""
        self._build()
        self.begin(chosen)

    def close(self) -> None:
        """As a panel of a video does, and let go of the pictures."""
        super().close()
        self.reordered, self._told = None, ()
        for image in self.images:
            image.value = b""

    # -- what it is made of

    def _build(self) -> None:
        self._frame_layout = Layout(width="100%")
        self.own(self._frame_layout)  # no picture has it before there is a video
        self.images: list[Image] = []
        # All are in the page, which shows the one at the cursor by itself: a `Stack` would make it anew at every step.
        self.reel = Box(layout=Layout(display="block", width="100%"))
        self.reel.add_class("picture")
        self.reel.add_class("ifttn-reel")
        self.slider = IntSlider(max=0, readout=False, description="Frame", layout=Layout(width="auto"))
        self.slider.add_class("ifttn-scrub")
        # The page plays by itself (`lab.panel.KEYS`), for a step that went through the kernel would come when it can.
        self.play = Button(description="▶ play", tooltip="or pause (key Space)", layout=Layout(width="92px"))
        self.play.add_class("key-space")
        self.play.add_class("ifttn-play")
        self._rate = HTML()
        self._line, self._where = HTML(), HTML()
        self._line.add_class("ifttn-line")
        self._title, self._verdict, self._saved = HTML(), HTML(), HTML()
        self._bars = HTML("<div class=empty>The scores of each head come here, once a video is read.</div>")
        speed = ToggleButtons(options=SPEEDS, value=1.0, style={"button_width": "34px"}, tooltips=["times as fast"] * 4)
        self.speed = speed
        self.asked = choose("maps (CAM) of", max_width="360px")
        self.offer("asked")
        self._build_layers()
        save = [
            self.button(kind, lambda kind=kind: self.save(kind), f"save as {kind} in the folder {self.out}", key)
            for kind, key in (("PNG", "s"), ("GIF", ""), ("MP4", ""))
        ]
        steps = [
            self.button("< snippet", lambda: self._jump(-1), "to the snippet before", "shift-arrowleft"),
            self.button("snippet >", lambda: self._jump(1), "to the next snippet", "shift-arrowright"),
        ]
        line = Layout(flex_flow="row wrap", align_items="center", grid_gap="4px")
        apart = Layout(flex_flow="row wrap", align_items="center", justify_content="space-between", width="100%")
        help_text = HTML(
            "<small><kbd>←</kbd><kbd>→</kbd> frame, with <kbd>Shift</kbd> snippet · <kbd>Space</kbd> play · "
            "<kbd>1</kbd> to <kbd>8</kbd> layer · <kbd>[</kbd><kbd>]</kbd> opacity · <kbd>s</kbd> save · "
            "<kbd>r</kbd> reverse. Click the time line to go there.</small>"
        )
        # Until there is a video: a word in place of its picture, and nothing to press that has nothing to do.
        self._empty, hidden = HTML(EMPTY), Layout(display="none", width="100%", grid_gap="4px")
        self._stage = VBox(
            [
                self.reel,
                self.slider,
                self._line,
                HBox([HBox([self.play, self._rate, self.speed], layout=line), HBox(steps, layout=line)], layout=apart),
                HBox([self._where, HBox([HTML("<small>save as</small>"), *save], layout=line)], layout=apart),
                self._saved,
                help_text,
            ],
            layout=hidden,
        )
        left = VBox(
            [self._title, self._empty, self._stage],
            layout=Layout(grid_gap="4px"),
        )
        self._tools = VBox(
            [
                *self._order_rows(),
                HTML("<h4>Layers <small>on or off, and how opaque</small></h4>"),
                self._layer_box,
                self.asked,
            ],
            layout=Layout(display="none", width="100%", grid_gap="5px"),
        )
        right = VBox(
            [HTML("<h4>What the network says</h4>"), self._bars, self._tools],
            layout=Layout(grid_gap="5px"),
        )
        self.fill(self.pickers, columns(left, right))
        state = self.state
        self.tie((state, "frame"), (self.slider, "value"))
        self.watch(state, ["frame"], self._follow)
        self.watch(state, ["layers"], self._show_layers)
        self.watch(state, ["layers", "asked"], self._redraw)
        self.watch(state, ["order"], self._redraw)
        self.watch(self.speed, ["value"], self._set_rate)

    def _build_layers(self) -> None:
        self.layer: dict[str, tuple[ToggleButton, FloatSlider]] = {}
        rows = []
        for name in LAYERS:
            toggle = ToggleButton(
                description=NAMES.get(name, name),
                value=name == "rgb",
                layout=Layout(width="118px"),
            )
            opacity = FloatSlider(
                USUAL.get(name, 0.7),
                min=0,
                max=1,
                step=0.05,
                readout=False,
                layout=Layout(width="56px"),
                tooltip=f"opacity of {name}",
            )
            self.layer[name] = toggle, opacity
            rows.append(HBox([toggle, opacity], layout=Layout(align_items="center")))
            rows[-1].layout.display = (
                "none" if name.startswith("CAM") else ""
            )  # until it is known whose heads there are
            for each in (toggle, opacity):
                self.watch(each, ["value"], self._read_layers)
        self._layer_rows = dict(zip(LAYERS, rows, strict=True))
        hidden = Layout(display="none")
        keys = [
            self.button(text, lambda by=by: self._fade(by), key=text) for text, by in (("less", -0.1), ("more", 0.1))
        ]
        self._layer_box = HBox(
            [*rows, HBox(keys, layout=hidden)], layout=Layout(flex_flow="row wrap", grid_gap="2px 8px", width="100%")
        )

    def _order_rows(self) -> list[HTML | HBox]:
        buttons = [
            self.button("as filmed", lambda: self._reorder("as filmed"), "the snippets in their order"),
            self.button("swap pair", lambda: self._reorder("swap"), "change the two snippets around the cursor", "x"),
            self.button("reverse", lambda: self._reorder("reverse"), "last snippet first", "r"),
            self.button("shuffle", lambda: self._reorder("shuffle"), "any order"),
        ]
        row = HBox(buttons, layout=Layout(flex_flow="row wrap", grid_gap="4px"))
        return [HTML("<h4>Does order matter?</h4>"), row, self._verdict]

    # -- work

    def _redraw(self) -> None:
        if self.clip is not None:
            self.work("drawing", self.update)

    def loaded(self) -> None:
        """Everything that a new clip or reading changes, but its pictures."""
        self.reordered, self._drawn, self._told = None, (), ()
        self._present()

    def refresh(self) -> Iterator[float | None]:
        """What the rest of the state changes."""
        if self.reading is not None:
            self._read_reordered()
        self._say_order()
        self._follow()
        yield from self._draw()

    def _read_reordered(self) -> None:
        order, reading, clip = self.state.order, self.reading, self.clip
        if not order or reading is None or clip is None or len(order) != len(reading.sampled):
            self.reordered = None
        elif self.reordered is None or self.reordered.order != order:
            self.reordered = self.ask(clip, order)

    def _present(self) -> None:
        clip, reading = self.clip, self.reading
        self._stage.layout.display = self._tools.layout.display = "none" if clip is None else ""
        self._empty.layout.display = "" if clip is None else "none"
        if not reading:
            self._bars.value = self.unread
        if clip is None:
            self._title.value = ""
            return
        last = len(clip.frames) - 1
        while len(self.images) <= last:
            self.images.append(Image(format="jpeg", layout=self._frame_layout))
        for image in self.images[last + 1 :]:
            image.value = b""
        if len(self.reel.children) < len(self.images):
            self.reel.children = tuple(self.images)
        self.state.frame = min(self.state.frame, last)
        self.slider.max = last
        self._set_rate()
        sampled = reading.sampled.tolist() if reading else []
        self._line.value = sketches.timeline(len(clip.kinds), sampled, clip.kinds, clip.cuts, clip.fps)
        shown = f", every {clip.step}th frame shown" if clip.step > 1 else ""
        self._title.value = (
            f"<b>{escape(clip.label or clip.name)}</b> <small>{escape(clip.name.rpartition('/')[2])}{shown}</small>"
        )
        heads = reading.votes if reading else {}
        for head in HEADS:
            self._layer_rows[f"CAM {head}"].layout.display = "" if head in heads else "none"
        offered = [name for name in LAYERS if not name.startswith("CAM") or name.removeprefix("CAM ") in heads]
        for name, (toggle, _) in self.layer.items():
            number = offered.index(name) + 1 if name in offered else 0
            toggle._dom_classes = (f"key-{number}",) if number else ()
            toggle.tooltip = f"key {number}"
        with self.filling():
            self.asked.options = [
                ("the predicted action", ""),
                *((name, name) for name in (reading.actions if reading else ())),
            ]
            self.asked.value = self.state.asked if reading and self.state.asked in reading.actions else ""

    def _draw(self) -> Iterator[float | None]:
        """Every frame, the one at the cursor first and then its neighbours."""
        clip, state = self.clip, self.state
        if clip is None:
            return
        wanted = (id(clip), tuple(sorted(state.layers.items())), state.asked)
        if wanted == self._drawn:
            return
        self._drawn = ()  # given up half-way, a drawing leaves frames of two kinds: none of them is done
        paint = self.painter()
        order = sorted(range(len(clip.frames)), key=lambda i: abs(i - state.frame))
        for done, index in enumerate(order, 1):
            self.images[index].value = pictures.jpeg(paint(index))
            yield done / len(order)
        self._drawn = wanted

    def painter(self) -> Callable[[int], UInt8[np.ndarray, "H W 3"]]:
        """A function that draws the layers that are on over a frame."""
        clip, layers = self.clip, self.state.layers
        assert clip is not None
        height, width = clip.frames.shape[1:3]
        times = max(1, round(SHOWN_WIDTH / width))
        width, height = times * width, times * height
        on = sorted((name for name in LAYERS if name in layers), key=lambda name: name.endswith("arrows"))
        drawn = [self._layer(clip, name, layers[name], times) for name in on]

        def paint(index: int) -> UInt8[np.ndarray, "H W 3"]:
            picture = np.full((height, width, 3), 24, np.uint8)
            for layer in drawn:
                picture = layer(picture, index)
            return picture

        return paint

    def _layer(self, clip: Clip, name: str, opacity: float, times: int) -> Layer:
        """What draws one layer over a picture that is so many times as large as a frame."""
        height, width = (times * side for side in clip.frames.shape[1:3])
        if name == "rgb":
            return lambda under, i: pictures.blended(under, pictures.resized(clip.frames[i], width, height), opacity)
        if name.endswith("arrows"):
            field, colour = (clip.flow, FLOW_INK) if name.startswith("flow") else (clip.vectors, VECTOR_INK)
            return lambda under, i: pictures.with_arrows(under, times * field[i], opacity, colour)
        if name.startswith("CAM"):
            return self._map_layer(clip, name.removeprefix("CAM "), opacity)
        smooth = name == "flow"
        levels = clip.levels if smooth else np.clip(128 + 8 * times * clip.vectors, 1, 255)
        colours = flow_colours(levels.astype(np.uint8))
        return lambda under, i: pictures.tinted(
            under, pictures.resized(colours[i], width, height, smooth=smooth), opacity
        )

    def _map_layer(self, clip: Clip, head: str, opacity: float) -> Layer:
        """A head's maps of the action asked for, by their largest absolute value in the clip."""
        reading, asked = self.reading, self.state.asked
        if reading is None or head not in reading.votes:
            return lambda under, _: under
        action = reading.actions.index(asked) if asked in reading.actions else int(reading.fused.argmax())
        maps, _ = shown(self.maps(action)[head])
        return lambda under, i: pictures.with_map(under, maps[reading.vote(head, i * clip.step)], opacity, reading.crop)

    # -- what follows

    def _follow(self) -> None:
        """Time and score bars of the frame at the cursor."""
        clip, reading = self.clip, self.reading
        if clip is None:
            return
        frame = min(self.state.frame * clip.step, len(clip.kinds) - 1)
        at = f"{clip.seconds[frame]:.2f} s at {clip.fps:.3g}/s · {clip.kinds[frame]}-frame"
        self._where.value = f"<small>frame <b>{frame + 1}</b> of {len(clip.kinds)} · {at}</small>"
        if reading is None:
            return
        told = tuple(reading.vote(head, frame) for head in reading.votes)
        if told == self._told:
            return
        self._told = told
        columns = []
        for head, votes in reading.votes.items():
            vote = reading.vote(head, frame)
            about = f"snippet {vote + 1}" if len(votes) == len(reading.sampled) else f"pair {vote + 1}-{vote + 2}"
            columns.append(sketches.Bars(head, about, reading.probabilities(head, vote)))
        columns.append(sketches.Bars("late fusion", "the video", reading.fused))
        self._bars.value = sketches.bars(columns, reading.actions, clip.label)

    def _say_order(self) -> None:
        reading, other = self.reading, self.reordered
        if reading is None:
            self._verdict.value = ""
            return
        if other is None:
            self._verdict.value = (
                "<small>Each snippet keeps its frame and its motion; only their order changes. A mean over snippets "
                "cannot notice, a network of differences can.</small>"
            )
            return
        said = [
            "<table class=words><thead><tr><td></td><th>as filmed</th><th>"
            + _listed(other.order)
            + "</th></tr></thead>"
        ]
        for head in (*reading.votes, "late fusion"):
            before, after = (r.fused if head == "late fusion" else r.probabilities(head) for r in (reading, other))
            same = np.allclose(before, after, atol=1e-5)
            cells = "".join(f"<td style='text-align:left'>{_top(p, reading.actions)}</td>" for p in (before, after))
            if same:
                cells = cells.split("</td>")[0] + "</td><td style='text-align:left' class=quiet>the same</td>"
            said.append(f"<tr><th scope=row>{escape(head)}</th>{cells}</tr>")
        self._verdict.value = "".join(said) + "</table>"

    def _jump(self, by: int) -> None:
        clip, reading = self.clip, self.reading
        if clip is None or reading is None:
            return
        at = reading.sampled // clip.step
        later = [t for t in at if t > self.state.frame] if by > 0 else [t for t in at[::-1] if t < self.state.frame]
        if later:
            self.state.frame = int(later[0])

    def _reorder(self, how: str) -> None:
        if self.reading is None or self.clip is None:
            raise IfttnError(f"there is no network to ask: `{self._to_train}` trains one")
        order = list(range(len(self.reading.sampled)))
        if how == "swap":
            first = self.reading.pair(self.state.frame * self.clip.step)
            order[first], order[first + 1] = order[first + 1], order[first]
        elif how == "reverse":
            order.reverse()
        elif how == "shuffle":
            filmed = order.copy()
            while order in (filmed, list(self.state.order)) and len(order) > 2:
                random.shuffle(order)
        self.state.order = () if how == "as filmed" else tuple(order)

    def _show_layers(self) -> None:
        """The buttons of layers that were chosen in another way."""
        with self.filling():
            for name, (toggle, slider) in self.layer.items():
                toggle.value = name in self.state.layers
                slider.value = self.state.layers.get(name, slider.value)

    def _read_layers(self) -> None:
        if not self.silent:
            self.state.layers = {name: slider.value for name, (on, slider) in self.layer.items() if on.value}

    def _fade(self, by: float) -> None:
        on = [name for name in LAYERS if name in self.state.layers]
        if on:
            slider = self.layer[on[-1]][1]
            slider.value = round(min(1.0, max(0.0, slider.value + by)), 2)

    def _set_rate(self) -> None:
        """Tell the page how many frames a second it plays."""
        if self.clip is not None:
            rate = self.clip.fps / self.clip.step * float(self.speed.value or 1)
            self._rate.value = f"<small class=ifttn-rate data-rate={rate:.3f}>speed</small>"

    # -- out

    def save(self, kind: str) -> None:
        """Write the frame ("PNG") or the whole clip ("GIF", "MP4") with its layers into the folder `out`."""
        if self.clip is None:
            raise IfttnError("there is nothing to save yet: choose a video first")
        self.work(f"saving {kind}", lambda: self._save(kind))

    def _save(self, kind: str) -> Iterator[float | None]:
        clip, paint, drawn = self.clip, self.painter(), []
        assert clip is not None
        name = Path(clip.name).stem
        if kind == "PNG":
            name, content = f"{name}_{self.state.frame:04d}", pictures.png(paint(self.state.frame))
        else:
            for index in range(len(clip.frames)):
                drawn.append(paint(index))
                yield index / len(clip.frames)
            encode = pictures.gif if kind == "GIF" else pictures.mp4
            content = encode(drawn, clip.fps / clip.step)
        path = self.out / f"{name}.{kind.lower()}"
        write_whole(path, content)
        self._saved.value = f"<small role=status>saved {escape(str(path))} ({len(content) / 1e3:.0f} kB)</small>"
        yield 1.0


def _listed(order: Sequence[int]) -> str:
    return " ".join(str(i + 1) for i in order)


def _top(probabilities: np.ndarray, actions: Sequence[str]) -> str:
    best = int(probabilities.argmax())
    return f"{escape(actions[best])} <b>{100 * probabilities[best]:.0f}</b>"
