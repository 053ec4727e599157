"""From segments to indices: the frames and motion fields of the K snippets of a video.

Shapes: K segments, L = STACK motion fields per snippet. A video of N frames has N - 1 fields, and M = N - L valid
starts t, for which all fields t..t+L-1 exist. Indices count from 0.
"""

import numpy as np
from jaxtyping import Integer

from ifttn.vocabulary import STACK, IfttnError


def random_starts(num_frames: int, segments: int, rng: np.random.Generator) -> Integer[np.ndarray, " K"]:
    """A random start in each of K equal spans of the valid starts, in rising order (TSN's training)."""
    valid = num_frames - STACK
    if valid < segments:
        return _even_starts(num_frames, segments)
    edges = -(-np.arange(segments + 1) * valid // segments)
    return rng.integers(edges[:-1], edges[1:])


def centre_starts(num_frames: int, segments: int) -> Integer[np.ndarray, " K"]:
    """The middle start of each of K equal spans of the valid starts, in rising order (TSN's test)."""
    valid = num_frames - STACK
    if valid < segments:
        return _even_starts(num_frames, segments)
    return (2 * np.arange(segments) + 1) * valid // (2 * segments)


def snippet_indices(
    starts: Integer[np.ndarray, " K"], num_frames: int
) -> tuple[Integer[np.ndarray, " K"], Integer[np.ndarray, "K L"]]:
    """The middle frame of each snippet, and its L fields. Beyond an end of the video, the last one is repeated."""
    frames = np.clip(starts + STACK // 2, 0, num_frames - 1)
    fields = np.clip(starts[:, None] + np.arange(STACK), 0, num_frames - 2)
    return frames, fields


def _even_starts(num_frames: int, segments: int) -> Integer[np.ndarray, " K"]:
    # In TSN, all snippets of a short video start at its first frame. Then all differences in TTN would be zero.
    if num_frames < 2:
        raise IfttnError(f"a video of {num_frames} frame(s) has no motion; it needs at least 2")
    first = -(STACK // 2)
    return np.rint(np.linspace(first, first + num_frames - 1, segments)).astype(np.int64)
