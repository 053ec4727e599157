"""The CAM explorer: Figure 6 for any video, class and pair, with each head's probability beside its maps.

Shapes: V votes, H x W pixels, h x w cells.
"""

import base64
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML, HBox, Layout, ToggleButtons
from jaxtyping import Float
from traitlets import Enum, Int, Unicode

from lab import pictures
from lab.figures import flow_colours
from lab.panel import STYLE, choose
from lab.shelf import Shelf
from lab.video_panel import VideoPanel, VideoState

SCALINGS = {
    "signed": "red is evidence for, blue against; each head by its largest in the video, so that its maps compare",
    "positive": "only evidence for the action, each head by its largest in the video",
    "each map": "every map by itself, from its lowest to its highest: shapes compare, strengths do not",
}


class CamState(VideoState):
    """All that a person chooses."""

    asked = Unicode(help="action; empty: the one predicted")
    pair = Int(0, help="of neighbouring snippets, from 0")
    scaling = Enum(tuple(SCALINGS), "signed")
    opacity = Int(75, help="of the strongest evidence, in percent")


class CamExplorer(VideoPanel):
    """`CamExplorer("results")` in a cell.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        chosen: traits of `CamState` to begin with.
    """

    state: CamState

    def __init__(self, results: Shelf | Path | str, **chosen: object) -> None:
        super().__init__("CAM explorer", CamState(), results)
        self.asked, self.pair = choose("action", flex="2 1 260px"), ToggleButtons(description="pair")
        self.pair.style.button_width = "54px"
        self.pair.style.description_width = "initial"
        self.scaling = ToggleButtons(options=list(SCALINGS), description="scale", tooltips=list(SCALINGS.values()))
        self.scaling.style.button_width = "96px"
        self.scaling.style.description_width = "initial"
        self._grid, self._caption = HTML(), HTML()
        row = Layout(flex_flow="row wrap", grid_gap="10px", width="100%", align_items="center")
        self.fill(self.pickers, HBox([self.run, self.asked], layout=row))
        self.fill(HBox([self.pair, self.scaling], layout=Layout(flex_flow="row wrap", grid_gap="10px", width="100%")))
        self.fill(self._grid, self._caption)
        self.tie((self.state, "scaling"), (self.scaling, "value"))
        self.watch(self.asked, ["value"], lambda: self.choose("asked", self.asked.value))
        self.watch(self.pair, ["value"], lambda: self.choose("pair", self.pair.value))
        self.watch(self.state, ["asked", "pair", "scaling", "opacity"], self.read_video)
        self.begin(chosen)

    def loaded(self) -> None:
        """Offer the actions and pairs of the new reading."""
        reading = self.reading
        if reading is None:
            todo = "<code>ifttn reproduce --quick</code> trains one."
            self._grid.value = f"<div class=empty>No trained run of this split yet.<br>{todo}</div>"
            self._caption.value = ""
            return
        self.silent = True
        self.asked.options = [("the predicted action", ""), *((name, name) for name in reading.actions)]
        self.asked.value = self.state.asked if self.state.asked in reading.actions else ""
        pairs = max(1, len(reading.sampled) - 1)
        self.pair.options = [(f"{i + 1}-{i + 2}", i) for i in range(pairs)]
        self.pair.value = min(self.state.pair, pairs - 1)
        self.silent = False

    def refresh(self) -> Iterator[float | None]:
        """Draw the figure."""
        clip, reading = self.clip, self.reading
        if clip is None or reading is None:
            return
        asked = self.state.asked
        action = reading.actions.index(asked) if asked in reading.actions else int(reading.fused.argmax())
        first = min(self.state.pair, max(0, len(reading.sampled) - 2))
        columns = ["frame", "motion", *(f"{head} CAM" for head in reading.maps)]
        heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in columns)
        rows = ""
        for snippet in (first, first + 1)[: len(reading.sampled)]:
            cells = self._cells(action, snippet, first)
            rows += f"<tr><th scope=row>snippet {snippet + 1}</th>{''.join(cells)}</tr>"
            yield None
        name = reading.actions[action]
        probabilities = "".join(
            f"<td style='text-align:left'>p = <b>{reading.probabilities(head)[action]:.2f}</b></td>"
            for head in reading.maps
        )
        rows += f"<tr><th scope=row><small>whole video</small></th><td></td><td></td>{probabilities}</tr>"
        self._grid.value = f"<table class=cams><thead><tr><td></td>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        truth = f" (true: {escape(clip.label)})" if clip.label and clip.label != name else ""
        self._caption.value = (
            f"<b>{escape(name)}</b>{truth}, late fusion p = {reading.fused[action]:.2f}. "
            f"<small>{SCALINGS[self.state.scaling]}. A map's mean and the head's bias are its vote. A TTN head has one "
            "map for both snippets, because it reads them only after their subtraction.</small>"
        )

    def as_html(self) -> HTMLPicture:
        """The figure, for a page without a kernel; waits until it is drawn."""
        self.wait()
        return HTMLPicture(f"<div class=ifttn>{self._grid.value}{self._caption.value}</div><style>{STYLE}</style>")

    def _cells(self, action: int, snippet: int, pair: int) -> list[str]:
        clip, reading = self.clip, self.reading
        assert clip is not None
        assert reading is not None
        at = int(reading.sampled[snippet])
        height, width = clip.frames.shape[1:3]
        times = max(1, round(240 / width))
        size = times * width, times * height
        frame = pictures.resized(clip.frames[at // clip.step], *size)
        motion = "mv" if "mv" in reading.maps and "flow" not in reading.maps else "flow"
        field = clip.planes[motion][min(at, len(clip.planes[motion]) - 1)][None]
        cells = [_picture(frame, f"frame {at + 1}"), _picture(pictures.resized(flow_colours(field)[0], *size), motion)]
        grey = np.repeat(frame.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)
        for head, maps in reading.maps.items():
            vote = snippet if len(maps) == len(reading.sampled) else pair
            values = scaled(maps[:, action], vote, self.state.scaling)
            drawn = pictures.with_map(grey, values, self.state.opacity / 100, reading.crop)
            said = f"{reading.votes[head][vote, action]:+.2f}"
            if self.state.scaling == "positive" and maps[vote, action].max() <= 0:
                said += ", no evidence for it"
            cells.append(_picture(drawn, f"{head}, snippet {snippet + 1}", f"vote {said}"))
        return cells


def scaled(maps: Float[np.ndarray, "V h w"], vote: int, scaling: str) -> Float[np.ndarray, "h w"]:
    """A map of a head in -1..1, as a key of SCALINGS says."""
    values = maps[vote]
    if scaling == "each map":
        low, high = float(values.min()), float(values.max())
        return (values - low) / max(high - low, 1e-12)
    values = values / max(float(np.abs(maps).max()), 1e-12)
    return np.maximum(values, 0) if scaling == "positive" else values


def _picture(picture: np.ndarray, told: str, below: str = "") -> str:
    data = base64.b64encode(pictures.jpeg(picture)).decode()
    below = f"<small>{escape(below)}</small>" if below else ""
    image = f"<img src='data:image/jpeg;base64,{data}' alt='{escape(told)}'>"
    return f"<td style='text-align:left;vertical-align:top'>{image}{below}</td>"
