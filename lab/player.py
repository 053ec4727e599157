"""A clip in the page, with the votes of a network. The page blends and plays the pictures by itself.

Shapes: T frames shown, V votes, A actions.
"""

import base64
import json
from collections.abc import Iterator
from html import escape
from typing import Any

from anywidget import AnyWidget
from IPython.display import HTML
from scipy.special import softmax
from traitlets import Dict, Int, List, Unicode

from lab import pictures, sketches
from lab.clip import Clip, Reading
from lab.layers import BELOW_TO_ABOVE, LAYERS, Painted, head_of, picture_size
from lab.panel import PANEL_CSS, in_page

PORTIONS = (1, 16)
"""When this many pictures are ready, they are sent to the page. The others are sent together at the end."""
MODULE = in_page("elements.js", "keys.js", "player.js")
THEME = """const light = frameElement?.ownerDocument.body.dataset.jpThemeLight;
document.documentElement.style.colorScheme = {true: "light", false: "dark"}[light] ?? "light dark";"""
"""Gives the page of a clip the theme of the notebook around it, or else that of the browser."""


class Player(AnyWidget):
    """The state of `player.js`. It is empty without a clip."""

    _esm, _css = MODULE, PANEL_CSS
    clip = Dict(help="name, size, frames and time line").tag(sync=True)
    votes = Dict(help="the votes of each head, with the probability of every action").tag(sync=True)
    offered = List(help="layers that can be switched on, each by a number key").tag(sync=True)
    known = List(list(LAYERS), help="all layers; the pictures are in the traits `pictures of <layer>`").tag(sync=True)
    layers = Dict(help="visible layer -> opacity in 0..1").tag(sync=True)
    frame = Int(help="number of the frame, from 0; while the clip plays the page sends it now and then").tag(sync=True)
    map_action = Unicode(help="the action of the maps; empty: the predicted one").tag(sync=True)
    verdict = Unicode(help="HTML: the test of order").tag(sync=True)
    saved = Unicode(help="HTML: the file that was saved").tag(sync=True)

    def __init__(self) -> None:
        self.add_traits(**{f"pictures of {name}": Dict().tag(sync=True) for name in LAYERS})
        super().__init__()

    def show_clip(self, clip: Clip | None, reading: Reading | None, unread: str) -> None:
        """Show another clip, or none. Its pictures follow by `draw`.

        Args:
            clip: None makes the player empty.
            reading: the votes of a network, or None.
            unread: HTML that says why there are no votes.
        """
        with self.hold_sync():
            for name in LAYERS:
                setattr(self, f"pictures of {name}", {})
            self.clip = _clip_state(clip, reading) if clip else {}
            self.votes = _votes_state(clip, reading) if clip and reading else {"unread": unread}
            heads = reading.votes if reading else {}
            self.offered = [
                {"name": name, "label": label, "opacity": opacity, "above": BELOW_TO_ABOVE.index(name)}
                for name, (label, opacity) in LAYERS.items()
                if not head_of(name) or head_of(name) in heads
            ]
            if clip:
                self.frame = min(self.frame, len(clip.frames) - 1)

    def draw(self, name: str, layer: Painted, first: int) -> Iterator[float]:
        """Send the pictures of a layer, first those around the frame `first`. Yield the share that is ready."""
        order = sorted(range(len(layer.numbers)), key=lambda i: abs(i - first))
        order = list(dict.fromkeys(layer.numbers[i] for i in order))
        data: list[bytes | None] = [None] * (max(order) + 1)
        for done, number in enumerate(order, 1):
            data[number] = pictures.for_page(layer.paint(number))
            if done in PORTIONS or done == len(order):
                ready = {"numbers": list(layer.numbers), "where": layer.where, "smooth": layer.smooth}
                setattr(self, f"pictures of {name}", ready | {"data": list(data)})
            yield done / len(order)

    def pictures_of(self, name: str) -> list[bytes]:
        """The pictures of a layer that the page has."""
        return [each for each in getattr(self, f"pictures of {name}").get("data", ()) if each]

    def page(self) -> HTML:
        """The clip with its layers as a page that needs no kernel, for the output of a cell."""
        layers = [f"pictures of {name}" for name in LAYERS]
        state = self.get_state(["clip", "votes", "layers", "frame", "known", "map_action", *layers])
        state |= {layer: _as_text(state[layer]) for layer in layers}
        offered = [each for each in self.offered if self.pictures_of(each["name"])]
        data = json.dumps(state | {"offered": offered, "verdict": "", "saved": ""}).replace("</", "<\\/")
        fit = "if (frameElement) frameElement.style.height = `${document.documentElement.scrollHeight + 4}px`"
        page = (
            f"<!doctype html><meta charset=utf-8><title>{escape(self.clip['name'])}</title><style>{PANEL_CSS}"
            ":root { background: Canvas } body { margin: 0 }</style><body><div id=clip></div>"
            f"<script type=module>{MODULE}\n{THEME}\n"
            f"player({{model: offline({data}), el: document.getElementById('clip')}});\n"
            f"new ResizeObserver(() => {{ {fit} }}).observe(document.body);</script>"
        )
        frame = f'<iframe srcdoc="{escape(page, quote=True)}" style="border:0;width:100%;height:760px"></iframe>'
        return HTML(f"<div>{frame}</div>")  # without the div, IPython would advise an IFrame, which needs a file


def _clip_state(clip: Clip, reading: Reading | None) -> dict[str, Any]:
    """The trait `clip`."""
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


def _votes_state(clip: Clip, reading: Reading) -> dict[str, Any]:
    """The trait `votes`; a head has the vote at each frame, and the probabilities of each vote."""
    heads = [
        {
            "name": head,
            "colour": sketches.HEAD_COLOURS.get(head, "#888"),
            "pairs": len(logits) != len(reading.sampled),
            "votes": [reading.vote(head, index * clip.step) for index in range(len(clip.frames))],
            "probabilities": softmax(logits, axis=1).astype(float).round(4).tolist(),
        }
        for head, logits in reading.votes.items()
    ]
    probabilities = reading.fused.astype(float).round(4).tolist()
    fused = {"colour": sketches.HEAD_COLOURS["late fusion"], "probabilities": probabilities}
    return {"actions": list(reading.actions), "label": clip.label, "heads": heads, "fused": fused}


def _as_text(layer: dict[str, Any]) -> dict[str, Any]:
    """The pictures of a layer in base64."""
    return layer | {"data": [each and base64.b64encode(each).decode() for each in layer.get("data", ())]}
