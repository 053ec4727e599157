import numpy as np
import pytest
import torch

from ifttn.insight.order import Frames, Pair, in_words, nearest_frames, order_report, retrieval, swap_report
from ifttn.model.network import Network, NetworkSettings


def build(fusion: str | None = "attention", temporal: str = "ttn", seed: int = 0) -> Network:
    torch.manual_seed(seed)
    network = Network(NetworkSettings(actions=3, fusion=fusion, temporal=temporal, backbone="smallest"))
    for head in network.heads.values():
        torch.nn.init.normal_(head.weight, std=0.02)
    return network.train()


@pytest.fixture
def pair() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand((2, c, 64, 64), generator=generator) * 255 for name, c in [("rgb", 3), ("flow", 10)]}


def test_ttn_tells_a_pair_from_its_swap(pair):
    report = swap_report({"drawing": build()}, pair, 1).loc["drawing"]
    assert abs(report["gap"]) > 1e-3
    assert report["gap"] == pytest.approx(report["p(A,B)"] - report["p(B,A)"])


def test_swapping_the_snippets_negates_what_ttn_enters_with(pair):
    network = build().eval()
    entered = []
    network.temporal["ttn"].layer2.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    for order in ([0, 1], [1, 0]):
        network({name: images[order][None] for name, images in pair.items()})
    torch.testing.assert_close(entered[1], -entered[0])


def test_ttn_says_one_constant_of_every_duplicate(pair):
    report = swap_report({"drawing": build()}, pair, 1).loc["drawing"]
    other = swap_report({"drawing": build()}, {name: 255 - images for name, images in pair.items()}, 1).loc["drawing"]
    assert report["p(A,A)"] == pytest.approx(report["p(B,B)"], abs=1e-6)
    assert report["p(A,A)"] == pytest.approx(other["p(A,A)"], abs=1e-6)


@pytest.mark.parametrize(("fusion", "temporal", "head"), [(None, "ttn", "rgb"), ("attention", "average", "ttn")])
def test_an_average_of_snippets_has_no_gap(pair, fusion, temporal, head):
    report = swap_report({"tsn": build(fusion, temporal)}, pair, 1, head=head).loc["tsn"]
    assert report["gap"] == pytest.approx(0, abs=1e-6)
    assert report["p(A,A)"] != pytest.approx(report["p(B,B)"], abs=1e-3)


def test_each_network_has_its_row_and_keeps_its_mode(pair):
    networks = {"drawing": build(), "apart": build(seed=3)}
    report = swap_report(networks, pair, 1)
    assert list(report.index) == ["drawing", "apart"]
    assert report["p(A,B)"].nunique() == 2
    assert all(network.training for network in networks.values())


def test_a_frame_is_nearest_to_itself_and_resembles_itself():
    frames = torch.rand((70, 3, 32, 32), generator=torch.Generator().manual_seed(0)) * 255
    found = nearest_frames(build(None), frames[[66, 3]], frames, count=2)
    assert found.indices[:, 0].tolist() == [66, 3]
    assert (found.indices[:, 1] != found.indices[:, 0]).all()
    assert found.resembles.all()


def test_a_drawing_far_from_every_frame_resembles_none():
    noise = torch.rand((20, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    found = nearest_frames(build(None), torch.full((1, 3, 32, 32), 255.0), 100 + 10 * noise)
    assert found.indices.shape == (1, 1)
    assert not found.resembles.any()


def test_frames_of_a_known_time_are_found_again():
    generator = torch.Generator().manual_seed(0)
    early, late = torch.full((30, 3, 32, 32), 60.0), torch.zeros((30, 3, 32, 32))
    late[..., 8:24, 8:24] = 255
    images = torch.cat([early, late]) + 5 * torch.rand((60, 3, 32, 32), generator=generator)
    times = np.concatenate([np.linspace(0, 0.4, 30), np.linspace(0.6, 1, 30)]).astype(np.float32)
    frames, pair = Frames(images, times), images[[3, 50]]
    said = retrieval(build(None), pair, frames)
    assert said["t(A)"] < 0.4
    assert said["t(B)"] > 0.6
    assert said["p"] <= 0.002
    swapped = retrieval(build(None), pair.flip(0), frames)
    assert swapped["later"] == pytest.approx(-said["later"])
    assert swapped["p"] > 0.99


def test_the_report_has_a_row_a_pair_and_a_sentence_that_counts_failures(pair):
    generator = torch.Generator().manual_seed(2)
    frames = Frames(torch.rand((30, 3, 32, 32), generator=generator) * 255, np.linspace(0, 1, 30, dtype=np.float32))
    pairs = [Pair(1, 0, pair), Pair(1, 1, {name: x.flip(0) for name, x in pair.items()})]

    def brighter(pair: Pair) -> float:
        return float((pair.inputs["rgb"][0] - pair.inputs["rgb"][1]).mean())

    report = order_report(
        pairs,
        {"own": build()},
        {"apart": build(seed=3)},
        frames=lambda action: frames,
        panel=lambda pair: {"margin": brighter(pair), "scene": 1.0, "balls": 0.5},
    )
    assert list(report.seed) == [0, 1]
    np.testing.assert_allclose(report["apart gap"][0], -report["apart gap"][1], atol=1e-6)
    assert (report["tsn gap"] == 0).all()
    np.testing.assert_allclose(report.later[0], -report.later[1], atol=1e-6)
    assert report.margin[0] == pytest.approx(-report.margin[1])
    said = in_words(report)
    assert "in 1 of 2 drawings" in said
    assert "right sequence in 1 of 2" in said
    assert "2 of 2 drawings did not succeed" in said
    assert "did not succeed" not in in_words(report.assign(**{"own p(A,B)": 0.9}))
    assert "own gap" not in order_report(pairs[:1], {}, {"apart": build()})
