"""The CAM explorer: Figure 6 for any video, action and pair, with the probabilities of each head."""

import base64
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML, HBox, IntSlider, Layout, ToggleButtons, Widget
from traitlets import Enum, Int, Unicode, dlink, link

from ifttn.insight.cam import STRIDE, Scaling, scaled
from lab import pictures, sketches
from lab.clip import Clip, Reading
from lab.figures import flow_colours
from lab.panel import as_picture, dropdown, labelled, refill, row
from lab.shelf import Shelf
from lab.video_panel import USUAL_FINER, VideoPanel, VideoState

HEADS_SCALE = "The strongest colour is the head's largest value in the video."
OWN_SCALE = "Every map has its own scale from its lowest to its highest value: compare shapes, not strengths."
SCALINGS: dict[str, tuple[Scaling, bool, str]] = {
    "signed": ("signed", True, f"Red is evidence for the action, striped blue is evidence against it. {HEADS_SCALE}"),
    "positive": ("relu", True, f"The colours show evidence for the action only. {HEADS_SCALE}"),
    "each map": ("min-max", False, OWN_SCALE),
}
"""Name -> the arguments `scaling` and `shared` of `ifttn.insight.cam.scaled`, and the meaning of the colours."""
METHODS = {
    "cam": "A map is the last feature map of a head times the weights of its classifier.",
    "gradcam": f"Grad-CAM (package grad-cam) shows evidence for the action only. {OWN_SCALE}",
}
METHOD_NAMES = {"cam": "CAM", "gradcam": "Grad-CAM"}
BAR = "<span>maps: against <i class=bar></i> for the action</span>"
CELLS = {f"{STRIDE // finer} px": finer for finer in (1, 2, 4)}


class CamState(VideoState):
    """All that a person chooses."""

    map_action = Unicode(help="the action of the maps; empty: the predicted one")
    pair = Int(0, help="number of the pair of neighbouring snippets, from 0")
    method: Any = Enum(tuple(METHODS), "cam")
    scaling = Enum(tuple(SCALINGS), "signed")
    finer: Any = Enum(tuple(CELLS.values()), USUAL_FINER, help="cells of a map for each cell of the network, per axis")
    opacity = Int(75, help="opacity of the strongest evidence, in percent")


class CamExplorer(VideoPanel):
    """`CamExplorer("results")` in a cell.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        chosen: first values of traits of `CamState`.
    """

    state: CamState

    def __init__(self, results: Shelf | Path | str, **chosen: object) -> None:
        super().__init__("CAM explorer", CamState(), results)
        self.map_action = dropdown("action", flex="1 1 260px", max_width="380px")
        self.pair, wide = ToggleButtons(style={"button_width": "46px"}), {"button_width": "92px"}
        methods, meanings = [(text, name) for name, text in METHOD_NAMES.items()], [m for *_, m in SCALINGS.values()]
        self.method = ToggleButtons(options=methods, tooltips=list(METHODS.values()), style=wide)
        self.scaling = ToggleButtons(options=[(name, name) for name in SCALINGS], tooltips=meanings, style=wide)
        self.finer = dropdown("a cell every", list(CELLS.items()))
        self.opacity = labelled("opacity", IntSlider(min=10, max=100, readout=False, layout=Layout(width="180px")))
        self._grid, self._caption = HTML(), HTML()
        chosen_maps = self.map_action, _with_name("pair", self.pair), self.opacity
        controls = _with_name("method", self.method), _with_name("scaling", self.scaling), self.finer
        self.fill(self.pickers, *(row(*parts, grid_gap="4px 14px") for parts in (chosen_maps, controls)))
        self.fill(self._grid, self._caption)
        for name in ("method", "scaling", "finer", "opacity"):
            link((self.state, name), (getattr(self, name), "value"))
        self.offer("map_action", "pair")
        dlink((self.state, "method"), (self.scaling, "disabled"), lambda method: method != "cam")
        self.watch(self.state, ["map_action", "pair", "method", "scaling", "finer", "opacity"], self.read_video)
        self.begin(chosen)

    def loaded(self) -> None:
        """Offer the actions and pairs of the new reading."""
        reading = self.reading
        if reading is None:
            self._grid.value, self._caption.value = self.unread, ""
            return
        with self.filling():
            actions, pairs = [(name, name) for name in reading.actions], max(1, len(reading.sampled) - 1)
            chosen = self.state.map_action if self.state.map_action in reading.actions else ""
            refill(self.map_action, [("the predicted action", ""), *actions], chosen)
            refill(self.pair, [(f"{i + 1}-{i + 2}", i) for i in range(pairs)], min(self.state.pair, pairs - 1))

    def refresh(self) -> Iterator[float | None]:
        """Draw the figure."""
        clip, reading = self.clip, self.reading
        if clip is None or reading is None:
            return
        action = reading.action(self.state.map_action)
        first = min(self.state.pair, max(0, len(reading.sampled) - 2))
        method, scaling, shared, meaning = self.state.method, *SCALINGS[self.state.scaling]
        if method == "gradcam":  # the package has scaled its maps
            scaling, shared, meaning = "relu", False, ""
        yield None
        found = self.maps(action, method, self.state.finer)
        maps = {head: scaled(each, scaling, shared=shared) for head, each in found.items()}
        columns = ["frame", "motion", *(f"{head} {METHOD_NAMES[method]}" for head in reading.votes)]
        heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
        rows = ""
        for snippet in (first, first + 1)[: len(reading.sampled)]:
            pictured = "".join(self._row(clip, reading, maps, (action, snippet, first)))
            rows += f"<tr><th scope=row>snippet {snippet + 1}</th>{pictured}</tr>"
            yield None
        name = reading.actions[action]
        probabilities = "".join(
            f"<td>p = <b>{reading.probabilities(head)[action]:.2f}</b></td>" for head in reading.votes
        )
        rows += f"<tr><th scope=row><small>whole video</small></th><td></td><td></td>{probabilities}</tr>"
        self._grid.value = f"<table class=cams><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        legends = sketches.WHEEL + (BAR if self.state.scaling == "signed" and method == "cam" else "")
        truth = f" (true: {escape(clip.label)})" if clip.label and clip.label != name else ""
        self._caption.value = (
            f"<div class=legends>{legends}</div>"
            f"<b>{escape(name)}</b>{truth}, late fusion p = {reading.fused[action]:.2f}. "
            f"<small>{METHODS[method]} {meaning}{_one_map_note(found, len(reading.sampled))} "
            "The square is the part of the frame that the network sees.</small>"
        )

    def as_html(self) -> HTMLPicture:
        """Wait for the figure and return it for a page without a kernel."""
        self.wait()
        return as_picture(self._grid.value + self._caption.value)

    def _row(
        self, clip: Clip, reading: Reading, maps: Mapping[str, tuple[np.ndarray, list[str]]], at: tuple[int, int, int]
    ) -> Iterator[str]:
        """Table cells: the frame, the motion, and the map of each head at (action, snippet, pair)."""
        action, snippet, pair = at
        index = int(reading.sampled[snippet])
        height, width = clip.frames.shape[1:3]
        times = max(1, round(240 / width))
        size = times * width, times * height
        frame = pictures.resized(clip.frames[index // clip.step], *size)
        yield _picture(frame, f"frame {index + 1}")
        motion = "mv" if "mv" in reading.votes and "flow" not in reading.votes else "flow"
        field = clip.source.read(motion, np.array([min(index, clip.source.frames - 2)]))
        yield _picture(pictures.resized(flow_colours(field)[0], *size), motion)
        grey = np.repeat(frame.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)
        for head, (values, notes) in maps.items():
            vote = snippet if len(values) == len(reading.sampled) else pair
            drawn = pictures.over(grey, pictures.heat(values[vote]), self.state.opacity / 100, reading.crop)
            below = [f"vote {reading.votes[head][vote, action]:+.2f}", *filter(None, [notes[vote]])]
            yield _picture(drawn, f"{head}, snippet {snippet + 1}", ", ".join(below))


def _one_map_note(maps: Mapping[str, np.ndarray], snippets: int) -> str:
    """A sentence about the heads that have fewer maps than there are snippets."""
    heads = [head for head, values in maps.items() if len(values) < snippets]
    have = "have" if len(heads) > 1 else "has"
    return f" {' and '.join(heads)} {have} one map for a pair; it is drawn on both snippets." if heads else ""


def _with_name(text: str, control: Widget) -> HBox:
    """A control with its name in front. The control's own label would be above it."""
    return row(HTML(text), control, flex_flow="row")


def _picture(picture: np.ndarray, alt: str, below: str = "") -> str:
    data = base64.b64encode(pictures.jpeg(picture)).decode()
    below = f"<small>{escape(below)}</small>" if below else ""
    image = f"<img src='data:image/jpeg;base64,{data}' alt='{escape(alt)}'>"
    return f"<td>{image}{below}</td>"
