"""The clip inspector: the frames and the motion of a video, with the predictions and maps of a network.

The page has the pictures and the votes (`player.py`): it changes the frame or the layers without the kernel.
Shapes: H x W pixels.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML
from jaxtyping import Float, UInt8
from traitlets import Dict, Int, TraitError, Tuple, Unicode, link, validate

from ifttn.files import write_whole
from ifttn.insight.cam import scaled
from ifttn.vocabulary import IfttnError
from lab import pictures
from lab.clip import Reading
from lab.layers import LAYERS, head_of, painted, painter
from lab.player import Player
from lab.shelf import Shelf
from lab.sketches import breakable
from lab.video_panel import VideoPanel, VideoState

NO_VIDEO = (
    "<div class='empty stage'><p><b>The video comes here.</b></p>"
    "<p>Choose one above, drop a file of your own, or type its path: MP4, AVI, or any type that FFmpeg reads.</p></div>"
)
ORDER_HELP = (
    "<small>Each snippet keeps its frame and its motion; only the order of the snippets changes. A mean over snippets "
    "does not depend on the order. Differences of snippets do.</small>"
)


class InspectorState(VideoState):
    """All that a person chooses; a notebook can set it as well."""

    map_action = Unicode(help="the action of the maps; empty: the predicted one")
    layers = Dict({"rgb": 1.0}, help="visible layer -> opacity in 0..1")
    frame = Int(0, help="number of the frame, from 0")
    order = Tuple(help="the order of the snippets in the test of order; empty: as filmed")

    @validate("layers")
    def _check_layers(self, proposal: Mapping[str, Any]) -> dict[str, float]:
        layers = proposal["value"]
        if unknown := [name for name in layers if name not in LAYERS]:
            raise TraitError(f"no layer {unknown[0]!r}: choose from {', '.join(LAYERS)}")
        for name, opacity in layers.items():
            if not (isinstance(opacity, int | float) and 0 <= opacity <= 1):
                raise TraitError(f"the opacity of {name} is {opacity!r}: it is a number from 0 to 1")
        return layers


class Inspector(VideoPanel):
    """`Inspector("results")` in a cell; `Inspector("results", file="my.mp4")` for your own file.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        out: the folder for saved pictures.
        chosen: first values of traits of `InspectorState`.
    """

    state: InspectorState

    def __init__(self, results: Shelf | Path | str, out: Path | str = "pictures", **chosen: object) -> None:
        super().__init__("Clip inspector", InspectorState(), results)
        self.out = Path(out)
        self.reordered: Reading | None = None
        self._drawn: dict[str, str] = {}
        """Layer that the page has -> the action of its maps."""
        self._empty, self.player = HTML(NO_VIDEO), Player()
        self.player.layout.display = "none"
        self.fill(self.pickers, self._empty, self.player)
        self.player.on_msg(self._on_message)
        for name in ("frame", "layers", "map_action"):
            link((self.state, name), (self.player, name))
        self.watch(self.state, ["layers", "map_action", "order"], self._redraw)
        self.begin(chosen)

    def close(self) -> None:
        """Close the panel and free the pictures."""
        super().close()
        self.reordered = None
        self.player.show_clip(None, None, "")

    # -- work

    def _redraw(self) -> None:
        if self.clip is not None:
            self.work("drawing", self.update)

    def loaded(self) -> None:
        """Show a new clip and its votes. The pictures follow in `refresh`."""
        self.reordered = None
        self._drawn.clear()
        shown = self.clip is not None
        self.player.layout.display, self._empty.layout.display = ("", "none") if shown else ("none", "")
        self.player.show_clip(self.clip, self.reading, "" if self.reading else self.unread)

    def refresh(self) -> Iterator[float | None]:
        """Show the test of order and the pictures of the visible layers."""
        order, reading, clip = self.state.order, self.reading, self.clip
        if clip is None or reading is None or len(order) != len(reading.sampled):
            self.reordered = None
        elif self.reordered is None or self.reordered.order != order:
            self.reordered = self.ask(clip, order)
        self._show_order()
        yield from self._draw(self.state.layers)

    def _draw(self, layers: Sequence[str] | Mapping[str, float]) -> Iterator[float]:
        """Send the pictures of these layers that the page does not have."""
        clip, reading = self.clip, self.reading
        if clip is None:
            return
        for name in layers:
            action = self._map_action if head_of(name) else ""
            if self._drawn.get(name) == action:
                continue
            self._drawn.pop(name, None)  # if this drawing is stopped, the page has pictures of two actions
            layer = painted(clip, name, reading, self._maps_of([name]))
            if layer is not None:
                yield from self.player.draw(name, layer, min(self.state.frame, len(clip.frames) - 1))
            self._drawn[name] = action

    @property
    def _map_action(self) -> str:
        """The action of the maps; empty: there is no network."""
        reading = self.reading
        return reading.actions[reading.action(self.state.map_action)] if reading else ""

    def _maps_of(self, layers: Sequence[str] | Mapping[str, float]) -> dict[str, Float[np.ndarray, "V s s"]]:
        heads = {head_of(name) for name in layers} - {""}
        if self.reading is None or not heads:
            return {}
        found = self.maps(self.reading.actions.index(self._map_action))
        return {head: scaled(each)[0] for head, each in found.items() if head in heads}

    def painter(self) -> Callable[[int], UInt8[np.ndarray, "H W 3"]]:
        """A function that draws the visible layers of the frame with an index."""
        assert self.clip is not None
        return painter(self.clip, self.state.layers, self.reading, self._maps_of(self.state.layers))

    def _show_order(self) -> None:
        """Show each head's prediction for the snippets as filmed and in the chosen order."""
        filmed, other = self.reading, self.reordered
        if filmed is None or other is None:
            self.player.verdict = ORDER_HELP if filmed else ""
            return
        rows = []
        for head in (*filmed.votes, "late fusion"):
            before, after = (r.fused if head == "late fusion" else r.probabilities(head) for r in (filmed, other))
            same = np.allclose(before, after, atol=1e-5)
            then = "<td class=quiet>the same</td>" if same else f"<td>{_best(after, other.actions)}</td>"
            rows.append(f"<tr><th scope=row>{escape(head)}</th><td>{_best(before, filmed.actions)}</td>{then}</tr>")
        order = " ".join(str(i + 1) for i in other.order)
        heads = f"<thead><tr><td></td><th>as filmed</th><th>order {order}</th></tr></thead>"
        self.player.verdict = f"<table class=words>{heads}{''.join(rows)}</table>"

    # -- buttons

    def _on_message(self, _: Player, message: Mapping[str, str], __: object) -> None:
        """A person pressed a button in the page."""
        for what, how in message.items():
            self.guard({"save": self.save, "reorder": self._reorder}[what], how)

    def _reorder(self, how: str) -> None:
        if self.reading is None or self.clip is None:
            raise self.shelf.no_network(self.state.dataset, self.state.split)
        order = list(range(len(self.reading.sampled)))
        if how == "swap pair":
            first = self.reading.pair(self.state.frame * self.clip.step)
            order[first], order[first + 1] = order[first + 1], order[first]
        elif how == "reverse":
            order.reverse()
        elif how == "shuffle":
            filmed = order.copy()
            while order in (filmed, list(self.state.order)) and len(order) > 2:
                random.shuffle(order)
        self.state.order = () if how == "as filmed" else tuple(order)

    # -- output

    def as_html(self) -> HTMLPicture:
        """A page that plays the clip without a kernel, with votes, visible layers and maps."""
        self.wait()
        if self.clip is None:
            return HTMLPicture(f"<p>{escape(self.worker.error)}</p>")
        for _ in self._draw([*self.state.layers, *(name for name in LAYERS if head_of(name))]):
            pass
        return self.player.page()

    def save(self, kind: str) -> None:
        """Write the frame ("PNG") or the whole clip ("GIF", "MP4") with its layers into the folder `out`."""
        if self.clip is None:
            raise IfttnError("there is no clip to save: choose a video first")
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
        self.player.saved = f"saved {escape(str(path))} ({len(content) / 1e3:.0f} kB)"
        yield 1.0


def _best(probabilities: np.ndarray, actions: Sequence[str]) -> str:
    best = int(probabilities.argmax())
    return f"{breakable(actions[best])} <b>{100 * probabilities[best]:.0f}</b>"
