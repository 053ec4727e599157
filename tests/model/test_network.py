import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ifttn.model.network import Network, NetworkSettings, normalise
from ifttn.vocabulary import MODALITIES, IfttnError


def network(**settings):
    torch.manual_seed(0)
    return Network(NetworkSettings(**{"actions": 5, "backbone": "smallest", **settings})).eval()


def snippets(modalities=("rgb", "flow"), videos=2, segments=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        m: torch.randint(
            0, 256, (videos, segments, MODALITIES[m].channels, 64, 64), dtype=torch.uint8, generator=generator
        )
        for m in modalities
    }


def test_the_full_network_has_the_papers_size_and_cost():
    with torch.device("meta"):
        full = Network(NetworkSettings(actions=101)).eval()
        inputs = {m: torch.empty(1, 7, MODALITIES[m].channels, 224, 224) for m in ("rgb", "flow")}
    assert round(sum(p.numel() for p in full.parameters()) / 1e6, 1) == 70.9
    with FlopCounterMode(display=False) as counter:
        full(inputs)
    assert counter.get_total_flops() / 2 / 1e9 == pytest.approx(79, abs=1)  # multiply-adds of a seven-snippet crop


def test_fusion_saves_a_cnn():
    with torch.device("meta"):
        sizes = {
            fusion: sum(p.numel() for p in Network(NetworkSettings(actions=101, fusion=fusion)).parameters())
            for fusion in ("attention", "separate")
        }
    assert sizes["separate"] - sizes["attention"] > 23e6  # four CNNs to three (paper, section 4.3)


@pytest.mark.parametrize("fusion", ["attention", "adaptive", "additive", "multiplicative", "separate", None])
@pytest.mark.parametrize("temporal", ["ttn", "average", "trn"])
def test_every_row_of_the_ablations_is_a_network(fusion, temporal):
    net = network(fusion=fusion, temporal=temporal)
    output = net(snippets())
    temporal_heads = {None: set(), "separate": {"ttn-rgb", "ttn-flow"}}.get(fusion, {"ttn"})
    assert set(output.logits) == {"rgb", "flow"} | temporal_heads
    for head, logits in output.logits.items():
        assert logits.shape == (2, 5)
        votes = 3 if head in ("rgb", "flow") or temporal == "average" else 2
        assert output.votes[head].shape == (2, votes, 5)
        torch.testing.assert_close(output.votes[head].mean(1), logits)


def test_taps_name_every_intermediate():
    taps = network()(snippets()).taps
    assert set(taps) == {f"{name}.{level}" for name in ("rgb", "flow", "fused") for level in (2, 3, 4, 5)} | {
        "ttn.3",
        "ttn.4",
        "ttn.5",
    }
    torch.testing.assert_close(taps["fused.3"], taps["rgb.3"] + taps["rgb.3"] * taps["flow.3"])
    assert taps["ttn.5"].shape[0] == 2 * 2


def test_a_vote_is_the_linear_read_out_of_its_tap():
    net = network()
    output = net(snippets())
    head = net.heads["ttn"]
    by_hand = output.taps["ttn.5"].mean((2, 3)) @ head.weight.T + head.bias
    torch.testing.assert_close(output.votes["ttn"].flatten(0, 1), by_hand)


def test_reversed_snippets_change_the_ttn_and_not_the_streams():
    net, inputs = network(), snippets()
    ahead, back = net(inputs).logits, net({m: x.flip(1) for m, x in inputs.items()}).logits
    for head in ("rgb", "flow"):
        torch.testing.assert_close(ahead[head], back[head])
    assert not torch.allclose(ahead["ttn"], back["ttn"], atol=1e-5)


def test_videos_of_a_batch_do_not_touch_one_another():
    net, inputs = network(), snippets()
    both = net(inputs).logits["ttn"]
    alone = net({m: x[:1] for m, x in inputs.items()}).logits["ttn"]
    torch.testing.assert_close(both[:1], alone)


def test_no_motion_is_zero_after_normalisation():
    for modality in ("flow", "mv"):
        assert (normalise(torch.full((1, 10, 4, 4), 128, dtype=torch.uint8), modality) == 0).all()


@pytest.mark.parametrize(
    "wrong", [{"fusion": "sum"}, {"temporal": "lstm"}, {"backbone": "vgg"}, {"modalities": ("depth",)}]
)
def test_an_unknown_part_is_an_error_that_names_the_choices(wrong):
    with pytest.raises(IfttnError, match="choose from"):
        network(**wrong)
