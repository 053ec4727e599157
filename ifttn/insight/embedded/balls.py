"""The balls of the embedded data set on the frames of a video's test snippets. Shapes: K segments, H x W pixels."""

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Bool

from ifttn.data import diagnostic, sampling


def ball_regions(row: pd.Series, segments: int, size: tuple[int, int]) -> dict[str, Bool[np.ndarray, "K H W"]]:
    """Red ball, blue ball, both, and background, on the frames of a video's test snippets.

    Args:
        row: of the video, in the data set's table of factors (`diagnostic.factors`).
        segments: K.
        size: height and width of the stored frames.
    """
    frames, _ = sampling.snippet_indices(sampling.centre_starts(int(row.frames), segments), int(row.frames))
    masks = diagnostic.ball_masks(row)[frames].astype(np.float32)  # (K, 2, h, w)
    resized = [
        cv2.resize(mask, size[::-1], interpolation=cv2.INTER_AREA) for mask in masks.reshape(-1, *masks.shape[2:])
    ]
    balls = (np.stack(resized) >= 0.5).reshape(segments, 2, *size)
    both = np.asarray(balls.any(1))
    return {"red ball": balls[:, 0], "blue ball": balls[:, 1], "balls": both, "background": ~both}
