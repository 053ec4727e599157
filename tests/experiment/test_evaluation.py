import gc
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ifttn.data.samples import SnippetDataset
from ifttn.experiment import evaluation
from ifttn.experiment.evaluation import evaluate, wrong_order
from ifttn.experiment.optimisation import freeze_all_but
from ifttn.experiment.processes import Machine
from ifttn.experiment.scores import READINGS
from ifttn.model.folding import folded
from ifttn.model.network import Network, NetworkSettings
from ifttn.vocabulary import IfttnError


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
    (network, dataset), devices = complete, []

    def on_device(network, dtype):
        copy = folded(network, dtype)
        devices.append(copy.__dict__.setdefault("pyramids", Smaller(copy, 9)))
        return copy

    monkeypatch.setattr(evaluation, "folded", on_device)
    machine = Machine(micro_batch=2, precision="bf16")
    evaluate(network, replace(dataset, crops=1), tuple("abcdefghijklmnop"), batch=3, machine=machine)
    assert [device.tried for device in devices] == [[(2, True), (1, True)]]


def test_memory_does_not_grow_with_the_views(complete):
    network, dataset = complete
    actions, shapes, peaks = tuple("abcdefghijklmnop"), [], {}
    pyramids = network.pyramids
    network.pyramids = lambda inputs: shapes.append(inputs["rgb"].shape[0]) or pyramids(inputs)
    try:
        for crops in (3, 10, 3, 10):  # the first round fills caches
            views = replace(dataset, crops=crops)
            gc.collect()  # of the tests before
            tracemalloc.start()
            evaluate(network, views, actions, batch=2)
            peaks[crops] = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
    finally:
        del network.pyramids
    assert shapes == 2 * [*(3 * [2] + 3 * [1]), *(10 * [2] + 10 * [1])]  # never more than a batch of one view
    a_view = sum(x.nbytes for planes in [dataset[0, 0][0]] for x in planes.values())
    assert peaks[10] - peaks[3] < a_view / 4
