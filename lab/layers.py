"""The layers that the clip inspector draws over a frame: colours and arrows of motion, and the maps of the heads.

Shapes: T frames shown, V votes, H x W pixels of a picture, s x s pixels of a network's crop.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from ifttn.experiment.scores import LATE_FUSION, OF_PEERS
from lab import pictures
from lab.clip import Clip, Reading
from lab.figures import flow_colours

Paint = Callable[[np.ndarray, int], np.ndarray]
"""(picture, index of the frame shown) -> the picture with a layer over it."""


class Layer(NamedTuple):
    """How a layer is offered."""

    label: str
    opacity: float


LAYERS = {
    "rgb": Layer("RGB", 1.0),
    "flow": Layer("flow colours", 0.7),
    "flow arrows": Layer("flow arrows", 0.9),
    "vectors": Layer("motion vectors", 0.6),
    "vector arrows": Layer("vector arrows", 0.9),
    **{f"CAM {head}": Layer(f"CAM {head}", 0.7) for head in LATE_FUSION if head not in OF_PEERS},
}
"""What can be drawn, from below to above."""
FLOW_INK, VECTOR_INK = (255, 230, 80), (120, 255, 255)
"""Colours of the arrows."""
SHOWN_WIDTH = 400
"""Pixels across a picture, about."""


def head_of(layer: str) -> str:
    """The head whose map a layer is; empty: it is no map."""
    return layer.removeprefix("CAM ") if layer.startswith("CAM ") else ""


def painter(
    clip: Clip, opacities: Mapping[str, float], reading: Reading | None, maps: Mapping[str, Float[np.ndarray, "V s s"]]
) -> Callable[[int], UInt8[np.ndarray, "H W 3"]]:
    """A function that draws the layers over the frame of an index.

    Args:
        clip: its frames and motion.
        opacities: layer -> 0..1, of the layers that are on.
        reading: says which map belongs to a frame.
        maps: head -> maps in -1..1; a head without maps is not drawn.
    """
    height, width = clip.frames.shape[1:3]
    times = max(1, round(SHOWN_WIDTH / width))
    paints = []
    for name in sorted((name for name in LAYERS if name in opacities), key=lambda name: name.endswith("arrows")):
        head = head_of(name)
        if not head:
            paints.append(_motion_paint(clip, name, opacities[name], times))
        elif reading and head in maps:
            paints.append(_map_paint(clip, reading, maps[head], head, opacities[name]))

    def paint(index: int) -> UInt8[np.ndarray, "H W 3"]:
        picture = np.full((times * height, times * width, 3), 24, np.uint8)
        for layer in paints:
            picture = layer(picture, index)
        return picture

    return paint


def _motion_paint(clip: Clip, name: str, opacity: float, times: int) -> Paint:
    """Of the frame itself or of its motion, on a picture that is so many times as large as a frame."""
    height, width = (times * side for side in clip.frames.shape[1:3])
    if name == "rgb":
        return lambda under, i: pictures.blended(under, pictures.resized(clip.frames[i], width, height), opacity)
    if name.endswith("arrows"):
        field, ink = (clip.flow, FLOW_INK) if name == "flow arrows" else (clip.vectors, VECTOR_INK)
        return lambda under, i: pictures.with_arrows(under, times * field[i], opacity, ink)
    smooth = name == "flow"
    levels = clip.levels if smooth else np.clip(128 + 8 * times * clip.vectors, 1, 255)
    colours = flow_colours(levels.astype(np.uint8))
    return lambda under, i: pictures.tinted(under, pictures.resized(colours[i], width, height, smooth=smooth), opacity)


def _map_paint(clip: Clip, reading: Reading, maps: Float[np.ndarray, "V s s"], head: str, opacity: float) -> Paint:
    return lambda under, i: pictures.with_map(under, maps[reading.vote(head, i * clip.step)], opacity, reading.crop)
