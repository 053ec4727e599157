"""The drawings of the studio: the choices for them, their steps, their probabilities, and the gallery.

Shapes: M snippets, H x W pixels, C channels.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from traitlets import Enum, HasTraits, Int, Unicode

from ifttn.insight.deepdraw import DrawingStep
from ifttn.insight.drawing_settings import DRAWING_PRESETS, Settings
from ifttn.insight.order import SUCCESS, probabilities
from ifttn.model.network import Network
from ifttn.vocabulary import MODALITIES, STACK
from lab.figures import flow_colours
from lab.sketches import breakable

TILES = ("A: frame", "B: frame", "A: motion", "B: motion")
OPTIONS: dict[str, dict[str, float]] = {
    "length": {"¼": 0.25, "½": 0.5, "of the recipe": 1, "twice": 2, "four times": 4},
    "seeds": {"1": 1, "best of 3": 3, "best of 6": 6},
}
"""The number of steps relative to the recipe, and the number of seeds. Of several seeds, the best drawing is shown."""


class StudioState(HasTraits):
    """All that a person chooses."""

    dataset = Unicode()
    split = Int(1)
    run = Unicode()
    action = Unicode()
    head = Unicode()
    settings = Unicode(help="one of DRAWING_PRESETS")
    seed = Int(0)
    seeds = Enum(tuple(OPTIONS["seeds"].values()), 1)
    length = Enum(tuple(OPTIONS["length"].values()), 1)

    def drawing_settings(self) -> Settings:
        """The chosen preset with the chosen length."""
        plain = DRAWING_PRESETS[self.settings]
        octaves = tuple(replace(octave, steps=max(1, round(octave.steps * self.length))) for octave in plain.octaves)
        return replace(plain, octaves=octaves)

    @property
    def in_words(self) -> str:
        """The length in words; empty: the length of the recipe."""
        words = {each: text for text, each in OPTIONS["length"].items()}
        return "" if self.length == 1 else f"steps {words[self.length]}"


@dataclass
class Drawing:
    """One drawing with all its steps so far."""

    title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    """All settings that are needed to repeat the drawing."""
    denoised: bool = False
    step: DrawingStep | None = None
    """The latest step."""
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """One of "logit", "p(A,B)", "p(B,A)", "witness p(A,B)", "witness p(B,A)" -> its (step, value)."""
    seen: dict[int, list[bytes]] = field(default_factory=dict)
    """Shown step -> JPEG of each of TILES; empty for tiles that the head does not draw."""

    @property
    def rating(self) -> float:
        """The last probability of the action, by the witness if there is one."""
        return self.curves.get("witness p(A,B)", self.curves["p(A,B)"])[-1][1]

    def add(self, curve: str, value: float) -> None:
        """Add a value of the latest step to a curve."""
        assert self.step is not None
        self.curves.setdefault(curve, []).append((self.step.step, value))

    def add_swap(self, network: Network, witness: Network | None, action: int, head: str) -> None:
        """Add the probability of the action for the swapped pair, and those of a witness for both orders."""
        drawn = self.step
        if drawn is None or drawn.rgb is None or drawn.motion is None or len(drawn.rgb) < 2:
            return
        pair = dict(zip(network.settings.modalities, (drawn.rgb, drawn.motion), strict=True))
        self.add("p(B,A)", probabilities(network, pair, head)[1, action].item())
        if witness is not None:
            in_order, swapped = probabilities(witness, pair, head)[:, action].tolist()
            self.add("witness p(A,B)", in_order)
            self.add("witness p(B,A)", swapped)


@dataclass(frozen=True)
class KeptDrawing:
    """A drawing in the studio's gallery."""

    path: Path
    title: str
    """It has the settings that are needed to repeat the drawing."""
    tiles: tuple[bytes, ...]
    """PNG of each of TILES; empty for tiles that the head does not draw."""
    outcome: str
    swapped: float | None
    """Probability of the action for the swapped pair."""
    witness: float | None
    """Probability of the action by a network of another split."""


def outcome(drawn: DrawingStep) -> str:
    """The probability of the action by the network that drew it, and a note if a finished drawing failed."""
    failed = drawn.step == drawn.steps and drawn.probability < SUCCESS
    return f"{'this drawing did not succeed: ' if failed else ''}p = {drawn.probability:.2f}"


def next_number(folder: Path) -> int:
    """The number of the next drawing in a folder."""
    numbers = [path.name.partition("_")[0] for path in folder.glob("*_*.png")]
    return 1 + max((int(number) for number in numbers if number.isdecimal()), default=0)


def tiles(drawn: DrawingStep) -> list[np.ndarray | None]:
    """The pictures of TILES; None for tiles that the head does not draw."""
    rgb = [] if drawn.rgb is None else list(_as_bytes(drawn.rgb).transpose(0, 2, 3, 1))
    motion = [] if drawn.motion is None else list(_in_colours(_as_bytes(drawn.motion)))
    return [*rgb, None, None][:2] + [*motion, None, None][:2]


def _in_colours(motion: UInt8[np.ndarray, "M C H W"]) -> UInt8[np.ndarray, "M H W 3"]:
    """The mean field of each snippet as colours of direction, or the mean of RGB differences as it is."""
    if motion.shape[1] != MODALITIES["rgbdiff"].channels:
        return flow_colours(motion)
    differences = motion.reshape(len(motion), STACK, 3, *motion.shape[2:])
    return np.rint(differences.mean(1)).astype(np.uint8).transpose(0, 2, 3, 1)


def _as_bytes(images: Tensor) -> UInt8[np.ndarray, "M C H W"]:
    return images.detach().clamp(0, 255).round().byte().cpu().numpy()


def tile_html(pictures: Sequence[bytes], width: int) -> str:
    """The PNGs of TILES as images of a width (px) under their names."""
    images = []
    for name, png in zip(TILES, pictures, strict=True):
        data = base64.b64encode(png).decode()
        image = f"<img width={width} alt='{escape(name)}' src='data:image/png;base64,{data}'>"
        if png:
            images.append(f"<div><small style='display:block'>{name}</small>{image}</div>")
    return "".join(images)


def card(kept: KeptDrawing) -> str:
    """A kept drawing with its caption."""
    swapped = "" if kept.swapped is None else f", swapped {kept.swapped:.2f}"
    swapped += "" if kept.witness is None else f", by the witness {kept.witness:.2f}"
    return (
        "<figure style='max-width:252px'><div style='display:flex;flex-wrap:wrap;gap:4px'>"
        f"{tile_html(kept.tiles, 124)}</div><figcaption><small>{escape(kept.title)}: {kept.outcome}{swapped}.<br>"
        f"{breakable(kept.path.name)}</small></figcaption></figure>"
    )
