import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ifttn.data.sampling import centre_starts, random_starts, snippet_indices
from ifttn.vocabulary import STACK, IfttnError

FRAMES, SEGMENTS = st.integers(2, 400), st.integers(1, 25)


@given(FRAMES, SEGMENTS, st.integers(0, 2**32))
def test_snippets_are_in_order_and_inside_the_video(num_frames, segments, seed):
    for starts in (
        random_starts(num_frames, segments, np.random.default_rng(seed)),
        centre_starts(num_frames, segments),
    ):
        frames, fields = snippet_indices(starts, num_frames)
        assert frames.shape == (segments,)
        assert fields.shape == (segments, STACK)
        assert (np.diff(frames) >= 0).all()
        assert (np.diff(fields, axis=1) >= 0).all()
        assert frames.min() >= 0
        assert frames.max() < num_frames
        assert fields.min() >= 0
        assert fields.max() < num_frames - 1


@given(FRAMES, st.integers(2, 25), st.integers(0, 2**32))
def test_a_short_video_never_gives_equal_snippets(num_frames, segments, seed):
    for starts in (
        random_starts(num_frames, segments, np.random.default_rng(seed)),
        centre_starts(num_frames, segments),
    ):
        frames, _ = snippet_indices(starts, num_frames)
        assert len(set(frames.tolist())) >= min(num_frames, segments)


@given(st.integers(1, 25), st.integers(0, 400), st.integers(0, 2**32))
def test_each_segment_of_a_long_video_gives_one_snippet(segments, more, seed):
    num_frames = STACK + segments + more
    valid = segments + more
    for starts in (
        random_starts(num_frames, segments, np.random.default_rng(seed)),
        centre_starts(num_frames, segments),
    ):
        assert (np.diff(starts) > 0).all()
        _, fields = snippet_indices(starts, num_frames)
        np.testing.assert_array_equal(fields, starts[:, None] + np.arange(STACK))
    starts = random_starts(num_frames, segments, np.random.default_rng(seed))
    np.testing.assert_array_equal(starts * segments // valid, np.arange(segments))


def test_every_start_of_every_segment_is_drawn_equally_often():
    rng = np.random.default_rng(0)
    draws = np.concatenate([random_starts(STACK + 12, 3, rng) for _ in range(3000)])
    counts = np.bincount(draws, minlength=12)
    assert len(counts) == 12
    assert np.abs(counts - 750).max() < 150


def test_centre_starts_are_those_of_tsn():
    num_frames, segments = 100, 7
    tick = (num_frames - STACK) / segments
    assert centre_starts(num_frames, segments).tolist() == [int(tick / 2 + tick * k) for k in range(segments)]


def test_the_frame_lies_in_the_middle_of_its_fields():
    frames, fields = snippet_indices(np.array([0, 10, 20]), 40)
    np.testing.assert_array_equal(frames, [2, 12, 22])
    np.testing.assert_array_equal(fields[1], [10, 11, 12, 13, 14])


def test_two_frames_are_spread_over_the_segments():
    frames, fields = snippet_indices(centre_starts(2, 4), 2)
    assert frames.tolist() == [0, 0, 1, 1]
    assert not fields.any()


@pytest.mark.parametrize("num_frames", [0, 1])
def test_a_video_without_motion_is_an_error(num_frames):
    with pytest.raises(IfttnError, match="no motion"):
        centre_starts(num_frames, 3)
    with pytest.raises(IfttnError, match="no motion"):
        random_starts(num_frames, 3, np.random.default_rng(0))
