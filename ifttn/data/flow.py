"""Optical flow between neighbouring frames, and motion as bytes.

Field t is the motion from frame t to frame t + 1, in pixels along x and y. Optical flow lies at the pixels of the
earlier frame: what is at (x, y) in frame t is at (x + u, y + v) in frame t + 1. A codec's motion vectors lie at the
later one: what is at (x, y) in frame t + 1 was at (x - u, y - v) in frame t. So both have the same sign, and differ by
one step of the motion in where they draw an edge.

Every flow sees luminance only. T frames have T - 1 fields; M fields are those that were asked for.
"""

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float32, Integer, Num, UInt8

from ifttn.data.tvl1 import FAST, OPENCV, CoarseToFine
from ifttn.memory import Pieces
from ifttn.vocabulary import IfttnError

Starts = Integer[np.ndarray, " M"]


class Flow(Protocol):
    """Luminance (T, H, W) in 0..255 -> fields (M, 2, H, W) in pixels."""

    def __call__(self, images: np.ndarray, starts: np.ndarray, /, device: str = "cpu") -> np.ndarray:
        """`starts` are the earlier frames t of the fields. `device` is one that `device_for` returned."""
        ...


def dis(images: UInt8[np.ndarray, "T H W"], starts: Starts, device: str = "cpu") -> Float32[np.ndarray, "M 2 H W"]:
    """Dense inverse search (Kroeger et al. 2016, OpenCV's medium preset)."""
    search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    fields = np.empty((len(starts), 2, *images.shape[1:]), np.float32)
    zero = np.zeros((*images.shape[1:], 2), np.float32)  # not the last field: a cut would spoil the next
    for field, t in zip(fields, starts, strict=True):
        field[:] = search.calc(images[t], images[t + 1], zero.copy()).transpose(2, 0, 1)
    return fields


def tvl1(
    images: UInt8[np.ndarray, "T H W"], starts: Starts, device: str = "cpu", pyramid: CoarseToFine = OPENCV
) -> Float32[np.ndarray, "M 2 H W"]:
    """TV-L1 (Zach et al. 2007) with OpenCV's defaults, the flow of TSN and of the paper: see `ifttn.data.tvl1`."""
    if device == "cpu":
        from ifttn.data.tvl1_cpu import Solver

        solver = Solver(*images.shape[1:], pyramid=pyramid)
        fields = np.empty((len(starts), 2, *images.shape[1:]), np.float32)
        for field, t in zip(fields, starts, strict=True):
            field[:] = solver(images[t].astype(np.float32), images[t + 1].astype(np.float32))
        return fields
    import torch

    from ifttn.data.tvl1_triton import solve

    there = torch.from_numpy(images).to(device)
    return solve(there[starts], there[starts + 1], pyramid).cpu().numpy()


FLOWS: Mapping[str, Flow] = {"tvl1": tvl1, "tvl1-fast": partial(tvl1, pyramid=FAST), "dis": dis}
"""The paper's; the same on three levels, each half the next, with three warps, for small frames; a preview."""


def device_for(name: str, device: str) -> str:
    """Where the flow of this name is computed if `device` ("cpu", "cuda", "cuda:1") is wanted: there, or on the CPU.

    Raises:
        IfttnError: there is no flow of this name.
    """
    if name not in FLOWS:
        raise IfttnError(f"unknown optical flow {name}; choose from {', '.join(FLOWS)}")
    # Triton has no wheels for macOS and Windows, and OpenCV's DIS knows no GPU.
    return device if device.startswith("cuda") and name != "dis" and find_spec("triton") else "cpu"


def flow_of(
    name: str, frames: UInt8[np.ndarray, "T H W *rgb"], device: str = "cpu", starts: Starts | None = None
) -> Float32[np.ndarray, "M 2 H W"]:
    """The fields between neighbouring frames, in pixels, by a flow of FLOWS.

    Where the memory of the device does not suffice for all of them, it computes fewer pairs at once.

    Args:
        name: of the flow.
        frames: RGB (T, H, W, 3) or luminance (T, H, W), in 0..255.
        device: "cpu", "cuda", "cuda:1", ...
        starts: the earlier frames of the fields; by default all frames but the last.

    Raises:
        IfttnError: there is no such flow, or memory does not suffice for a single pair.
    """
    device = device_for(name, device)
    starts = np.arange(len(frames) - 1) if starts is None else starts
    if not len(starts):
        return np.empty((0, 2, *frames.shape[1:3]), np.float32)
    images = luminance(frames) if frames.ndim == 4 else frames

    def compute(part: slice) -> Float32[np.ndarray, "m 2 H W"]:
        first = int(starts[part].min())
        return FLOWS[name](images[first : int(starts[part].max()) + 2], starts[part] - first, device=device)

    pieces = Pieces(len(starts), f"pair of {frames.shape[2]} x {frames.shape[1]} pixels")
    fields = list(pieces(compute, len(starts)))
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
