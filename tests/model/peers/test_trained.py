from dataclasses import asdict

import pytest
import torch
from torch import nn

from ifttn.model.network import Network, NetworkSettings
from ifttn.model.peers.table5 import TRAINED
from ifttn.model.peers.trained import PeerSettings, build_network, settings_of
from ifttn.vocabulary import MODALITIES, IfttnError

FED = {
    "two-stream-i3d": ("rgb8", "flow8"),
    "din": ("rgb10",),
    "c3d": ("rgb16",),
    "emv-cnn": ("rgb", "mv10"),
    "coviar": ("rgb", "accumulated", "residual"),
    "off": ("rgb", "rgbdiff"),
    "off-flow": ("flow",),
    "tsm": ("rgb",),
    "tdn": ("rgb5",),
}
OF_WHOLE_VIDEOS = ("off", "off-flow", "tsm", "tdn")


def planes(modalities, videos, segments, size):
    generator = torch.Generator().manual_seed(0)
    return {
        m: torch.randint(
            0, 256, (videos, segments, MODALITIES[m].channels, size, size), dtype=torch.uint8, generator=generator
        )
        for m in modalities
    }


def test_every_trainable_peer_is_tested_here():
    assert set(FED) == set(TRAINED)


@pytest.mark.parametrize("peer", FED)
def test_a_peer_stores_its_convolutions_channels_last(peer):
    network = build_network(PeerSettings(6, FED[peer], None, peer=peer))
    weights = [part.weight for part in network.modules() if isinstance(part, nn.Conv2d | nn.Conv3d)]
    layouts = {4: torch.channels_last, 5: torch.channels_last_3d}
    assert weights
    assert all(weight.is_contiguous(memory_format=layouts[weight.ndim]) for weight in weights)


@pytest.mark.parametrize("peer", [peer for peer in FED if peer not in OF_WHOLE_VIDEOS])
def test_a_video_is_voted_for_by_its_snippets_one_by_one(peer):
    torch.manual_seed(0)
    network = build_network(PeerSettings(6, FED[peer], None, peer=peer)).eval()
    inputs = planes(FED[peer], 2, 3, 64)
    with torch.no_grad():
        whole = network(inputs)
        for k in range(3):
            alone = network({m: x[:, k : k + 1] for m, x in inputs.items()})
            for head, votes in whole.votes.items():
                torch.testing.assert_close(votes[:, k], alone.logits[head], atol=1e-5, rtol=1e-4)
    for head, logits in whole.logits.items():
        torch.testing.assert_close(logits, whole.votes[head].mean(1))
        assert 0.01 < logits.std() < 10  # what goes in comes through


@pytest.mark.parametrize("peer", ["off", "off-flow"])
def test_off_votes_on_snippets_and_pairs_and_scores_without_its_lower_levels(peer):
    network, inputs = build_network(PeerSettings(6, FED[peer], None, peer=peer)), planes(FED[peer], 2, 3, 64)
    with torch.no_grad():
        training, whole = network.train()(inputs), network.eval()(inputs)
    assert set(training.logits) == {*network.head_names}
    assert set(whole.logits) == {*network.scoring} == {head for m in FED[peer] for head in (m, f"off-{m}")}
    for head, votes in whole.votes.items():
        assert votes.shape == (2, 2 if head.startswith("off") else 3, 6)


@pytest.mark.parametrize("peer", ["tsm", "tdn"])
def test_the_snippets_of_a_video_vote_together_and_those_of_other_videos_do_not_matter(peer):
    network, inputs = build_network(PeerSettings(6, FED[peer], None, peer=peer)).eval(), planes(FED[peer], 2, 3, 64)
    with torch.no_grad():
        whole, last = network(inputs), network({m: x[1:] for m, x in inputs.items()})
        alone = network({m: x[:, :1] for m, x in inputs.items()})
    torch.testing.assert_close(whole.logits["rgb"], whole.votes["rgb"].mean(1))
    torch.testing.assert_close(whole.votes["rgb"][1:], last.votes["rgb"])
    assert not torch.allclose(whole.votes["rgb"][:, :1], alone.votes["rgb"], rtol=1e-3)


def test_a_peer_of_another_size_than_the_presets_images_sees_them_smaller():
    settings = PeerSettings(6, ("rgb16",), None, peer="c3d")
    network = build_network(settings).eval()
    small = planes(("rgb16",), 1, 1, 64)["rgb16"]
    large = small.repeat_interleave(2, 3).repeat_interleave(2, 4)
    with torch.no_grad():
        torch.testing.assert_close(network({"rgb16": large}).logits, network({"rgb16": small}).logits)


def test_settings_come_back_from_a_run_folder():
    for settings in (
        PeerSettings(6, ("rgb10",), None, peer="din"),
        NetworkSettings(6, ("rgb",), None, backbone="tiny"),
    ):
        assert settings_of(asdict(settings)) == settings
    assert type(build_network(settings)) is Network


def test_dropout_of_a_small_peer_is_the_presets():
    drop = {"rgb": 0.25, "motion": 0.0, "ttn": 0.0}
    with torch.device("meta"):
        for size, expected in (("small", {0.25}), ("paper", {0.5, 0.8, 0.9})):
            network = build_network(PeerSettings(6, FED["emv-cnn"], None, dropout=drop, peer="emv-cnn", size=size))
            assert {m.p for m in network.modules() if isinstance(m, torch.nn.Dropout)} == expected


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(IfttnError, match=r"choose from two-stream-i3d, din, c3d, .*, off-flow, tsm, tdn"):
        PeerSettings(6, ("rgb",), None, peer="tsn-rgb-flow")
    with pytest.raises(IfttnError, match=r"DIN .* has no size 'large': choose from paper, small"):
        PeerSettings(6, ("rgb",), None, peer="din", size="large")
