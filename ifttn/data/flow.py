"""Optical flow between neighbouring frames, and motion as bytes.

Field t is the motion from frame t to frame t + 1, in pixels along x and y. Optical flow belongs to the pixels of the
earlier frame: the point at (x, y) in frame t is at (x + u, y + v) in frame t + 1. A codec's motion vectors belong to
the later frame: the point at (x, y) in frame t + 1 was at (x - u, y - v) in frame t. Both have the same sign, but their
edges are one step of the motion apart.

Every flow uses luminance only. T frames have T - 1 fields; M is the number of requested fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8

from ifttn.data.tvl1 import FAST, OPENCV, CoarseToFine
from ifttn.memory import Pieces
from ifttn.vocabulary import IfttnError

Starts = Integer[np.ndarray, " M"]


class Flow(Protocol):
    """Luminance (T, H, W) in 0..255 -> fields (M, 2, H, W) in pixels."""

    def __call__(self, images: Any, starts: np.ndarray, /, device: str = "cpu") -> Any:
        """`starts` are the earlier frames t of the fields. `device` comes from `device_for`. The fields are on this
        device: an array on a CPU, a tensor on a GPU."""
        ...


class StoredFlow(NamedTuple):
    """Motion fields in the form of a store. They are arrays, or tensors on the GPU that computed them."""

    levels: Any
    """UInt8 (M, 2, H, W): all fields as bytes of `to_bytes`."""
    sampled: Any
    """Float32 (n, 2, H, W): some of the fields in pixels, to measure the error of the bytes."""

    def on_host(self) -> "StoredFlow":
        """The same values as arrays."""
        return StoredFlow(*map(_on_host, self))


def dis(images: UInt8[np.ndarray, "T H W"], starts: Starts, device: str = "cpu") -> Float32[np.ndarray, "M 2 H W"]:
    """Dense inverse search (Kroeger et al. 2016, OpenCV's medium preset)."""
    search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    fields = np.empty((len(starts), 2, *images.shape[1:]), np.float32)
    zero = np.zeros((*images.shape[1:], 2), np.float32)  # not the last field, which is wrong after a cut
    for field, t in zip(fields, starts, strict=True):
        field[:] = search.calc(images[t], images[t + 1], zero.copy()).transpose(2, 0, 1)
    return fields


def tvl1(images: Any, starts: Starts, device: str = "cpu", pyramid: CoarseToFine = OPENCV) -> Any:
    """TV-L1 (Zach et al. 2007) with OpenCV's defaults, the flow of TSN and of the paper: see `ifttn.data.tvl1`.

    On a GPU the images may be a tensor, and the fields are a tensor.
    """
    if device == "cpu":
        from ifttn.data.tvl1_cpu import Solver

        solver = Solver(*images.shape[1:], pyramid=pyramid)
        fields = np.empty((len(starts), 2, *images.shape[1:]), np.float32)
        for field, t in zip(fields, starts, strict=True):
            field[:] = solver(images[t].astype(np.float32), images[t + 1].astype(np.float32))
        return fields
    import torch

    from ifttn.data import tvl1_cuda

    there = torch.as_tensor(images, device=device)
    return tvl1_cuda.solve(there[starts], there[starts + 1], pyramid)


FLOWS: Mapping[str, Flow] = {"tvl1": tvl1, "tvl1-fast": partial(tvl1, pyramid=FAST), "dis": dis}
"""tvl1: the paper's flow. tvl1-fast: the same with three levels, a step of one half and three warps, for small frames.
dis: a fast preview."""


def device_for(name: str, device: str) -> str:
    """The device that computes a flow if `device` ("cpu", "cuda", "cuda:1") is requested: this device, or the CPU.

    Raises:
        IfttnError: no flow has this name.
    """
    if name not in FLOWS:
        raise IfttnError(f"unknown optical flow {name}; choose from {', '.join(FLOWS)}")
    # torch on Linux installs the bindings of CUDA. OpenCV's DIS does not run on a GPU.
    on_gpu = device.startswith("cuda") and name != "dis" and find_spec("cuda") and find_spec("cuda.bindings")
    return device if on_gpu else "cpu"


def flow_of(
    name: str, frames: UInt8[np.ndarray, "T H W *rgb"], device: str = "cpu", starts: Starts | None = None
) -> Float32[np.ndarray, "M 2 H W"]:
    """The fields between neighbouring frames, in pixels, by a flow of FLOWS.

    If the device does not have enough memory for all pairs, it computes fewer pairs at once.

    Args:
        name: name of the flow.
        frames: RGB (T, H, W, 3) or luminance (T, H, W), in 0..255.
        device: "cpu", "cuda", "cuda:1", ...
        starts: the earlier frames of the fields; by default all frames except the last.

    Raises:
        IfttnError: no flow has this name, or the memory is too small for one pair.
    """
    images = luminance(frames) if frames.ndim == 4 else frames
    return np.concatenate([_on_host(fields) for fields in _pieces(name, images, device, starts)])


def stored_flow(
    name: str,
    images: Any,
    bound: float,
    sampled: Integer[np.ndarray, " n"],
    device: str = "cpu",
    starts: Starts | None = None,
) -> StoredFlow:
    """The fields of `flow_of` as bytes. They take a quarter of the size of fields in pixels.

    Args:
        name: name of the flow.
        images: luminance (T, H, W) in 0..255, as an array or a tensor on the device.
        bound: displacement in pixels of byte 255.
        sampled: numbers of the fields that are also returned in pixels, in rising order.
        device: "cpu", "cuda", "cuda:1", ...
        starts: the earlier frames of the fields; by default all frames except the last.

    Raises:
        IfttnError: see `flow_of`.
    """
    levels, kept, first = [], [], 0
    for fields in _pieces(name, images, device, starts):
        levels.append(to_bytes(fields, bound))
        kept.append(fields[sampled[(sampled >= first) & (sampled < first + len(fields))] - first])
        first += len(fields)
    return StoredFlow(concatenated(levels), concatenated(kept))


def _pieces(name: str, images: Any, device: str, starts: Starts | None) -> Iterator[Any]:
    """The fields on the device that computed them, as many at once as its memory allows."""
    device = device_for(name, device)
    starts = np.arange(len(images) - 1) if starts is None else starts
    if not len(starts):
        yield np.empty((0, 2, *images.shape[1:]), np.float32)
        return

    def compute(part: slice) -> Any:
        first = int(starts[part].min())
        return FLOWS[name](images[first : int(starts[part].max()) + 2], starts[part] - first, device=device)

    yield from Pieces(len(starts), f"pair of {images.shape[2]} x {images.shape[1]} pixels")(compute, len(starts))


def _on_host(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def concatenated(parts: Sequence[Any]) -> Any:
    """Join arrays, or tensors of one device, along the first axis."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    import torch

    return torch.cat(list(parts))


def luminance(frames: UInt8[np.ndarray, "T H W 3"]) -> UInt8[np.ndarray, "T H W"]:
    """.299 R + .587 G + .114 B."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def to_bytes(field: Any, bound: float) -> Any:
    """Displacements in pixels (an array or a tensor) as bytes of the same shape.

    Zero becomes exactly 128. +bound becomes 255 and -bound 1, and larger displacements are clipped.
    """
    levels = (128 + 127 / bound * field).round().clip(1, 255)
    return levels.astype(np.uint8) if isinstance(levels, np.ndarray) else levels.byte()


def from_bytes(levels: UInt8[np.ndarray, "*shape"], bound: float) -> Float32[np.ndarray, "*shape"]:
    """Bytes as displacements in pixels. The error is at most half a level of bound / 127."""
    return (levels.astype(np.float32) - 128) * np.float32(bound / 127)
