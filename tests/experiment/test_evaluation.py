import gc
import itertools
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifttn.data.snippets import SnippetDataset
from ifttn.experiment.evaluation import (
    READINGS,
    Scores,
    confusion,
    design_effect,
    evaluate,
    factor_accuracy,
    flip_test,
    late_fusion,
    mcnemar,
    mean_class_accuracy,
    per_class,
    sign_test,
    top1,
    top_k,
    tune,
    wilson,
    wrong_order,
)
from ifttn.experiment.machine import Machine
from ifttn.experiment.optimisation import freeze_all_but
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
    s = replace(scores(), readings={"reversed": {"rgb": np.ones((12, 4), np.float32)}})
    s.save(tmp_path / "scores.npz")
    back = Scores.load(tmp_path / "scores.npz")
    assert (back.videos, back.actions, set(back.heads)) == (s.videos, s.actions, set(s.heads))
    np.testing.assert_array_equal(back.heads["flow"], s.heads["flow"])
    np.testing.assert_array_equal(back.labels, s.labels)
    assert {reading: set(heads) for reading, heads in back.readings.items()} == {"reversed": {"rgb"}}
    np.testing.assert_array_equal(back.readings["reversed"]["rgb"], s.readings["reversed"]["rgb"])
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
    network = Network(NetworkSettings(16, ("rgb",), None, backbone="smallest"))
    freeze_all_but(network, ("heads.rgb",), "trained")
    modes = {name: module.training for name, module in network.named_modules()}
    assert {*modes.values()} == {True, False}
    work = embedded.work(embedded.store)
    dataset = SnippetDataset(work.store, work.split.test[:3], ("rgb",), segments=4, size=64, crops=3)
    found = evaluate(network, dataset, work.split.actions, batch=2)
    assert {name: module.training for name, module in network.named_modules()} == modes
    network.eval()
    with torch.no_grad():
        views = [
            network({"rgb": torch.from_numpy(dataset[view, 1][0]["rgb"])[None]}).logits["rgb"][0] for view in range(3)
        ]
    np.testing.assert_allclose(found.heads["rgb"][1], torch.stack(views).mean(0).numpy(), rtol=1e-4, atol=1e-6)
    assert found.videos == tuple(video.name for video in work.split.test[:3])


def test_the_right_one_may_be_among_the_five_highest():
    given_scores = np.array([[6, 5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5, 6], [1, 1, 1, 1, 1, 1, 1.0]])
    labels = np.array([4, 0, 5])  # fifth, last, and sixth among equals
    assert [top_k(given_scores, labels, k) for k in (1, 5, 6, 7)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert top_k(given_scores, labels, 1) == top1(given_scores, labels)


def test_the_sign_test_is_that_of_a_fair_coin():
    assert sign_test(5, 5) == 1.0
    assert sign_test(0, 0) == 1.0
    assert sign_test(10, 0) == pytest.approx(2 / 2**10)


@given(st.lists(st.integers(-3, 3), max_size=9))
def test_a_flip_test_counts_every_way_that_the_signs_can_fall(changes):
    sums = [sum(np.multiply(signs, changes)) for signs in itertools.product((-1, 1), repeat=len(changes))]
    expected = np.mean([abs(each) >= abs(sum(changes)) for each in sums])
    assert flip_test(np.array(changes, int)) == pytest.approx(expected)


def answers(both, only_first, only_second, neither, times=1):
    """`times`: splits that test each video, with the same answers."""
    first = [True] * (both + only_first) + [False] * (only_second + neither)
    second = [True] * both + [False] * only_first + [True] * only_second + [False] * neither
    videos = [f"v{i}" for i in range(len(first))]
    return mcnemar(np.array(first * times), np.array(second * times), videos * times)


def test_answers_that_three_splits_repeat_make_nothing_surer():
    once, thrice = answers(30, 12, 2, 6), answers(30, 12, 2, 6, times=3)
    assert (thrice.answers, thrice.videos, thrice.only_first) == (150, 50, 36)
    assert (thrice.difference, thrice.p) == pytest.approx((once.difference, once.p))
    assert thrice.interval == pytest.approx(once.interval)


def test_answers_that_differ_between_splits_lie_between_one_video_and_three():
    rng = np.random.default_rng(0)
    first, second = rng.random((2, 3, 100)) < [[[0.7]], [[0.5]]]
    videos = [f"v{i}" for i in range(100)] * 3
    clustered, apart = mcnemar(first.ravel(), second.ravel(), videos), mcnemar(first.ravel(), second.ravel())
    assert 1 <= design_effect(first.ravel() * 1.0, videos) < 1.5
    assert clustered.interval == pytest.approx(apart.interval, abs=0.03)
    assert design_effect(np.tile(first[0] * 1.0, 3), videos) == pytest.approx(3)
    assert design_effect(np.ones(300), videos) == 3  # nothing tells how alike they are
    assert design_effect(first.ravel() * 1.0, [str(i) for i in range(300)]) == pytest.approx(1)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemars_p_is_that_of_a_binomial_test(only_first, only_second):
    scipy = pytest.importorskip("scipy.stats")
    expected = scipy.binomtest(only_first, only_first + only_second).pvalue if only_first + only_second else 1.0
    assert answers(7, only_first, only_second, 3).p == pytest.approx(expected)


def test_a_paired_difference_has_the_published_interval():
    # Newcombe 1998 (Statistics in Medicine 17, 2635-2650), table III, method 10.
    found = answers(36, 12, 2, 0)
    assert found.interval == pytest.approx((0.0569, 0.3404), abs=1e-4)
    assert (found.first, found.second, found.difference) == pytest.approx((0.96, 0.76, 0.2))
    assert found.p == pytest.approx(2 * (1 + 14 + 91) / 2**14)


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
def test_an_interval_holds_its_difference_and_turns_with_it(both, one, other, neither):
    if both + one + other + neither == 0:
        return
    there, back = answers(both, one, other, neither), answers(both, other, one, neither)
    assert -1 - 1e-12 <= there.interval[0] <= there.difference + 1e-12
    assert there.difference - 1e-12 <= there.interval[1] <= 1 + 1e-12
    assert (back.difference, *back.interval) == pytest.approx(
        (-there.difference, -there.interval[1], -there.interval[0]), abs=1e-12
    )


def test_a_class_is_told_with_what_it_is_taken_for():
    labels = np.array([0, 0, 0, 0, 1, 1])
    given_scores = np.eye(4)[[0, 2, 2, 1, 1, 1]]
    assert confusion(given_scores.argmax(1), labels, 4).tolist() == [[1, 1, 2, 0], [0, 2, 0, 0], [0] * 4, [0] * 4]
    found = per_class(given_scores, labels, ("run", "walk", "jump", "sit"))
    assert found[["action", "videos", "right", "accuracy", "taken for"]].to_numpy().tolist() == [
        ["run", 4, 1, 0.25, "jump (2)"],
        ["walk", 2, 2, 1.0, ""],
    ]
    assert (found.low[0], found.high[0]) == wilson(1, 4)


def held_out():
    """One head knows; the other is surer, and wrong."""
    labels = np.arange(12) % 4
    heads = {"rgb": 3 * np.eye(4)[(labels + 1) % 4], "flow": np.eye(4)[labels]}
    return Scores(tuple(f"held {i}" for i in range(12)), labels, ("a", "b", "c", "d"), heads)


def test_weights_are_tuned_on_what_was_held_out_and_say_so():
    tuned = tune([(held_out(), {"rgb": 1.0, "flow": 1.5})], test=["test 1"])
    assert tuned.parts == [{"rgb": 1.0, "flow": 4.0}]  # of those tried, the only one above 3
    assert (tuned.top1, tuned.preset_top1) == (1.0, 0.0)
    assert tuned.label == "late-fusion weights tuned on 12 videos held out of train"


def test_of_equally_good_weights_the_preset_ones_stay():
    labels = np.arange(12) % 4
    both = {"rgb": np.eye(4)[labels], "flow": np.eye(4)[labels]}
    s = replace(held_out(), heads=both)
    assert tune([(s, {"rgb": 1.0, "flow": 1.5})], test=[]).parts == [{"rgb": 1.0, "flow": 1.5}]
    assert tune([(s, {"rgb": 1.0}), (s, {"flow": 1.5})], test=[]).parts == [{"rgb": 1.0}, {"flow": 1.5}]


def test_weights_are_never_tuned_on_test_videos():
    with pytest.raises(IfttnError, match=r"not tuned on test videos, and 1 are here \(the first is held 3\)"):
        tune([(held_out(), {"rgb": 1.0, "flow": 1.5})], test=["held 3", "test 1"])


@given(st.text(max_size=20), st.integers(2, 8))
def test_a_wrong_order_is_one_and_always_the_same(video, segments):
    order = wrong_order(video, segments)
    assert sorted(order) == list(range(segments))
    assert list(order) != list(range(segments))
    assert list(order) == list(wrong_order(video, segments))
    assert list(wrong_order(video, 1)) == [0]


@pytest.fixture(scope="module")
def complete(embedded):
    """An untrained network with a TTN, and three test videos in three views."""
    torch.manual_seed(0)
    network = Network(NetworkSettings(16, ("rgb", "flow"), "attention", backbone="smallest"))
    for head in network.heads.values():  # at their start they say next to nothing
        torch.nn.init.normal_(head.weight)
    work = embedded.work(embedded.store)
    return network, SnippetDataset(work.store, work.split.test[:3], ("rgb", "flow"), segments=4, size=64, crops=3)


def test_order_read_outs_are_what_the_network_says_of_the_centre_view_turned_round(complete):
    network, dataset = complete
    found = evaluate(network, dataset, tuple("abcdefghijklmnop"), batch=2, orders=True)
    assert tuple(found.readings) == READINGS
    network.eval()
    for row, video in enumerate(found.videos):
        planes = {m: torch.from_numpy(x)[None] for m, x in dataset[1, row][0].items()}
        orders = {"one view": np.arange(4), "reversed": np.arange(4)[::-1], "shuffled": wrong_order(video, 4)}
        for reading, order in orders.items():
            with torch.no_grad():
                logits = network({m: x[:, torch.from_numpy(order.copy())] for m, x in planes.items()}).logits
            for head, expected in logits.items():
                said = found.readings[reading][head][row]
                np.testing.assert_allclose(said, expected[0].numpy(), rtol=1e-3, atol=1e-4)


def test_what_does_not_know_order_does_not_change(complete):
    network, dataset = complete
    found = evaluate(network, replace(dataset, crops=1), tuple("abcdefghijklmnop"), batch=3, orders=True)
    in_order, spread = found.readings["one view"], np.ptp(found.readings["one view"]["ttn"])
    for reading in ("reversed", "shuffled"):
        for head in ("rgb", "flow"):
            np.testing.assert_allclose(found.readings[reading][head], in_order[head], rtol=1e-5, atol=1e-5)
        assert np.abs(found.readings[reading]["ttn"] - in_order["ttn"]).max() > 0.01 * spread


class Smaller:
    """In the place of a network's `pyramids`: a device that holds `most` videos."""

    def __init__(self, network, most):
        self.pyramids, self.most, self.tried = network.pyramids, most, []

    def __call__(self, inputs):
        videos = inputs["rgb"].shape[0]
        self.tried.append((videos, torch.is_autocast_enabled("cpu")))
        if videos > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 79 GiB.")
        return self.pyramids(inputs)


def test_a_test_that_does_not_fit_goes_on_with_fewer_videos_at_once(complete, monkeypatch):
    network, dataset = complete
    actions, dataset = tuple("abcdefghijklmnop"), replace(dataset, crops=1)
    whole = evaluate(network, dataset, actions, batch=3, orders=True)
    device = Smaller(network, 1)
    monkeypatch.setattr(network, "pyramids", device)
    parts = evaluate(network, dataset, actions, batch=3, orders=True)
    assert [videos for videos, _ in device.tried] == [3, 1, 1, 1]  # what is too much is tried only once
    for reading in ("", *READINGS):
        for head, expected in (whole.readings[reading] if reading else whole.heads).items():
            found = parts.readings[reading] if reading else parts.heads
            np.testing.assert_allclose(found[head], expected, rtol=1e-4, atol=1e-5)
    device.most = 0
    with pytest.raises(IfttnError, match=r"a single video does not fit into the memory .* \(--device cpu\)"):
        evaluate(network, dataset, actions, batch=3)


def test_a_test_computes_as_the_machine_does(complete, monkeypatch):
    network, dataset = complete
    device = Smaller(network, 9)
    monkeypatch.setattr(network, "pyramids", device)
    machine = Machine(micro_batch=2, precision="bf16")
    evaluate(network, replace(dataset, crops=1), tuple("abcdefghijklmnop"), batch=3, machine=machine)
    assert device.tried == [(2, True), (1, True)]


def test_memory_does_not_grow_with_the_views(complete):
    network, dataset = complete
    actions, shapes, peaks = tuple("abcdefghijklmnop"), [], {}
    pyramids = network.pyramids
    network.pyramids = lambda inputs: shapes.append(inputs["rgb"].shape[0]) or pyramids(inputs)
    try:
        for crops in (1, 10, 1, 10):  # the first round fills caches
            views = replace(dataset, crops=crops)
            gc.collect()  # of the tests before
            tracemalloc.start()
            evaluate(network, views, actions, batch=2)
            peaks[crops] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    finally:
        del network.pyramids
    assert shapes == 2 * ([2, 1] * 1 + [2, 1] * 10)  # never more than a batch of one view
    a_view = sum(x.nbytes for planes in [dataset[0, 0][0]] for x in planes.values())
    assert peaks[10] - peaks[1] < a_view
