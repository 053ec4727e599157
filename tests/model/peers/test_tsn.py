import pytest
import torch

from ifttn.model.peers.tsn import MODULES, BNInception, tsn

SIDES = {"3a": 28, "3b": 28, "3c": 28, "4a": 14, "4b": 14, "4c": 14, "4d": 14, "4e": 14, "5a": 7, "5b": 7}
OUTPUTS = [256, 320, 576, 576, 576, 608, 608, 1056, 1024, 1024]


def by_hand():
    """Multiply-adds of Figure 5 of Ioffe & Szegedy: kernel, channels in and out, cells."""
    total, inputs = 112**2 * 49 * 3 * 64 + 56**2 * (64 * 64 + 9 * 64 * 192), 192
    for (name, row), outputs in zip(MODULES.items(), OUTPUTS, strict=True):
        one, three_in, three, double_in, double, projection, _ = row
        here = SIDES[name] ** 2
        there = here if one else here // 4
        total += here * inputs * (one + three_in + double_in + projection) + here * 9 * double_in * double
        total += there * 9 * (three_in * three + double * double)
        inputs = outputs
    return total + inputs * 1000


def test_bn_inception_has_its_known_size_and_cost(cost):
    parameters, macs = cost(lambda: BNInception(3, 1000), (1, 3, 224, 224))
    assert parameters == 11_295_240  # asserted of the ImageNet port by the public model zoos of PyTorch (pytorchcv)
    assert macs == by_hand()  # no paper gives it


def test_each_module_gives_the_channels_of_the_figure():
    net = BNInception(10, 5, width=4).eval()
    features = net.features(torch.randn(2, 10, 64, 64))
    for (name, x), channels in zip(features.items(), OUTPUTS, strict=True):
        side = SIDES[name] // (2 if name in ("3c", "4e") else 1) * 64 // 224
        assert x.shape == (2, channels * 4 // 64, side, side)


@pytest.mark.parametrize("modalities", [("rgb",), ("rgb", "flow"), ("rgb", "rgbdiff")])
def test_tsn_votes_with_every_snippet_of_every_modality(modalities):
    net = tsn(5, modalities, width=4).eval()
    planes = {"rgb": 3, "flow": 10, "rgbdiff": 15}
    output = net({m: torch.randint(0, 256, (2, 3, planes[m], 32, 32), dtype=torch.uint8) for m in modalities})
    assert {m: tuple(v.shape) for m, v in output.votes.items()} == {m: (2, 3, 5) for m in modalities}
