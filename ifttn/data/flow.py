"""Optical flow between neighbouring frames, and motion as bytes."""

from collections.abc import Mapping
from functools import partial
from typing import Protocol

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Integer, Num, UInt8

from ifttn.data.tvl1 import FAST, OPENCV, CoarseToFine, tvl1
from ifttn.memory import Pieces
from ifttn.vocabulary import IfttnError

__all__ = ["FLOWS", "Flow", "dis", "flow_of", "from_bytes", "luminance", "to_bytes", "tvl1"]


Starts = Integer[np.ndarray, " M"] | None


class Flow(Protocol):
    """RGB frames (T, H, W, 3) -> fields (M, 2, H, W): pixels along x and y from frame t to frame t + 1."""

    def __call__(self, frames: np.ndarray, /, device: str = "cpu", starts: Starts = None) -> np.ndarray:
        """`device` is "cpu", "cuda" or "cuda:1". `starts` are the frames t; by default all but the last."""
        ...


def dis(
    frames: UInt8[np.ndarray, "T H W 3"], device: str = "cpu", starts: Starts = None
) -> Float32[np.ndarray, "M 2 H W"]:
    """Dense inverse search (Kroeger et al. 2016, OpenCV's medium preset), on the CPU whatever the device."""
    images, first = luminance(frames), np.arange(len(frames) - 1) if starts is None else starts
    search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    fields = np.empty((len(first), 2, *frames.shape[1:3]), np.float32)
    start = np.zeros((*frames.shape[1:3], 2), np.float32)  # not the last field: a cut would spoil the next
    for field, t in zip(fields, first, strict=True):
        field[:] = search.calc(images[t], images[t + 1], start.copy()).transpose(2, 0, 1)
    return fields


def tvl1_of_video(
    frames: UInt8[np.ndarray, "T H W 3"], device: str = "cpu", starts: Starts = None, pyramid: CoarseToFine = OPENCV
) -> Float32[np.ndarray, "M 2 H W"]:
    """TV-L1 (Zach et al. 2007) with OpenCV's defaults, the flow of TSN and of the paper: see `ifttn.data.tvl1`."""
    images = torch.from_numpy(luminance(frames)).to(device)
    if starts is None:
        return tvl1(images[:-1], images[1:], pyramid=pyramid).cpu().numpy()
    first = torch.from_numpy(starts).to(device)
    return tvl1(images[first], images[first + 1], pyramid=pyramid).cpu().numpy()


FLOWS: Mapping[str, Flow] = {"tvl1": tvl1_of_video, "tvl1-fast": partial(tvl1_of_video, pyramid=FAST), "dis": dis}
"""The paper's; the same on three levels, each half the next, with three warps, for small frames; a preview."""


def flow_of(
    name: str, frames: UInt8[np.ndarray, "T H W 3"], device: str = "cpu", starts: Starts = None
) -> Float32[np.ndarray, "M 2 H W"]:
    """The fields between neighbouring RGB frames, in pixels, by a flow of FLOWS.

    Where the memory of the device does not suffice for all of them, it computes fewer pairs at once.

    Args:
        name: of the flow.
        frames: RGB in 0..255.
        device: "cpu", "cuda", "cuda:1", ...
        starts: the frames from which to compute it, each to the next; by default all but the last.

    Raises:
        IfttnError: another name, or memory does not suffice for a single pair.
    """
    if name not in FLOWS:
        raise IfttnError(f"unknown optical flow {name}; choose from {', '.join(FLOWS)}")
    first = np.arange(len(frames) - 1) if starts is None else starts
    if not len(first):
        return np.empty((0, 2, *frames.shape[1:3]), np.float32)

    def compute(part: slice) -> Float32[np.ndarray, "m 2 H W"]:
        own = first[part]
        low = own.min(initial=len(frames))
        return FLOWS[name](frames[low : own.max(initial=0) + 2], device=device, starts=own - low)

    pieces = Pieces(len(first), f"pair of {frames.shape[2]} x {frames.shape[1]} pixels")
    fields = list(pieces(compute, max(1, len(first))))
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
