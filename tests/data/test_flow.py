import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifttn.data import flow
from ifttn.data.flow import FLOWS, device_for, flow_of, from_bytes, luminance, to_bytes
from ifttn.vocabulary import IfttnError


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize("size", [(96, 72), (48, 36), (160, 120)])
@pytest.mark.parametrize("step", [(4, 2), (-3, 1), (0, 0)])
def test_every_flow_finds_a_pan(pan, name, size, step):
    frames = pan(3, *size, step)
    fields = flow_of(name, frames)
    assert fields.shape == (2, 2, size[1], size[0])
    inside = fields[:, :, 8:-8, 8:-8]
    assert np.abs(inside - np.array(step)[:, None, None]).mean() < 0.1


@pytest.mark.parametrize("name", FLOWS)
def test_a_pair_of_frames_does_not_depend_on_the_pairs_before_it(pan, name):
    frames = pan(4, 96, 72)
    cut = np.concatenate([frames[:1, ::-1], frames[2:]])
    np.testing.assert_array_equal(flow_of(name, cut)[1], flow_of(name, frames)[2])


@pytest.mark.parametrize("name", FLOWS)
def test_one_frame_has_no_flow(pan, name):
    assert flow_of(name, pan(1)).shape == (0, 2, 120, 160)


def test_a_flow_sees_nothing_but_luminance(pan):
    frames = pan(3, 64, 48)
    np.testing.assert_array_equal(flow_of("tvl1", frames), flow_of("tvl1", luminance(frames)))


def test_an_unknown_flow_is_refused_with_the_choices(pan):
    with pytest.raises(IfttnError, match="unknown optical flow farneback; choose from tvl1, tvl1-fast, dis"):
        flow_of("farneback", pan(2))


@pytest.mark.parametrize(
    ("name", "wanted", "bindings", "device"),
    [
        ("tvl1", "cuda:1", True, "cuda:1"),
        ("tvl1-fast", "cuda", True, "cuda"),
        ("tvl1", "cuda", False, "cpu"),
        ("tvl1", "mps", True, "cpu"),
        ("tvl1", "cpu", True, "cpu"),
        ("dis", "cuda", True, "cpu"),
    ],
)
def test_flow_is_computed_on_the_cpu_where_no_engine_is_for_the_device(name, wanted, bindings, device, monkeypatch):
    monkeypatch.setattr(flow, "find_spec", lambda package: bindings or None)
    assert device_for(name, wanted) == device


def test_flow_that_does_not_fit_is_computed_of_fewer_pairs_at_once(pan, monkeypatch):
    frames, lengths = pan(8, 64, 48, (3, 1)), []

    def small(images, starts, device):
        lengths.append(len(images))
        if len(images) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return flow.dis(images, starts)

    expected = flow_of("dis", frames)
    monkeypatch.setattr(flow, "FLOWS", {"small": small})
    limit = 3
    np.testing.assert_array_equal(flow_of("small", frames, "cuda"), expected)
    assert lengths == [8, 4, *7 * [2]]
    limit = 1
    with pytest.raises(IfttnError, match="a single pair of 64 x 48 pixels does not fit into the memory"):
        flow_of("small", frames, "cuda")


def test_no_motion_is_exactly_128_and_the_bound_is_127_levels_away():
    levels = to_bytes(np.array([-20.0, -0.0, 0.0, 20.0]), 20.0)
    assert levels.tolist() == [1, 128, 128, 255]
    assert from_bytes(levels, 20.0).tolist() == [-20, 0, 0, 20]


@given(st.floats(-100, 100), st.floats(0.5, 50))
def test_bytes_keep_motion_to_half_a_level_and_saturate_beyond_the_bound(pixels, bound):
    back = from_bytes(to_bytes(np.array([pixels]), bound), bound)[0]
    assert abs(back - np.clip(pixels, -bound, bound)) <= bound / 127 * 0.501
    assert to_bytes(np.array([-pixels]), bound)[0] == 256 - int(to_bytes(np.array([pixels]), bound)[0])
