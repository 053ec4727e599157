"""A drawing of the studio: how far it is, what networks make of it, and how it is kept and shown.

Shapes: M snippets, H x W pixels, C channels, A actions.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ifttn.experiment.scores import late_fusion
from ifttn.insight import deepdraw
from ifttn.insight.order import SUCCESS
from ifttn.model.network import Network, undisturbed
from ifttn.vocabulary import MODALITIES, STACK
from lab.figures import flow_colours

TILES = ("A: frame", "B: frame", "A: motion", "B: motion")


@dataclass
class Sheet:
    """One drawing, from its first step on: what it is, and how far it is."""

    title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """What it takes to draw it again."""
    denoised: bool = False
    drawn: deepdraw.State | None = None
    """The latest step."""
    said: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Curve -> (step, value): "logit", "p(A,B)", "p(B,A)", and the last two "apart", by another split's network."""

    def say(self, curve: str, value: float) -> None:
        """A value of the latest step."""
        assert self.drawn is not None
        self.said.setdefault(curve, []).append((self.drawn.step, value))


@dataclass(frozen=True)
class Drawing:
    """A drawing that was kept."""

    path: Path
    title: str
    """It says how to draw it again."""
    tiles: tuple[bytes, ...]
    """PNG, of TILES."""
    found: str
    """How likely the action is for the network that drew it."""
    swapped: float | None
    """Probability of the action for the pair in reverse order."""
    apart: float | None
    """Probability of the action by a network of another split."""


def found(drawn: deepdraw.State) -> str:
    """How likely the action is for the network that drew it, and whether a finished drawing did not succeed."""
    failed = drawn.step == drawn.of and drawn.probability < SUCCESS
    return f"{'this drawing did not succeed: ' if failed else ''}p = {drawn.probability:.2f}"


def swap(sheet: Sheet, network: Network, witness: Network | None, asked: tuple[int, str]) -> None:
    """Let the drawing network, and one trained apart, say how likely the action is for the pair and its swap.

    Args:
        sheet: takes down what they say.
        network: that draws.
        witness: trained apart, if there is one.
        asked: index of the action, and the head.
    """
    drawn, (action, head) = sheet.drawn, asked
    if drawn is None or drawn.rgb is None or drawn.motion is None or len(drawn.rgb) < 2:
        return
    pair = dict(zip(network.settings.modalities, (drawn.rgb, drawn.motion), strict=True))
    sheet.say("p(B,A)", probabilities(network, pair, head)[1, action].item())
    if witness is not None:
        forth, back = probabilities(witness, pair, head)[:, action].tolist()
        sheet.say("apart p(A,B)", forth)
        sheet.say("apart p(B,A)", back)


def next_number(folder: Path) -> int:
    """The number of a new drawing: after all that lie there, also those of other days."""
    numbers = [path.name.partition("_")[0] for path in folder.glob("*_*.png")]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


def probabilities(network: Network, pair: Mapping[str, Tensor], head: str) -> Float[Tensor, "2 A"]:
    """Of the pair in order, and of the pair swapped; "fused" is the late fusion of all heads, as it was ascended."""
    both = {modality: torch.stack([x, x.flip(0)]) for modality, x in pair.items()}
    with undisturbed(network), torch.no_grad():
        logits = network(both).logits
    return (late_fusion(logits) if head == "fused" else logits[head]).softmax(1)


def tiles(drawn: deepdraw.State) -> list[np.ndarray | None]:
    """The pictures of TILES; None where the head draws no such thing."""
    rgb = [] if drawn.rgb is None else [_bytes(x).transpose(1, 2, 0) for x in drawn.rgb]
    motion = [] if drawn.motion is None else list(_in_colours(_bytes(drawn.motion)))
    return [rgb[i] if i < len(rgb) else None for i in (0, 1)] + [motion[i] if i < len(motion) else None for i in (0, 1)]


def _in_colours(motion: UInt8[np.ndarray, "M C H W"]) -> UInt8[np.ndarray, "M H W 3"]:
    """The mean of a snippet's fields, by colours of direction; RGB differences have colours of their own."""
    if motion.shape[1] != MODALITIES["rgbdiff"].channels:
        return flow_colours(motion)
    differences = motion.reshape(len(motion), STACK, 3, *motion.shape[2:])
    return np.rint(differences.mean(1)).astype(np.uint8).transpose(0, 2, 3, 1)


def _bytes(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.detach().clamp(0, 255).round().to("cpu", torch.uint8).numpy())


def as_image(name: str, png: bytes, width: int) -> str:
    """A tile, under its name where it is large enough to be looked at by itself."""
    image = f"<img width={width} alt='{escape(name)}' src='data:image/png;base64,{base64.b64encode(png).decode()}'>"
    return f"<div><small style='display:block'>{name}</small>{image}</div>" if width > 150 else image


def card(drawing: Drawing, width: int) -> str:
    """A kept drawing with its caption, each tile `width` pixels wide."""
    images = "".join(
        as_image(name, content, width) for name, content in zip(TILES, drawing.tiles, strict=True) if content
    )
    swapped = "" if drawing.swapped is None else f", swapped {drawing.swapped:.2f}"
    swapped += "" if drawing.apart is None else f", apart {drawing.apart:.2f}"
    return (
        f"<figure style='max-width:{2 * width + 8}px'><div style='display:flex;flex-wrap:wrap;gap:4px'>{images}</div>"
        f"<figcaption><small>{escape(drawing.title)}: {drawing.found}{swapped}.<br>"
        f"{escape(drawing.path.name)}</small></figcaption>"
        "</figure>"
    )
