import os
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ifttn.bench.flow import Motion, distance
from ifttn.data.tvl1 import FAST, OPENCV, bytes_moved, solve, tvl1
from ifttn.vocabulary import IfttnError

HEIGHT, WIDTH = 60, 80


def pair_of(motion: Motion, height: int = HEIGHT, width: int = WIDTH) -> tuple[torch.Tensor, torch.Tensor]:
    pair = torch.from_numpy(motion.pair(height, width))
    return pair[:1], pair[1:]


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
    flow = tvl1(*pair_of(motion))[0].numpy()
    truth = motion.flow(HEIGHT, WIDTH)
    assert np.hypot(*truth).mean() > 0.6
    assert np.hypot(*(flow - truth))[8:-8, 8:-8].mean() < 0.06
    assert distance(flow, truth) < 0.15


@pytest.mark.parametrize(("shift", "limit"), [((0.6, -0.3), 0.06), ((3.0, 2.0), 0.06), ((-4.5, 1.5), 0.12)])
def test_the_fast_pyramid_finds_the_motion_of_small_frames(shift, limit):
    motion = Motion("pan", shift)
    flow = tvl1(*pair_of(motion, 72, 96), pyramid=FAST)[0].numpy()
    assert np.hypot(*(flow - motion.flow(72, 96)))[8:-8, 8:-8].mean() < limit


def test_no_motion_is_no_flow():
    still, _ = pair_of(Motion("pan", (1.0, 1.0)))
    assert tvl1(still, still).abs().max() < 1e-4


@pytest.mark.parametrize("level", [0, 128, 255])
def test_images_without_texture_have_no_flow(level):
    image = torch.full((1, 40, 50), level, dtype=torch.uint8)
    assert tvl1(image, image).abs().max() == 0
    assert tvl1(image, 255 - image).isfinite().all()


def test_a_batch_is_its_pairs_one_by_one_and_threads_change_nothing():
    motions = Motion("pan", (2.0, 1.0)), Motion("zoom", zoom=1.02), Motion("turn", degrees=1.0)
    pairs = [pair_of(motion) for motion in motions]
    previous, following = (torch.cat(images) for images in zip(*pairs, strict=True))
    together = tvl1(previous, following)
    torch.testing.assert_close(together, torch.cat([tvl1(*pair) for pair in pairs]), rtol=0, atol=0)
    torch.testing.assert_close(together, tvl1(previous, following, threads=2), rtol=0, atol=0)
    torch.testing.assert_close(together, tvl1(previous.float(), following.float()), rtol=0, atol=0)


@pytest.mark.parametrize(("height", "width"), [(60, 80), (33, 47), (17, 40), (3, 3), (5, 64)])
def test_numba_and_torch_agree_at_any_size(height, width):
    previous, following = pair_of(Motion("pan", (1.2, -0.7)), height, width)
    ours, reference = tvl1(previous, following), solve(previous.float(), following.float())
    fast = tvl1(previous, following, pyramid=FAST), solve(previous.float(), following.float(), FAST)
    assert (fast[0] - fast[1]).abs().mean() < 2e-3
    assert ours.shape == (1, 2, height, width)
    assert (ours - reference).abs().mean() < 2e-3


def test_pairs_of_a_batch_end_by_themselves_in_torch_too():
    still, moved = pair_of(Motion("pan", (2.0, 1.0)), 40, 50)
    both = solve(torch.cat([still, still]).float(), torch.cat([moved, still]).float())
    torch.testing.assert_close(both[:1], solve(still.float(), moved.float()), rtol=0, atol=1e-4)
    assert both[1].abs().max() < 1e-4


def test_no_pairs_have_no_flow():
    assert tvl1(torch.zeros(0, 20, 30), torch.zeros(0, 20, 30)).shape == (0, 2, 20, 30)


@pytest.mark.parametrize(
    ("previous", "following", "message"),
    [
        (torch.zeros(20, 30), torch.zeros(20, 30), r"previous is float32 \(20, 30\).*\(B, H, W\)"),
        (torch.zeros(1, 20, 30), torch.zeros(1, 3, 20, 30), r"following is float32 \(1, 3, 20, 30\)"),
        (torch.zeros(1, 20, 30), torch.zeros(1, 20, 31), r"\(1, 20, 30\).*\(1, 20, 31\).*do not pair"),
        (torch.zeros(1, 2, 30), torch.zeros(1, 2, 30), "at least 3 x 3"),
        (torch.zeros(1, 20, 30).double(), torch.zeros(1, 20, 30), "uint8 or float32"),
    ],
)
def test_what_cannot_be_a_pair_is_refused_by_name(previous, following, message):
    with pytest.raises(IfttnError, match=message):
        tvl1(previous, following)


def test_the_pyramid_is_opencvs():
    assert OPENCV.sizes(256, 340) == [(256, 340), (205, 272), (164, 218), (131, 174), (105, 139)]
    assert OPENCV.sizes(72, 96)[-1] == (30, 40)
    assert OPENCV.sizes(20, 200) == [(20, 200), (16, 160)]


def test_bytes_grow_with_pixels_and_iterations_and_shrink_with_fusion():
    assert bytes_moved(256, 340, iterations=25.0) == pytest.approx(1.68e9, rel=0.01)
    assert bytes_moved(512, 680) == pytest.approx(4 * bytes_moved(256, 340), rel=0.01)
    assert bytes_moved(256, 340, 20.0, fused=10) < bytes_moved(256, 340, 20.0) / 4


TRITON = """
import torch
from ifttn.bench.flow import Motion
from ifttn.data import tvl1, tvl1_triton
tvl1.INNER = tvl1_triton.INNER = 4  # the interpreter is slow
flow = torch.randn(2, 2, 14, 22, generator=torch.Generator().manual_seed(0))
one, both = torch.tensor([True, False]), torch.tensor([True, True])
assert torch.equal(tvl1_triton.median(flow, one), tvl1.TORCH.median(flow, one))
first, second = torch.from_numpy(Motion("pan", (1.0, 0.5)).pair(14, 22)).float()[:, None].repeat(1, 2, 1, 1)
planes = torch.cat([second[:, None], tvl1._centred(second)], 1)
data = tvl1.TORCH.linearise(first, planes, flow)
torch.testing.assert_close(tvl1_triton.linearise(first, planes, flow), data, rtol=1e-4, atol=1e-3)
still = 0 * flow
data = tvl1.TORCH.linearise(first, planes, still)
data[1] = 0  # nothing to do for the second pair: it ends with its first iteration
for start, live in ((0.1 * flow, one), (still, both)):
    dual = torch.zeros(2, 4, 14, 22)
    theirs = tvl1.TORCH.relax(start, dual, data, live)
    ours = tvl1_triton.relax(start.clone(), dual.clone(), data, live)
    assert theirs[2].tolist() == [True, False]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
"""


@pytest.mark.slow  # Triton's interpreter is
@pytest.mark.skipif(not find_spec("triton"), reason="Triton has no wheel for this platform")
def test_triton_kernels_do_what_torch_does():
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", TRITON], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.filterwarnings("ignore::UserWarning")  # Triton's about its own future defaults
def test_the_gpu_agrees_with_the_cpu():
    pairs = [pair_of(Motion("pan", (i - 2.0, 1.0)), 96, 131) for i in range(5)]
    previous, following = (torch.cat(images) for images in zip(*pairs, strict=True))
    flow = tvl1(previous.cuda(), following.cuda())
    assert flow.is_cuda
    assert (flow.cpu() - tvl1(previous, following)).abs().mean() < 2e-3
    assert (solve(previous.cuda().float(), following.cuda().float()) - flow).abs().mean() < 2e-3
    assert torch.equal(tvl1(previous.cuda(), following.cuda()), flow)
