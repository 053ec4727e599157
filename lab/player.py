"""A clip in the page: its pictures, which the page blends and plays by itself, and the votes of a network.

Shapes: T frames shown, V votes, A actions.
"""

import base64
import json
from collections.abc import Iterator
from html import escape
from typing import Any

from anywidget import AnyWidget
from IPython.display import HTML
from traitlets import Dict, Int, List, Unicode

from lab import pictures, sketches
from lab.clip import Clip, Reading
from lab.layers import BELOW_TO_ABOVE, LAYERS, Painted, head_of, picture_size
from lab.panel import PANEL_CSS, in_page

PORTIONS = (1, 16)
"""After so many pictures the page gets those that are ready; the rest comes at the end."""
MODULE = in_page("elements.js", "keys.js", "player.js")


class Player(AnyWidget):
    """What `player.js` shows; it shows nothing before there is a clip."""

    _esm, _css = MODULE, PANEL_CSS
    clip = Dict(help="its name, size, frames and time line").tag(sync=True)
    votes = Dict(help="of each head, with the probabilities of every action").tag(sync=True)
    offered = List(help="layers that can be switched on, with a number key each").tag(sync=True)
    known = List(list(LAYERS), help="layers that can have pictures, in traits named `of <layer>`").tag(sync=True)
    layers = Dict(help="layer -> opacity in 0..1, of those that are on").tag(sync=True)
    frame = Int(help="shown, from 0; the page tells it when it rests").tag(sync=True)
    asked = Unicode(help="the action of the maps; empty: the one predicted").tag(sync=True)
    verdict = Unicode(help="HTML: the test of order").tag(sync=True)
    saved = Unicode(help="HTML: what was saved").tag(sync=True)

    def __init__(self) -> None:
        self.add_traits(**{f"of {name}": Dict().tag(sync=True) for name in LAYERS})
        super().__init__()

    def show_clip(self, clip: Clip | None, reading: Reading | None, unread: str) -> None:
        """Show another clip, without a picture yet; None: nothing.

        Args:
            clip: in memory.
            reading: what a network says of it; None: no network was asked.
            unread: HTML that says why.
        """
        with self.hold_sync():
            for name in LAYERS:
                setattr(self, f"of {name}", {})
            self.clip = _told(clip, reading) if clip else {}
            self.votes = _votes(clip, reading) if clip and reading else {"unread": unread}
            heads = reading.votes if reading else {}
            self.offered = [
                {"name": name, "label": label, "opacity": opacity, "above": BELOW_TO_ABOVE.index(name)}
                for name, (label, opacity) in LAYERS.items()
                if not head_of(name) or head_of(name) in heads
            ]
            if clip:
                self.frame = min(self.frame, len(clip.frames) - 1)

    def draw(self, name: str, layer: Painted, first: int) -> Iterator[float]:
        """Send the pictures of a layer, those around a frame first; yields the share that is ready."""
        order = sorted(range(len(layer.of)), key=lambda i: abs(i - first))
        order = list(dict.fromkeys(layer.of[i] for i in order))
        data: list[bytes | None] = [None] * (max(order) + 1)
        for done, number in enumerate(order, 1):
            data[number] = pictures.for_page(layer.paint(number))
            if done in PORTIONS or done == len(order):
                sent = {"of": list(layer.of), "where": layer.where, "smooth": layer.smooth, "data": list(data)}
                setattr(self, f"of {name}", sent)
            yield done / len(order)

    def pictures_of(self, name: str) -> list[bytes]:
        """Those of a layer that the page has."""
        return [each for each in getattr(self, f"of {name}").get("data", ()) if each]

    def page(self) -> HTML:
        """A page that shows the clip with its layers without a kernel, for the output of a cell."""
        state: dict[str, Any] = {name: getattr(self, name) for name in ("clip", "votes", "layers", "frame", "known")}
        drawn = {name for name in LAYERS if self.pictures_of(name)}
        state |= {f"of {name}": _as_text(getattr(self, f"of {name}")) for name in LAYERS}
        state |= {"offered": [each for each in self.offered if each["name"] in drawn], "asked": self.asked}
        data = json.dumps(state | {"verdict": "", "saved": ""}).replace("</", "<\\/")
        fit = "if (frameElement) frameElement.style.height = `${document.documentElement.scrollHeight + 4}px`"
        page = (
            f"<!doctype html><meta charset=utf-8><title>{escape(self.clip['name'])}</title><style>{PANEL_CSS}"
            f"body {{ margin: 0 }}</style><body><div id=clip></div><script type=module>{MODULE}\n"
            f"player({{model: offline({data}), el: document.getElementById('clip')}});\n"
            f"new ResizeObserver(() => {{ {fit} }}).observe(document.body);</script>"
        )
        frame = f'<iframe srcdoc="{escape(page, quote=True)}" style="border:0;width:100%;height:760px"></iframe>'
        return HTML(f"<div>{frame}</div>")  # bare, IPython would advise an IFrame, which needs a file


def _told(clip: Clip, reading: Reading | None) -> dict[str, Any]:
    """A clip as the page reads it."""
    sampled = reading.sampled.tolist() if reading else []
    every = f", one frame in {clip.step} shown" if clip.step > 1 else ""
    name = escape(clip.name.rpartition("/")[2])
    return {
        "name": clip.name,
        "title": f"<b>{escape(clip.label or clip.name)}</b> <small>{name}{every}</small>",
        "line": sketches.timeline(len(clip.kinds), sampled, clip.kinds, clip.cuts, clip.fps),
        "size": picture_size(clip),
        "width": clip.frames.shape[2],
        "shown": len(clip.frames),
        "count": len(clip.kinds),
        "step": clip.step,
        "fps": clip.fps,
        "seconds": clip.seconds[:: clip.step].round(3).tolist(),
        "kinds": clip.kinds[:: clip.step],
        "sampled": sampled,
    }


def _votes(clip: Clip, reading: Reading) -> dict[str, Any]:
    """The votes of every head as the page reads them."""
    heads = [
        {
            "name": head,
            "colour": sketches.HEAD_COLOURS.get(head, "#888"),
            "pairs": len(logits) != len(reading.sampled),
            "of": [reading.vote(head, index * clip.step) for index in range(len(clip.frames))],
            "share": [reading.probabilities(head, vote).astype(float).round(4).tolist() for vote in range(len(logits))],
        }
        for head, logits in reading.votes.items()
    ]
    fused = {"colour": sketches.HEAD_COLOURS["late fusion"], "share": reading.fused.astype(float).round(4).tolist()}
    return {"actions": list(reading.actions), "label": clip.label, "heads": heads, "fused": fused}


def _as_text(layer: dict[str, Any]) -> dict[str, Any]:
    """The pictures of a layer for a page that holds them."""
    data = [each and base64.b64encode(each).decode() for each in layer.get("data", ())]
    return layer | {"data": data}
