"""Optical flow between neighbouring frames, and motion as bytes."""

from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from typing import Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Num, UInt8

from ifttn.data.tvl1 import FAST, OPENCV, CoarseToFine, tvl1
from ifttn.memory import Pieces
from ifttn.vocabulary import IfttnError

__all__ = ["FLOWS", "Flow", "dis", "flow_of", "from_bytes", "luminance", "to_bytes", "tvl1"]


class Flow(Protocol):
    """RGB frames (T, H, W, 3) -> fields (T-1, 2, H, W): pixels along x and y from frame t to frame t + 1."""

    def __call__(self, frames: np.ndarray, /, device: str = "cpu") -> np.ndarray:
        """On a device: "cpu", "cuda", "cuda:1", ..."""
        ...


def dis(frames: UInt8[np.ndarray, "T H W 3"], device: str = "cpu") -> Float32[np.ndarray, "T-1 2 H W"]:
    """Dense inverse search (Kroeger et al. 2016, OpenCV's medium preset), on the CPU whatever the device."""
    search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    fields = np.empty((len(frames) - 1, 2, *frames.shape[1:3]), np.float32)
    start = np.zeros((*frames.shape[1:3], 2), np.float32)  # not the last field: a cut would spoil the next
    for field, (earlier, later) in zip(fields, pairwise(luminance(frames)), strict=True):
        field[:] = search.calc(earlier, later, start.copy()).transpose(2, 0, 1)
    return fields


def tvl1_of_video(
    frames: UInt8[np.ndarray, "T H W 3"], device: str = "cpu", pyramid: CoarseToFine = OPENCV
) -> Float32[np.ndarray, "T-1 2 H W"]:
    """TV-L1 (Zach et al. 2007) with OpenCV's defaults, the flow of TSN and of the paper: see `ifttn.data.tvl1`."""
    images = torch.from_numpy(luminance(frames)).to(device)
    return tvl1(images[:-1], images[1:], pyramid=pyramid).cpu().numpy()


FLOWS: Mapping[str, Flow] = {"tvl1": tvl1_of_video, "tvl1-fast": partial(tvl1_of_video, pyramid=FAST), "dis": dis}
"""The paper's; the same on three levels, each half the next, with three warps, for small frames; a preview."""


def flow_of(name: str, frames: UInt8[np.ndarray, "T H W 3"], device: str = "cpu") -> Float32[np.ndarray, "T-1 2 H W"]:
    """The fields between neighbouring RGB frames, in pixels, by a flow of FLOWS.

    Where the memory of the device does not suffice for all of them, it computes fewer pairs at once.

    Raises:
        IfttnError: another name, or memory does not suffice for a single pair.
    """
    if name not in FLOWS:
        raise IfttnError(f"unknown optical flow {name}; choose from {', '.join(FLOWS)}")
    pairs = len(frames) - 1
    pieces = Pieces(pairs, f"pair of {frames.shape[2]} x {frames.shape[1]} pixels")
    fields = list(pieces(lambda part: FLOWS[name](frames[part.start : part.stop + 1], device=device), max(1, pairs)))
    return fields[0] if len(fields) == 1 else np.concatenate(fields)


def luminance(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H W"]:
    """.299 R + .587 G + .114 B."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def to_bytes(field: Num[np.ndarray, "*shape"], bound: float) -> UInt8[np.ndarray, "*shape"]:
    """Displacements in pixels as bytes: zero is exactly 128, +-bound is 255 and 1, and more than that saturates."""
    return np.clip(np.rint(128 + 127 / bound * field), 1, 255).astype(np.uint8)


def from_bytes(levels: UInt8[np.ndarray, "*shape"], bound: float) -> Float32[np.ndarray, "*shape"]:
    """The displacements in pixels, to within half a level of bound / 127."""
    return (levels.astype(np.float32) - 128) * np.float32(bound / 127)
