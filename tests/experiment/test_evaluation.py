import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifttn.data.snippets import SnippetDataset
from ifttn.experiment.evaluation import (
    Scores,
    evaluate,
    factor_accuracy,
    late_fusion,
    mean_class_accuracy,
    top1,
    wilson,
)
from ifttn.model.network import Network, NetworkSettings
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
    expected = late_fusion([(first, {"rgb": 1.0}), (second, {"flow": 1.5})])
    found = late_fusion([(first, {"rgb": 1.0}), (shuffled(second, np.array(order)), {"flow": 1.5})])
    np.testing.assert_array_equal(found, expected)


def test_late_fusion_is_a_weighted_sum_of_raw_scores():
    s = scores()
    np.testing.assert_allclose(late_fusion([(s, {"rgb": 1.0, "flow": 1.5})]), s.heads["rgb"] + 1.5 * s.heads["flow"])


def test_scores_of_different_videos_are_not_fused():
    with pytest.raises(IfttnError, match="same videos"):
        late_fusion([(scores(), {"rgb": 1.0}), (scores(videos=11), {"rgb": 1.0})])
    with pytest.raises(IfttnError, match="no head 'mv' among these scores: choose from rgb, flow"):
        late_fusion([(scores(), {"mv": 1.0})])


def test_scores_come_back_from_disk_as_they_were(tmp_path):
    s = scores()
    s.save(tmp_path / "scores.npz")
    back = Scores.load(tmp_path / "scores.npz")
    assert (back.videos, back.actions, set(back.heads)) == (s.videos, s.actions, set(s.heads))
    np.testing.assert_array_equal(back.heads["flow"], s.heads["flow"])
    np.testing.assert_array_equal(back.labels, s.labels)
    assert [path.name for path in tmp_path.iterdir()] == ["scores.npz"]


def test_top1_counts_videos_and_mean_class_accuracy_counts_classes():
    given_scores = np.eye(2)[[0, 0, 0, 0]]
    labels = np.array([0, 0, 0, 1])
    assert top1(given_scores, labels) == 0.75
    assert mean_class_accuracy(given_scores, labels) == 0.5


def test_wilsons_interval_is_the_published_one():
    # Newcombe 1998, table I: 81 of 263, and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)


@given(st.integers(1, 500), st.data())
def test_an_interval_holds_its_share(total, data):
    correct = data.draw(st.integers(0, total))
    low, high = wilson(correct, total)
    assert 0 <= low <= correct / total + 1e-12
    assert correct / total - 1e-12 <= high <= 1


def test_a_factor_is_right_where_the_predicted_action_has_its_value():
    given_scores = np.eye(4)[[0, 1, 2, 3]]
    found = factor_accuracy(
        given_scores, np.array([0, 0, 0, 0]), {"x": np.array([0, 0, 1, 1]), "y": np.array([0, 1, 0, 1])}
    )
    assert found == {"x": 0.5, "y": 0.5}


def test_evaluation_is_the_mean_over_views_and_leaves_the_network_as_it_was(embedded):
    torch.manual_seed(0)
    network = Network(NetworkSettings(16, ("rgb",), None, backbone="smallest")).train()
    work = embedded.work(embedded.store)
    dataset = SnippetDataset(work.store, work.split.test[:3], ("rgb",), segments=4, size=64, crops=3)
    found = evaluate(network, dataset, work.split.actions, batch=2, crops=3)
    assert network.training
    network.eval()
    with torch.no_grad():
        views = [
            network({"rgb": torch.from_numpy(dataset[view, 1][0]["rgb"])[None]}).logits["rgb"][0] for view in range(3)
        ]
    np.testing.assert_allclose(found.heads["rgb"][1], torch.stack(views).mean(0).numpy(), rtol=1e-4, atol=1e-6)
    assert found.videos == tuple(video.name for video in work.split.test[:3])
