import shutil
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from ifttn.data import augmentation
from ifttn.data.augmentation import Crop, apply, fit_on_device, random_crop
from ifttn.data.cuda_kernels import machine_code
from ifttn.vocabulary import IfttnError
from tests.data.cuda_on_cpu import OnCpu

SCALES = (1.0, 0.875, 0.75)
SIZES = st.integers(24, 400)


def planes(*shape: int, seed: int = 0, low: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, shape, dtype=np.uint8)


@given(SIZES, SIZES, st.integers(16, 256), st.integers(0, 2**32))
def test_a_random_crop_lies_inside_the_frame(height, width, size, seed):
    crop = random_crop(height, width, size, SCALES, np.random.default_rng(seed))
    assert crop.top >= 0
    assert crop.left >= 0
    assert crop.top + crop.height <= height
    assert crop.left + crop.width <= width
    assert max(crop.height, crop.width) <= min(height, width)


def test_random_crops_are_tsn_s():
    rng = np.random.default_rng(0)
    crops = [random_crop(256, 340, 224, (1.0, 0.875, 0.75, 0.66), rng) for _ in range(4000)]
    sides = [256, 224, 192, 168]
    shapes = {(crop.height, crop.width) for crop in crops}
    assert shapes == {(a, b) for i, a in enumerate(sides) for j, b in enumerate(sides) if abs(i - j) <= 1}
    places = {(crop.top, crop.left) for crop in crops if (crop.height, crop.width) == (192, 192)}
    corners_centre_and_edges = {(y, x) for y in (0, 32, 64) for x in (0, 74, 148)}
    assert places == corners_centre_and_edges | {(y, x) for y in (16, 48) for x in (37, 111)}
    assert 0.45 < np.mean([crop.mirrored for crop in crops]) < 0.55


def test_a_side_near_the_size_asked_for_becomes_it():
    rng = np.random.default_rng(0)
    assert random_crop(72, 96, 64, (0.875,), rng).height == 64  # int(0.875 * 72) is 63
    assert random_crop(63, 96, 64, (1.0,), rng).height == 63


@pytest.mark.parametrize(("count", "mirrored"), [(1, 0), (3, 0), (10, 5)])
@pytest.mark.parametrize("frame", [(72, 96), (256, 340), (96, 72), (50, 50)])
def test_test_crops_are_squares_inside_the_frame(count, mirrored, frame):
    height, width = frame
    crops = augmentation.test_crops(height, width, 64, count)
    side = min(64, height, width)
    assert len(crops) == count
    assert sum(crop.mirrored for crop in crops) == mirrored
    for crop in crops:
        assert (crop.height, crop.width) == (side, side)
        assert 0 <= crop.top <= height - side
        assert 0 <= crop.left <= width - side


def test_ten_crops_are_corners_and_centre_and_their_mirrors():
    crops = augmentation.test_crops(72, 96, 64, 10)
    places = [(crop.top, crop.left) for crop in crops]
    assert places == [(0, 0), (0, 32), (8, 0), (8, 32), (4, 16)] * 2


def test_another_number_of_crops_is_an_error():
    with pytest.raises(IfttnError, match="1, 3, 10"):
        augmentation.test_crops(72, 96, 64, 4)


@pytest.mark.parametrize("modality", ["rgb", "flow", "mv", "rgbdiff"])
def test_a_crop_of_the_size_asked_for_copies_the_pixels(modality):
    frames = planes(2, 4, 20, 30)
    np.testing.assert_array_equal(apply(Crop(3, 5, 16, 16), frames, 16, modality), frames[..., 3:19, 5:21])


@given(st.integers(0, 1000))
def test_mirroring_twice_gives_the_same_motion(seed):
    fields = planes(2, 10, 16, 16, seed=seed)
    mirror = Crop(0, 0, 16, 16, mirrored=True)
    np.testing.assert_array_equal(apply(mirror, apply(mirror, fields, 16, "flow"), 16, "flow"), fields)


def test_mirroring_negates_motion_along_x_and_nothing_else():
    fields = planes(3, 10, 16, 16)
    mirrored = apply(Crop(0, 0, 16, 16, mirrored=True), fields, 16, "mv").astype(int)
    swapped = fields[..., ::-1].astype(int)
    np.testing.assert_array_equal(mirrored[:, 0::2] - 128, 128 - swapped[:, 0::2])
    np.testing.assert_array_equal(mirrored[:, 1::2], swapped[:, 1::2])
    frames = planes(3, 3, 16, 16, low=0)
    for modality in ("rgb", "rgbdiff"):
        result = apply(Crop(0, 0, 16, 16, mirrored=True), frames, 16, modality)
        np.testing.assert_array_equal(result, frames[..., ::-1])


def test_no_motion_stays_no_motion_and_the_lowest_byte_does_not_wrap():
    mirror = Crop(0, 0, 8, 8, mirrored=True)
    assert (apply(mirror, np.full((2, 8, 8), 128, np.uint8), 8, "flow") == 128).all()
    assert (apply(mirror, np.zeros((2, 8, 8), np.uint8), 8, "flow")[0] == 255).all()


@pytest.mark.parametrize("mirrored", [False, True])
def test_one_crop_shows_the_same_pixels_in_every_modality(mirrored):
    image = planes(40, 50)
    crop = Crop(4, 7, 30, 24, mirrored)
    rgb = apply(crop, np.stack([image] * 3), 20, "rgb")
    flow = apply(crop, np.stack([image] * 2), 20, "flow")
    np.testing.assert_array_equal(rgb[0], flow[1])


def test_resizing_leaves_the_magnitude_of_motion_alone():
    fields = np.full((2, 40, 40), 200, np.uint8)
    assert (apply(Crop(0, 0, 20, 40), fields, 32, "flow") == 200).all()


def one_by_one(crop: Crop, frames: np.ndarray, size: int, modality: str) -> np.ndarray:
    """`apply` in the plainest way: OpenCV, a plane at a time."""
    part = frames[..., crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
    flat = part.reshape(-1, crop.height, crop.width)
    fitted = np.stack([cv2.resize(plane, (size, size)) for plane in flat]).reshape(*frames.shape[:-2], size, size)
    if crop.mirrored:
        fitted = fitted[..., ::-1].copy()
        if modality in ("flow", "mv", "accumulated"):
            fitted[..., 0::2, :, :] = 256 - np.maximum(fitted[..., 0::2, :, :], 1).astype(int)
    return fitted


PLACES = [(0, 0), (3, 5), (10, 20)]
CROPS = [(40, 40), (40, 32), (32, 24), (24, 30), (30, 30), (17, 40)]


@pytest.mark.parametrize(("modality", "channels"), [("rgb", 3), ("flow", 10), ("rgbdiff", 15)])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize(("height", "width"), CROPS)
def test_planes_together_give_the_bytes_of_planes_apart(modality, channels, mirrored, height, width):
    crop, frames = Crop(3, 5, height, width, mirrored), planes(3, channels, 50, 60, low=0)
    np.testing.assert_array_equal(apply(crop, frames, 30, modality), one_by_one(crop, frames, 30, modality))


@pytest.fixture(scope="module")
def on_cpu(tmp_path_factory):
    if not shutil.which("g++"):
        pytest.skip("no g++")
    return OnCpu(tmp_path_factory.mktemp("crops"), augmentation.CROPS, {"PIXELS": 256}, ["fit"])


@pytest.mark.parametrize("way", ["operators", "kernel", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("modality", "channels", "size"), [("rgb", 3, 30), ("mv", 10, 24), ("rgbdiff", 15, 33), ("accumulated", 2, 30)]
)
def test_a_device_fits_to_the_same_bytes(way, modality, channels, size, request):
    if way == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU")
    device, launch = "cuda" if way == "cuda" else "cpu", request.getfixturevalue("on_cpu") if way == "kernel" else None
    crops = [Crop(*place, *shape, mirrored) for shape in CROPS for mirrored in (False, True) for place in PLACES]
    cuts = planes(len(crops), 2, channels, 50, 60, low=0)
    facts = torch.tensor([crop.facts for crop in crops])
    for layout in (torch.from_numpy(cuts), torch.from_numpy(cuts).movedim(2, -1).contiguous().movedim(-1, 2)):
        fitted = fit_on_device(layout.to(device), facts.to(device), size, modality, launch).cpu().numpy()
        for cut, crop, own in zip(cuts, crops, fitted, strict=True):
            np.testing.assert_array_equal(own, one_by_one(crop, cut, size, modality))


class Counting(TorchDispatchMode):
    """Counts the operators of torch."""

    def __init__(self):
        super().__init__()
        self.called = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.called += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("launch", [None, lambda *_: None])
def test_a_device_never_waits_for_the_host_and_does_as_much_for_many_videos_as_for_few(launch):
    """A tensor on "meta" has no values: to read one, or to make one of values of the CPU, is an error."""
    counts = set()
    for videos in (2, 64):
        cuts = torch.empty(videos, 2, 10, 40, 40, dtype=torch.uint8, device="meta")
        facts = torch.empty(videos, 5, dtype=torch.int64, device="meta")
        with Counting() as counting:
            assert fit_on_device(cuts, facts, 30, "flow", launch).shape == (videos, 2, 10, 30, 30)
        counts.add(counting.called)
    assert len(counts) == 1


@pytest.mark.skipif(not find_spec("cuda"), reason="no bindings of CUDA for this platform")
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_120"])
def test_nvrtc_compiles_the_kernel_of_crops(architecture):
    assert b"fit" in machine_code(augmentation.CROPS, architecture, {"PIXELS": augmentation.THREADS_A_BLOCK})


def test_the_paper_s_sizes_are_fitted_to_the_same_bytes():
    for height, width in ((256, 256), (256, 224), (224, 192), (192, 192), (168, 192)):
        cut = planes(1, 1, 3, height, width, low=0)
        square = np.zeros((1, 1, 3, 256, 256), np.uint8)
        square[..., :height, :width] = cut
        fitted = fit_on_device(torch.from_numpy(square), torch.tensor([(0, 0, height, width, 0)]), 224, "rgb").numpy()
        np.testing.assert_array_equal(fitted, one_by_one(Crop(0, 0, height, width), cut, 224, "rgb"))
