"""Optical flow between neighbouring frames, and motion as bytes."""

from collections.abc import Callable, Mapping
from itertools import pairwise

import cv2
import numpy as np
from jaxtyping import Float32, Num, UInt8

Flow = Callable[[np.ndarray], np.ndarray]


def dis(frames: UInt8[np.ndarray, "T H W 3"]) -> Float32[np.ndarray, "T-1 2 H W"]:
    """Dense inverse search (Kroeger et al. 2016, OpenCV's medium preset): pixels along x and y from t to t + 1."""
    search = cv2.DISOpticalFlow.create(cv2.DISOpticalFlow_PRESET_MEDIUM)
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    fields = np.empty((len(frames) - 1, 2, *frames.shape[1:3]), np.float32)
    start = np.zeros((*frames.shape[1:3], 2), np.float32)  # not the last field: a cut would spoil the next
    for field, (earlier, later) in zip(fields, pairwise(grey), strict=True):
        field[:] = search.calc(earlier, later, start.copy()).transpose(2, 0, 1)
    return fields


FLOWS: Mapping[str, Flow] = {"dis": dis}


def to_bytes(field: Num[np.ndarray, "*shape"], bound: float) -> UInt8[np.ndarray, "*shape"]:
    """Displacements in pixels as bytes: zero is exactly 128, +-bound is 255 and 1, and more than that saturates."""
    return np.clip(np.rint(128 + 127 / bound * field), 1, 255).astype(np.uint8)


def from_bytes(levels: UInt8[np.ndarray, "*shape"], bound: float) -> Float32[np.ndarray, "*shape"]:
    """The displacements in pixels, to within half a level of bound / 127."""
    return (levels.astype(np.float32) - 128) * np.float32(bound / 127)
