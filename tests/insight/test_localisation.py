import weakref

import numpy as np
import pytest
import torch

from ifttn.data import diagnostic
from ifttn.insight import localisation
from ifttn.insight.localisation import Example, cascade, localisation_table, localise, pointing_and_energy, road
from ifttn.model.network import Network, NetworkSettings


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    network = Network(NetworkSettings(actions=3, backbone="smallest")).eval()
    for head in network.heads.values():
        torch.nn.init.normal_(head.weight)
    return network


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    generator = torch.Generator().manual_seed(0)
    region = np.zeros((3, 72, 96), bool)
    region[:, :36] = True
    return [
        Example(
            {m: torch.rand((3, c, 72, 96), generator=generator) * 255 for m, c in [("rgb", 3), ("flow", 10)]},
            action,
            {"top": region, "bottom": ~region},
        )
        for action in (0, 1, 2, 0)
    ]


def test_pointing_and_energy_of_a_map_that_is_all_in_the_region_are_1():
    region = np.zeros((1, 8, 8), bool)
    region[:, 2:4, 2:4] = True
    inside, level = region.astype(np.float32), np.ones((1, 8, 8), np.float32)
    assert pointing_and_energy(inside, region) == (1, 1)
    assert pointing_and_energy(1 - inside, region) == (0, 0)
    assert pointing_and_energy(level, region)[1] == pytest.approx(4 / 64)
    assert pointing_and_energy(inside - 5 * (1 - inside), region) == (1, 1)  # evidence against does not count
    assert np.isnan(pointing_and_energy(-level, region)).all()


def test_what_moves_fastest_stands_in_where_no_mask_is_known():
    motion = np.full((2, 10, 20, 20), 128, np.uint8)
    motion[:, :, 5:10, 5:10] = 200
    regions = localisation.moving_regions(motion, share=0.0625)
    assert regions["moving"][:, 5:10, 5:10].all()
    assert regions["moving"].sum() == 2 * 25
    np.testing.assert_array_equal(regions["still"], ~regions["moving"])


def test_of_a_frame_where_little_moves_only_that_is_moving():
    motion = np.full((3, 10, 20, 20), 128, np.uint8)
    motion[0, :, 5:7, 5:7] = 200  # a hundredth; the second frame stands still, the third moves all over
    motion[2] = np.random.default_rng(0).integers(140, 250, (10, 20, 20))
    moving = localisation.moving_regions(motion)["moving"]
    assert moving.sum((1, 2)).tolist() == [4, 0, 80]
    assert moving[0, 5:7, 5:7].all()


def test_a_frame_without_a_region_says_nothing_of_it(network, examples):
    region = np.zeros((3, 72, 96), bool)
    region[1, :36] = True
    maps = np.ones((3, 72, 96), np.float32)
    assert pointing_and_energy(maps, region)[1] == pytest.approx(0.5)
    assert np.isnan(pointing_and_energy(maps, region & False)).all()
    shown = [Example(one.inputs, one.action, {"top": region, "nowhere": region & False}) for one in examples[:2]]
    table = localisation_table(localise(network, shown, finer=(1,)), draws=10)
    assert table.loc[("rgb", "top", "centre Gaussian"), "area"] == 0.5
    assert table.loc[("rgb", "nowhere", "centre Gaussian"), ["area", "energy", "pointing"]].isna().all()


def test_examples_are_read_one_by_one_and_let_go(network, examples, embedded, monkeypatch):
    alive = list[weakref.ref]()

    def asked():
        for one in examples:
            assert sum(each() is not None for each in alive) <= 1
            alive.append(weakref.ref(made := Example(one.inputs, one.action, one.regions)))
            yield made
            del made

    localise(network, asked(), finer=(1,))
    whole, read = localisation.whole_snippets, []
    monkeypatch.setattr(localisation, "whole_snippets", lambda *asked: read.append(asked[1]) or whole(*asked))
    next(localisation.examples_of(localisation.Store(embedded.store), embedded.split.test, ("rgb", "flow"), 4))
    assert read == [embedded.split.test[0]]


def test_the_table_puts_every_head_beside_chance_and_habit(network, examples):
    table = localisation_table(localise(network, examples, finer=(1, 4)), draws=200)
    assert table.index.names == ["head", "region", "method"]
    methods = {"CAM, every 32 px", "CAM, every 8 px", "random map", "centre Gaussian"}
    assert set(table.index.get_level_values("method")) == methods
    assert set(table.index.get_level_values("head")) == {"rgb", "flow", "ttn"}
    assert (table["videos"] == 4).all()
    known = table.dropna()
    assert (known["energy low"] <= known["energy"]).all()
    assert (known["energy"] <= known["energy high"]).all()
    both = table["energy"].xs("top", level="region") + table["energy"].xs("bottom", level="region")
    np.testing.assert_allclose(both.dropna(), 1, atol=1e-5)
    assert table.loc[("rgb", "top", "random map"), "energy"] == pytest.approx(0.5, abs=0.1)
    assert table.loc[("ttn", "top", "centre Gaussian"), "energy"] == pytest.approx(0.5, abs=0.01)


def test_intervals_shrink_with_more_videos_and_repeat_with_the_seed(network, examples):
    rows = localise(network, examples, finer=(1,))
    assert localisation_table(rows, draws=100).equals(localisation_table(rows, draws=100))


def test_random_weights_change_the_maps_and_the_network_is_restored(network, examples):
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    table = cascade(network, examples[:2], finer=1)
    assert list(table.index) == ["classifier", "level 5", "level 4", "level 3", "level 2"]
    assert set(table.columns) == {"rgb", "flow", "ttn"}
    assert (table.abs() <= 1).all(axis=None)
    assert table.loc["level 2"].max() < 0.9
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_road_fills_what_a_map_marks_and_says_what_the_logit_loses(network, examples):
    state = torch.get_rng_state()
    rows = road(network, examples[:1], percentiles=(80,), finer=1)
    assert list(rows.columns) == ["head", "method", "percentile", "change"]
    assert len(rows) == 3 * 2
    assert np.isfinite(rows.change).all()
    assert rows.change.abs().max() > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert rows.equals(road(network, examples[:1], percentiles=(80,), finer=1))


def test_whole_frames_come_with_the_regions_of_the_embedded_set(embedded):
    split = embedded.split
    store = localisation.Store(embedded.store)
    for plan, names in ((diagnostic.factors(embedded.data), "balls"), (None, "moving")):
        (one,) = localisation.examples_of(store, split.test[:1], ("rgb", "flow"), 4, plan)
        assert one.inputs["rgb"].shape == (4, 3, 72, 96)
        assert one.inputs["flow"].shape == (4, 10, 72, 96)
        assert one.action == split.test[0].label
        assert names in one.regions
