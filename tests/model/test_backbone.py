import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from ifttn.model.backbone import BACKBONES, LEVELS, BatchNorm, adapt_stem, build_backbone


@pytest.mark.parametrize(("name", "reference"), [("resnet18", resnet18), ("resnet50", resnet50)])
def test_a_backbone_computes_what_torchvision_computes_with_the_same_weights(name, reference):
    torch.manual_seed(0)
    theirs, ours = reference(weights=None).eval(), build_backbone(name, channels=3).eval()
    state = {key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")}
    ours.load_state_dict(state)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        pooled = ours(images)[5].mean((2, 3))
        torch.testing.assert_close(theirs.fc(pooled), theirs(images))


@pytest.mark.parametrize("name", BACKBONES)
def test_each_level_doubles_the_channels_and_halves_the_sides(name):
    backbone = build_backbone(name, channels=10)
    pyramid = backbone(torch.randn(2, 10, 64, 64))
    for level, features in pyramid.items():
        side = 64 // 2**level
        assert features.shape == (2, backbone.channels[level], side, side)
        assert features.min() >= 0
    assert tuple(pyramid) == LEVELS


def test_a_stem_for_more_channels_starts_as_the_mean_of_the_old_ones():
    weights = {key: value.clone() for key, value in build_backbone("smallest", channels=3).state_dict().items()}
    flow = build_backbone("smallest", channels=10)
    flow.load_state_dict(adapt_stem(weights, 10))
    mean = weights["conv1.weight"].mean(1)
    for channel in range(10):
        assert torch.equal(flow.conv1.weight[:, channel], mean)
    assert torch.equal(adapt_stem(weights, 3)["conv1.weight"], weights["conv1.weight"])


def test_a_stem_by_axis_sees_x_and_y_of_a_motion_by_turns_and_responds_as_strongly():
    weights = {key: value.clone() for key, value in build_backbone("smallest", channels=3).state_dict().items()}
    stem, mean = adapt_stem(weights, 10, by_axis=True)["conv1.weight"], weights["conv1.weight"].mean(1)
    for number, filters in enumerate(stem):
        for channel in range(10):
            seen = mean[number] * 2**0.5 if channel % 2 == number % 2 else torch.zeros_like(mean[number])
            assert torch.equal(filters[channel], seen)
    averaged = adapt_stem(weights, 10)["conv1.weight"]
    torch.testing.assert_close(stem.square().sum((1, 2, 3)), averaged.square().sum((1, 2, 3)))
    assert torch.equal(adapt_stem(weights, 3, by_axis=True)["conv1.weight"], weights["conv1.weight"])


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_frozen_batch_norm_has_torchs_values_and_gradient_and_keeps_no_input(layout):
    ours, theirs = BatchNorm(16), nn.BatchNorm2d(16)
    for tensor in ours.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
    theirs.load_state_dict(ours.state_dict())
    x, gradient = torch.randn(2, 8, 16, 5, 7).unbind()
    found = []
    for norm in (ours.eval().requires_grad_(False), theirs.eval().requires_grad_(False)):
        input = x.contiguous(memory_format=layout).requires_grad_()
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, kept=kept: kept.append(x) or x, lambda x: x):
            output = norm(input)
        output.backward(gradient)
        found.append((output.detach(), input.grad, kept))
    torch.testing.assert_close(found[0][:2], found[1][:2])
    assert all(tensor.shape == (16,) for tensor in found[0][2])
    assert any(tensor.shape == x.shape for tensor in found[1][2])
