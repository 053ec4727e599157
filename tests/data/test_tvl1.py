import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

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


@pytest.mark.skipif(not find_spec("triton"), reason="Triton has no wheel for this platform")
@pytest.mark.parametrize("pyramid", NAMES.values(), ids=NAMES)
def test_the_pyramid_on_a_gpu_with_the_steps_of_the_reference_gives_its_flow(pyramid, monkeypatch):
    from ifttn.data import tvl1_triton

    for step in ("linearise", "median", "relax"):
        monkeypatch.setattr(tvl1_triton, step, getattr(tvl1_reference, step))
    first, second = torch.from_numpy(Motion("turn", (1.0, 0.5), degrees=1.0).pair(60, 80)).float()[:, None]
    flow = tvl1_triton._solve_chunk(first, second, pyramid)
    assert (flow - tvl1_reference.solve(first, second, pyramid)).abs().max() < 1e-3


TRITON = """
import torch
from ifttn.bench.flow import Motion
from ifttn.data import tvl1_triton
from tests.data import tvl1_reference
tvl1_triton.INNER = 4  # the interpreter is slow
flow = torch.randn(2, 2, 14, 22, generator=torch.Generator().manual_seed(0))
one, both = torch.tensor([True, False]), torch.tensor([True, True])
assert torch.equal(tvl1_triton.median(flow, one), tvl1_reference.median(flow, one))
first, second = torch.from_numpy(Motion("pan", (1.0, 0.5)).pair(14, 22)).float()[:, None].repeat(1, 2, 1, 1)
planes = tvl1_reference.with_gradient(second)
data = tvl1_reference.linearise(first, planes, flow)
torch.testing.assert_close(tvl1_triton.linearise(first, planes, flow), data, rtol=1e-4, atol=1e-3)
still = 0 * flow
data = tvl1_reference.linearise(first, planes, still)
data[1] = 0  # nothing to do for the second pair: it ends with its first iteration
for start, live in ((0.1 * flow, one), (still, both)):
    dual = torch.zeros(2, 4, 14, 22)
    theirs = tvl1_reference.relax(start, dual, data, live, most=4)
    ours = tvl1_triton.relax(start.clone(), dual.clone(), data, live)
    assert theirs[2].tolist() == [True, False]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow  # Triton's interpreter is
@pytest.mark.skipif(not find_spec("triton"), reason="Triton has no wheel for this platform")
def test_triton_kernels_do_what_the_reference_does():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", TRITON], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore::UserWarning")  # Triton's about its own future defaults
def test_the_gpu_agrees_with_the_cpu():
    images = np.concatenate([Motion("pan", (i - 2.0, 1.0)).pair(96, 131) for i in range(5)])
    starts = np.arange(0, 10, 2)
    flow = flow_of("tvl1", images, "cuda", starts)
    assert np.abs(flow - flow_of("tvl1", images, "cpu", starts)).mean() < 2e-3
    np.testing.assert_array_equal(flow_of("tvl1", images, "cuda", starts), flow)
