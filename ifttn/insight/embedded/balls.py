"""The balls and the scene of the embedded data set: their regions in real frames, and whether drawings show them.

Shapes: K segments, S images, H x W pixels.
"""

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Bool, Int, UInt8

from ifttn.data import diagnostic, sampling

BALL_AREA = 0.015, 0.12
"""Smallest and largest share of a frame that a ball covers: a half-hidden ring, and a disc with a blurred rim."""


def ball_regions(row: pd.Series, segments: int, size: tuple[int, int]) -> dict[str, Bool[np.ndarray, "K H W"]]:
    """The regions of the red ball, the blue ball, both balls, and the background, in the frames of a video's test
    snippets.

    Args:
        row: the row of the video in `diagnostic.factors`.
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


def balls_and_scene(
    images: UInt8[np.ndarray, "S H W 3"], flavour: str = "ucf"
) -> tuple[Bool[np.ndarray, "S 2"], Int[np.ndarray, " S"]]:
    """Whether each image shows the red ball and the blue ball, and which scene's hue covers its largest part.

    A pixel belongs to the material with the nearest colour, without luminance. An image shows a ball if the largest
    connected area of the ball's colour is as large as a ball.
    """
    scenes = np.array(list(diagnostic.FLAVOURS[flavour].scenes.values()))
    chroma = images - (images @ np.array((0.299, 0.587, 0.114)))[..., None]
    nearest = np.linalg.norm(chroma[..., None, :] - np.concatenate([diagnostic.COLOURS, scenes]), axis=-1).argmin(-1)
    low, high = (share * images[0, ..., 0].size for share in BALL_AREA)
    areas = [[_largest_area(each == ball) for ball in (0, 1)] for each in nearest]
    found = (np.array(areas) >= low) & (np.array(areas) <= high)
    return found, np.stack([(nearest == 2 + scene).sum((1, 2)) for scene in (0, 1)]).argmax(0)


def _largest_area(mask: Bool[np.ndarray, "H W"]) -> int:
    *_, of_each, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return int(of_each[1:, cv2.CC_STAT_AREA].max(initial=0))
