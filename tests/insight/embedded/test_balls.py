import cv2
import numpy as np

from ifttn.data import diagnostic, sampling
from ifttn.insight.embedded.balls import ball_regions


def test_the_masks_of_the_balls_lie_on_the_frames_that_the_test_snippets_show():
    row = diagnostic.plan_videos("ucf", 16, seed=3).iloc[5]
    regions = ball_regions(row, 4, (72, 96))
    starts = sampling.centre_starts(int(row.frames), 4)
    frames, _ = sampling.snippet_indices(starts, int(row.frames))
    film = diagnostic.render(row)[frames]
    assert {name: of.shape for name, of in regions.items()} == dict.fromkeys(
        ("red ball", "blue ball", "balls", "background"), (4, 72, 96)
    )
    np.testing.assert_array_equal(regions["balls"], ~regions["background"])
    small = np.stack([cv2.resize(frame, (96, 72), interpolation=cv2.INTER_AREA) for frame in film]).astype(int)
    redness = small[..., 0] - small[..., 2]
    assert redness[regions["red ball"]].mean() > 60
    assert redness[regions["blue ball"]].mean() < -60
