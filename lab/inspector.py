"""The clip inspector: a video frame by frame, its motion, and what a network sees and predicts.

The page holds a picture of every frame, and the slider chooses one there, so that scrubbing sends nothing to the
kernel. Shapes: H x W pixels.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML, Box, Button, FloatSlider, HBox, Image, IntSlider, Layout, ToggleButton, ToggleButtons, VBox
from jaxtyping import UInt8
from traitlets import Dict, Int, TraitError, Tuple, Unicode, link, validate

from ifttn.files import write_whole
from ifttn.insight.cam import scaled
from ifttn.vocabulary import IfttnError
from lab import pictures, player, sketches
from lab.clip import Clip, Reading
from lab.layers import LAYERS, head_of, painter
from lab.panel import bind_key, columns, dropdown, ends, row
from lab.shelf import Shelf
from lab.video_panel import VideoPanel, VideoState

NO_VIDEO = (
    "<div class='empty stage'><p><b>The video comes here.</b></p>"
    "<p>Choose one above, or type the path of a file of your own: MP4, AVI, or any type that FFmpeg reads.</p></div>"
)
KEYS_HELP = (
    "<small><kbd>←</kbd><kbd>→</kbd> frame, with <kbd>Shift</kbd> snippet · <kbd>Space</kbd> play · "
    "<kbd>1</kbd> to <kbd>8</kbd> layer · <kbd>[</kbd><kbd>]</kbd> opacity · <kbd>s</kbd> save · "
    "<kbd>r</kbd> reverse. Click the time line to go there.</small>"
)
ORDER_HELP = (
    "<small>Each snippet keeps its frame and its motion; only their order changes. A mean over snippets stays the "
    "same. A network of differences changes.</small>"
)
PLAY_SPEEDS = {"¼": 0.25, "½": 0.5, "1": 1.0, "2": 2.0}


class InspectorState(VideoState):
    """All that a person chooses; a notebook can set it as well."""

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
        self._shown_votes: tuple[int, ...] = ()
        """The votes in the score bars."""
        left = VBox(self._build_stage(), layout=Layout(grid_gap="4px"))
        right = VBox(self._build_tools(), layout=Layout(grid_gap="5px"))
        self.fill(self.pickers, columns(left, right))
        self.offer("asked")
        link((self.state, "frame"), (self.slider, "value"))
        self.watch(self.state, ["frame"], self._show_frame)
        self.watch(self.state, ["layers"], self._show_layers)
        self.watch(self.state, ["layers", "asked", "order"], self._redraw)
        self.watch(self.speed, ["value"], self._set_rate)
        self.begin(chosen)

    def close(self) -> None:
        """As a panel of a video does, and let go of the pictures."""
        super().close()
        self.reordered, self._shown_votes = None, ()
        for image in self.images:
            image.value = b""

    # -- parts

    def _build_stage(self) -> list[HTML | VBox]:
        """The picture with its slider, time line and buttons."""
        self._frame_layout = Layout(width="100%")
        self.owned.append(self._frame_layout)  # no picture has it before there is a video
        self.images: list[Image] = []
        # All pictures are in the page, which shows the one at the cursor: a `Stack` would make it anew at every step.
        self.reel = Box(layout=Layout(display="block", width="100%"))
        self.slider = IntSlider(max=0, readout=False, description="Frame", layout=Layout(width="auto"))
        # The page plays by itself (`panel.js`), because a step through the kernel would come late.
        self.play = Button(description="▶ play", tooltip="or pause", layout=Layout(width="92px"))
        self._line, self._rate, self._where, self._title, self._saved = HTML(), HTML(), HTML(), HTML(), HTML()
        for widget, name in (
            (self.reel, "picture"),
            (self.reel, "ifttn-reel"),
            (self.slider, "ifttn-scrub"),
            (self.play, "ifttn-play"),
            (self._line, "ifttn-line"),
        ):
            widget.add_class(name)
        bind_key(self.play, "space")
        self.speed = ToggleButtons(
            options=PLAY_SPEEDS, value=1.0, style={"button_width": "34px"}, tooltips=["times as fast"] * 4
        )
        steps = [
            self.button("< snippet", lambda: self._jump(-1), "to the snippet before", "shift-arrowleft"),
            self.button("snippet >", lambda: self._jump(1), "to the next snippet", "shift-arrowright"),
        ]
        save = [
            self.button(kind, lambda kind=kind: self.save(kind), f"save as {kind} in the folder {self.out}", key)
            for kind, key in (("PNG", "s"), ("GIF", ""), ("MP4", ""))
        ]
        playing, saving = [self.play, self._rate, self.speed], [HTML("<small>save as</small>"), *save]
        rows = [ends(playing, steps), ends([self._where], saving)]
        self._empty, hidden = HTML(NO_VIDEO), Layout(display="none", width="100%", grid_gap="4px")
        self._stage = VBox([self.reel, self.slider, self._line, *rows, self._saved, HTML(KEYS_HELP)], layout=hidden)
        return [self._title, self._empty, self._stage]

    def _build_tools(self) -> list[HTML | VBox]:
        """The score bars, the test of order, and the layers."""
        self._bars = HTML("<div class=empty>The scores of each head come here, once a video is read.</div>")
        self._verdict, self.asked = HTML(), dropdown("maps (CAM) of", max_width="360px")
        orders = [
            self.button("as filmed", lambda: self._reorder("as filmed"), "the snippets in their order"),
            self.button("swap pair", lambda: self._reorder("swap"), "swap the two snippets around the cursor", "x"),
            self.button("reverse", lambda: self._reorder("reverse"), "last snippet first", "r"),
            self.button("shuffle", lambda: self._reorder("shuffle"), "any order"),
        ]
        fades = [self.button(key, lambda by=by: self._fade(by), key=key) for key, by in (("less", -0.1), ("more", 0.1))]
        self.layer: dict[str, tuple[ToggleButton, FloatSlider]] = {}
        self._layer_rows = {name: self._layer_row(name) for name in LAYERS}
        keys = row(*fades, display="none")
        self._tools = VBox(
            [
                HTML("<h4>Does order matter?</h4>"),
                row(*orders),
                self._verdict,
                HTML("<h4>Layers <small>on or off, and how opaque</small></h4>"),
                row(*self._layer_rows.values(), keys, grid_gap="2px 8px", width="100%"),
                self.asked,
            ],
            layout=Layout(display="none", width="100%", grid_gap="5px"),
        )
        return [HTML("<h4>What the network says</h4>"), self._bars, self._tools]

    def _layer_row(self, name: str) -> HBox:
        label, opacity = LAYERS[name]
        toggle = ToggleButton(description=label, value=name == "rgb", layout=Layout(width="118px"))
        slider = FloatSlider(opacity, min=0, max=1, step=0.05, readout=False, layout=Layout(width="56px"))
        slider.tooltip = f"opacity of {name}"
        self.layer[name] = toggle, slider
        for control in (toggle, slider):
            self.watch_choice(control, self._choose_layers)
        # Maps are hidden until the heads of the run are known.
        return row(toggle, slider, flex_flow="row", grid_gap="0", display="none" if head_of(name) else "")

    # -- work

    def _redraw(self) -> None:
        if self.clip is not None:
            self.work("drawing", self.update)

    def loaded(self) -> None:
        """Show everything of a new clip or reading but its pictures."""
        self.reordered, self._drawn, self._shown_votes = None, (), ()
        clip, reading = self.clip, self.reading
        self._stage.layout.display = self._tools.layout.display = "none" if clip is None else ""
        self._empty.layout.display = "" if clip is None else "none"
        self._title.value = ""
        if reading is None:
            self._bars.value = self.unread
        if clip is not None:
            self._show_clip(clip)
            self._offer_layers()

    def refresh(self) -> Iterator[float | None]:
        """Show what the rest of the state changes."""
        order, reading, clip = self.state.order, self.reading, self.clip
        if clip is None or reading is None or len(order) != len(reading.sampled):
            self.reordered = None
        elif self.reordered is None or self.reordered.order != order:
            self.reordered = self.ask(clip, order)
        self._show_order()
        self._show_frame()
        yield from self._draw()

    def _show_clip(self, clip: Clip) -> None:
        """Make room for the frames of a clip, and draw its time line."""
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
        sampled = self.reading.sampled.tolist() if self.reading else []
        self._line.value = sketches.timeline(len(clip.kinds), sampled, clip.kinds, clip.cuts, clip.fps)
        every = f", one frame in {clip.step} shown" if clip.step > 1 else ""
        name = escape(clip.name.rpartition("/")[2])
        self._title.value = f"<b>{escape(clip.label or clip.name)}</b> <small>{name}{every}</small>"

    def _offer_layers(self) -> None:
        """Offer the layers that the run has maps for, with a number key each, and the actions of the maps."""
        heads, actions = (self.reading.votes, self.reading.actions) if self.reading else ({}, ())
        number = 0
        for name, (toggle, _) in self.layer.items():
            offered = not head_of(name) or head_of(name) in heads
            number += offered
            self._layer_rows[name].layout.display = "" if offered else "none"
            bind_key(toggle, str(number) if offered else "")
        with self.filling():
            self.asked.options = [("the predicted action", ""), *((name, name) for name in actions)]
            self.asked.value = self.state.asked if self.state.asked in actions else ""

    def _draw(self) -> Iterator[float | None]:
        """Every frame, the one at the cursor first and then its neighbours."""
        clip, state = self.clip, self.state
        wanted = (id(clip), tuple(sorted(state.layers.items())), state.asked)
        if clip is None or wanted == self._drawn:
            return
        self._drawn = ()  # a drawing that is given up half-way leaves frames of two kinds
        paint = self.painter()
        order = sorted(range(len(clip.frames)), key=lambda i: abs(i - state.frame))
        for done, index in enumerate(order, 1):
            self.images[index].value = pictures.jpeg(paint(index))
            yield done / len(order)
        self._drawn = wanted

    def painter(self) -> Callable[[int], UInt8[np.ndarray, "H W 3"]]:
        """A function that draws the layers that are on over the frame of an index."""
        clip, reading, layers = self.clip, self.reading, self.state.layers
        assert clip is not None
        heads, maps = [head_of(name) for name in layers if head_of(name)], {}
        if reading and heads:
            asked = self.state.asked
            action = reading.actions.index(asked) if asked in reading.actions else int(reading.fused.argmax())
            maps = {head: scaled(each)[0] for head, each in self.maps(action).items() if head in heads}
        return painter(clip, layers, reading, maps)

    # -- what is shown

    def _show_frame(self) -> None:
        """Time and score bars of the frame at the cursor."""
        clip, reading = self.clip, self.reading
        if clip is None:
            return
        frame = min(self.state.frame * clip.step, len(clip.kinds) - 1)
        at = f"{clip.seconds[frame]:.2f} s at {clip.fps:.3g}/s · {clip.kinds[frame]}-frame"
        self._where.value = f"<small>frame <b>{frame + 1}</b> of {len(clip.kinds)} · {at}</small>"
        votes = tuple(reading.vote(head, frame) for head in reading.votes) if reading else ()
        if reading is None or votes == self._shown_votes:
            return
        self._shown_votes = votes
        bars = []
        for (head, logits), vote in zip(reading.votes.items(), votes, strict=True):
            is_snippet = len(logits) == len(reading.sampled)
            about = f"snippet {vote + 1}" if is_snippet else f"pair {vote + 1}-{vote + 2}"
            bars.append(sketches.Bars(head, about, reading.probabilities(head, vote)))
        bars.append(sketches.Bars("late fusion", "the video", reading.fused))
        self._bars.value = sketches.bars(bars, reading.actions, clip.label)

    def _show_order(self) -> None:
        """The prediction of each head for the snippets as filmed, and in the order that was chosen."""
        filmed, other = self.reading, self.reordered
        if filmed is None or other is None:
            self._verdict.value = ORDER_HELP if filmed else ""
            return
        rows = []
        for head in (*filmed.votes, "late fusion"):
            before, after = (r.fused if head == "late fusion" else r.probabilities(head) for r in (filmed, other))
            same = np.allclose(before, after, atol=1e-5)
            then = "<td class=quiet>the same</td>" if same else f"<td>{_best(after, other.actions)}</td>"
            rows.append(f"<tr><th scope=row>{escape(head)}</th><td>{_best(before, filmed.actions)}</td>{then}</tr>")
        order = " ".join(str(i + 1) for i in other.order)
        heads = f"<thead><tr><td></td><th>as filmed</th><th>{order}</th></tr></thead>"
        self._verdict.value = f"<table class=words>{heads}{''.join(rows)}</table>"

    def _show_layers(self) -> None:
        """Set the controls to the layers that were chosen in another way."""
        with self.filling():
            for name, (toggle, slider) in self.layer.items():
                toggle.value = name in self.state.layers
                slider.value = self.state.layers.get(name, slider.value)

    def _set_rate(self) -> None:
        """Tell the page how many frames a second it plays."""
        if self.clip is not None:
            rate = self.clip.fps / self.clip.step * float(self.speed.value or 1)
            self._rate.value = f"<small class=ifttn-rate data-rate={rate:.3f}>speed</small>"

    # -- what a person does

    def _jump(self, by: int) -> None:
        if self.clip is None or self.reading is None:
            return
        at, here = self.reading.sampled // self.clip.step, self.state.frame
        later = at[at > here] if by > 0 else at[at < here][::-1]
        if len(later):
            self.state.frame = int(later[0])

    def _reorder(self, how: str) -> None:
        if self.reading is None or self.clip is None:
            raise self.shelf.no_network(self.state.dataset, self.state.split)
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

    def _choose_layers(self) -> None:
        self.state.layers = {name: slider.value for name, (toggle, slider) in self.layer.items() if toggle.value}

    def _fade(self, by: float) -> None:
        """Change the opacity of the topmost layer that is on."""
        on = [name for name in LAYERS if name in self.state.layers]
        if on:
            slider = self.layer[on[-1]][1]
            slider.value = round(min(1.0, max(0.0, slider.value + by)), 2)

    # -- out

    def as_html(self) -> HTMLPicture:
        """A page that plays the clip with its layers, for a notebook without a kernel; waits until it is drawn."""
        self.wait()
        clip, reading = self.clip, self.reading
        if clip is None:
            return HTMLPicture(f"<p>{escape(self.worker.error)}</p>")
        paint, note = self.painter(), ""
        if reading:
            note = f"predicted: {reading.actions[int(reading.fused.argmax())]} {reading.fused.max():.2f}"
        frames = [pictures.jpeg(paint(index), 80) for index in range(len(clip.frames))]
        height = round(player.WIDTH * clip.frames.shape[1] / clip.frames.shape[2])
        page = player.page(frames, clip.fps / clip.step, clip.label or clip.name, note, self._line.value)
        return player.framed(page, height)

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


def _best(probabilities: np.ndarray, actions: Sequence[str]) -> str:
    best = int(probabilities.argmax())
    return f"{escape(actions[best])} <b>{100 * probabilities[best]:.0f}</b>"
