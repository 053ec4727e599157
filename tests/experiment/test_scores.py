from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifttn.experiment.scores import (
    LATE_FUSION,
    Scores,
    confusion_counts,
    factor_accuracy,
    fuse_runs,
    late_fusion,
    mean_class_accuracy,
    per_class,
    scaled_fusion,
    top1,
    top5,
    tune,
)
from ifttn.experiment.significance import wilson
from ifttn.vocabulary import IfttnError


def scores(seed=0, videos=12, heads=("rgb", "flow")):
    rng = np.random.default_rng(seed)
    return Scores(
        tuple(f"v{i}" for i in range(videos)),
        rng.integers(0, 4, videos),
        ("a", "b", "c", "d"),
        {head: rng.normal(size=(videos, 4)).astype(np.float32) for head in heads},
    )


def shuffled(s, order):
    return Scores(
        tuple(s.videos[i] for i in order), s.labels[order], s.actions, {h: x[order] for h, x in s.heads.items()}
    )


@given(st.permutations(range(12)))
def test_late_fusion_does_not_depend_on_the_order_of_a_list(order):
    first, second = scores(0), scores(1)
    expected = fuse_runs([(first, {"rgb": 1.0}), (second, {"flow": 1.5})])
    found = fuse_runs([(first, {"rgb": 1.0}), (shuffled(second, np.array(order)), {"flow": 1.5})])
    assert found.videos == first.videos
    np.testing.assert_array_equal(found.scores, expected.scores)


def test_late_fusion_is_a_weighted_sum_of_raw_scores():
    s = scores()
    expected = s.heads["rgb"] + 1.5 * s.heads["flow"]
    np.testing.assert_array_equal(late_fusion(s.heads), expected)
    np.testing.assert_allclose(fuse_runs([(s, {"rgb": 1.0, "flow": 1.5})]).scores, expected, rtol=1e-6)
    np.testing.assert_array_equal(late_fusion(s.heads, {"flow": 2.0}), 2 * s.heads["flow"])
    np.testing.assert_allclose(scaled_fusion(s.heads), expected / 2.5)
    tensors = {head: torch.from_numpy(x) for head, x in s.heads.items()}
    np.testing.assert_array_equal(late_fusion(tensors).numpy(), expected)


def test_scores_of_different_videos_are_not_fused():
    with pytest.raises(IfttnError, match="same videos"):
        fuse_runs([(scores(), {"rgb": 1.0}), (scores(videos=11), {"rgb": 1.0})])
    with pytest.raises(IfttnError, match="no head 'mv' among these scores: choose from rgb, flow"):
        fuse_runs([(scores(), {"mv": 1.0})])


def test_scores_come_back_from_disk_as_they_were(tmp_path):
    s = scores()
    s = replace(s, readings={"reversed": {head: x + 1 for head, x in s.heads.items()}}, identity="of the store")
    s.save(tmp_path / "scores.npz")
    back = Scores.load(tmp_path / "scores.npz")
    assert (back.videos, back.actions, set(back.heads)) == (s.videos, s.actions, set(s.heads))
    np.testing.assert_array_equal(back.heads["flow"], s.heads["flow"])
    np.testing.assert_array_equal(back.labels, s.labels)
    assert {reading: set(heads) for reading, heads in back.readings.items()} == {"reversed": set(s.heads)}
    assert back.identity == "of the store"
    np.testing.assert_array_equal(back.readings["reversed"]["rgb"], s.readings["reversed"]["rgb"])
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_top1_counts_videos_and_mean_class_accuracy_counts_classes():
    given_scores = np.eye(2)[[0, 0, 0, 0]]
    labels = np.array([0, 0, 0, 1])
    assert top1(given_scores, labels) == 0.75
    assert mean_class_accuracy(given_scores, labels) == 0.5


def test_a_factor_is_right_where_the_predicted_action_has_its_value():
    given_scores = np.eye(4)[[0, 1, 2, 3]]
    found = factor_accuracy(
        given_scores, np.array([0, 0, 0, 0]), {"x": np.array([0, 0, 1, 1]), "y": np.array([0, 1, 0, 1])}
    )
    assert found == {"x": 0.5, "y": 0.5}


def test_the_right_one_may_be_among_the_five_highest():
    given_scores = np.array([[6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1, 1.0]])
    labels = np.array([4, 0, 5])  # fifth, last, and sixth among equals
    assert top5(given_scores, labels) == pytest.approx(1 / 3)


def test_a_class_is_told_with_what_it_is_taken_for():
    labels = np.array([0, 0, 0, 0, 1, 1])
    given_scores = np.eye(4)[[0, 2, 2, 1, 1, 1]]
    assert confusion_counts(given_scores.argmax(1), labels, 4).tolist() == [
        [1, 1, 2, 0],
        [0, 2, 0, 0],
        [0] * 4,
        [0] * 4,
    ]
    found = per_class(given_scores, labels, ("run", "walk", "jump", "sit"))
    assert [[row[name] for name in ("action", "videos", "right", "accuracy", "taken for")] for row in found] == [
        ["run", 4, 1, 0.25, "jump (2)"],
        ["walk", 2, 2, 1.0, ""],
    ]
    assert (found[0]["low"], found[0]["high"]) == wilson(1, 4)


def held_out():
    """One head knows; the other is surer, and wrong."""
    labels = np.arange(12) % 4
    heads = {"rgb": 3 * np.eye(4)[(labels + 1) % 4], "flow": np.eye(4)[labels]}
    return Scores(tuple(f"held {i}" for i in range(12)), labels, ("a", "b", "c", "d"), heads)


def test_weights_are_tuned_on_what_was_held_out_and_say_so():
    tuned = tune(held_out(), test=["test 1"])
    assert tuned.weights == {"rgb": 1.0, "flow": 4.0}  # of those tried, the only one above 3
    assert tuned.top1 == 1.0
    assert tuned.label == "late-fusion weights tuned on 12 videos held out of train"


def test_of_equally_good_weights_the_preset_ones_stay():
    labels = np.arange(12) % 4
    both = {"rgb": np.eye(4)[labels], "flow": np.eye(4)[labels]}
    s = replace(held_out(), heads=both)
    assert tune(s, test=[]).weights == {"rgb": LATE_FUSION["rgb"], "flow": LATE_FUSION["flow"]}


def test_weights_are_never_tuned_on_test_videos():
    with pytest.raises(IfttnError, match=r"not tuned on test videos, and 1 are here \(the first is held 3\)"):
        tune(held_out(), test=["held 3", "test 1"])
