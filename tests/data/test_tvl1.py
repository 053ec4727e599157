import numpy as np
import pytest
import torch

from ifttn.bench.flow import Motion, distance
from ifttn.data.flow import flow_of
from ifttn.data.tvl1 import FAST, OPENCV, bytes_moved
from tests.data import tvl1_reference

HEIGHT, WIDTH = 60, 80
NAMES = {"tvl1": OPENCV, "tvl1-fast": FAST}


@pytest.mark.parametrize(
    "motion",
    [
        Motion("pan", (2.5, -1.0)),
        Motion("pan", (-3.0, 2.0)),
        Motion("zoom in", zoom=1.03),
        Motion("zoom out", zoom=0.97),
        Motion("clockwise", degrees=2.0),
        Motion("counter-clockwise", degrees=-2.0),
        Motion("all at once", (1.0, 1.0), 1.02, 1.5),
    ],
    ids=lambda motion: motion.name,
)
def test_a_known_motion_is_found_in_size_and_direction(motion):
    flow = flow_of("tvl1", motion.pair(HEIGHT, WIDTH))[0]
    truth = motion.flow(HEIGHT, WIDTH)
    assert np.hypot(*truth).mean() > 0.6
    assert np.hypot(*(flow - truth))[8:-8, 8:-8].mean() < 0.06
    assert distance(flow, truth) < 0.15


@pytest.mark.parametrize(("shift", "limit"), [((0.6, -0.3), 0.06), ((3.0, 2.0), 0.06), ((-4.5, 1.5), 0.12)])
def test_the_fast_pyramid_finds_the_motion_of_small_frames(shift, limit):
    motion = Motion("pan", shift)
    flow = flow_of("tvl1-fast", motion.pair(72, 96))[0]
    assert np.hypot(*(flow - motion.flow(72, 96)))[8:-8, 8:-8].mean() < limit


def test_no_motion_is_no_flow():
    still, _ = Motion("pan", (1.0, 1.0)).pair(HEIGHT, WIDTH)
    assert np.abs(flow_of("tvl1", np.stack([still, still]))).max() < 1e-4


@pytest.mark.parametrize("level", [0, 128, 255])
def test_images_without_texture_have_no_flow(level):
    image = np.full((40, 50), level, np.uint8)
    assert np.abs(flow_of("tvl1", np.stack([image, image]))).max() == 0
    assert np.isfinite(flow_of("tvl1", np.stack([image, 255 - image]))).all()


@pytest.mark.parametrize(("height", "width"), [(60, 80), (33, 47), (17, 40), (3, 3), (5, 64)])
@pytest.mark.parametrize("name", NAMES)
def test_the_cpu_agrees_with_the_reference_at_any_size(name, height, width):
    pair = Motion("pan", (1.2, -0.7)).pair(height, width)
    flow, images = flow_of(name, pair), torch.from_numpy(pair).float()
    assert flow.shape == (1, 2, height, width)
    reference = tvl1_reference.solve(images[:1], images[1:], NAMES[name]).numpy()
    assert np.abs(flow - reference).mean() < 2e-3


def test_pairs_of_a_batch_end_by_themselves_in_the_reference():
    still, moved = torch.from_numpy(Motion("pan", (2.0, 1.0)).pair(40, 50)).float()[:, None]
    both = tvl1_reference.solve(torch.cat([still, still]), torch.cat([moved, still]))
    torch.testing.assert_close(both[:1], tvl1_reference.solve(still, moved), rtol=0, atol=1e-4)
    assert both[1].abs().max() < 1e-4


def test_the_pyramid_is_opencvs():
    assert OPENCV.sizes(256, 340) == [(256, 340), (205, 272), (164, 218), (131, 174), (105, 139)]
    assert OPENCV.sizes(72, 96)[-1] == (30, 40)
    assert OPENCV.sizes(20, 200) == [(20, 200), (16, 160)]


def test_bytes_grow_with_pixels_and_iterations_and_shrink_with_fusion():
    assert bytes_moved(256, 340, iterations=25.0) == pytest.approx(1.68e9, rel=0.01)
    assert bytes_moved(512, 680) == pytest.approx(4 * bytes_moved(256, 340), rel=0.01)
    assert bytes_moved(256, 340, 20.0, fused=10) < bytes_moved(256, 340, 20.0) / 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_agrees_with_the_cpu():
    images = np.concatenate([Motion("pan", (i - 2.0, 1.0)).pair(96, 131) for i in range(5)])
    starts = np.arange(0, 10, 2)
    flow = flow_of("tvl1", images, "cuda", starts)
    assert np.abs(flow - flow_of("tvl1", images, "cpu", starts)).mean() < 2e-3
    np.testing.assert_array_equal(flow_of("tvl1", images, "cuda", starts), flow)
