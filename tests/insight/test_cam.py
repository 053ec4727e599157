import numpy as np
import pytest
import torch

from ifttn.insight.cam import (
    OneTensor,
    class_activation_maps,
    dilated,
    on_pixels,
    scaled,
    stack,
)
from ifttn.model.network import Network, NetworkSettings
from ifttn.vocabulary import IfttnError

ACTIONS = torch.tensor([[0, 3], [2, 4], [1, 1]])
KINDS = [("attention", "ttn"), ("attention", "average"), ("attention", "trn"), ("separate", "ttn"), (None, "ttn")]


def build(fusion: str | None, temporal: str = "ttn", backbone: str = "smallest") -> Network:
    torch.manual_seed(0)
    network = Network(NetworkSettings(actions=5, fusion=fusion, temporal=temporal, backbone=backbone))
    for head in network.heads.values():
        torch.nn.init.normal_(head.weight)  # the shipped start is so small that any map would pass
        torch.nn.init.normal_(head.bias)
    return network


def some_inputs(height: int = 64, width: int = 96, segments: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand((3, segments, c, height, width), generator=generator) * 255
        for name, c in [("rgb", 3), ("flow", 10)]
    }


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    return some_inputs()


@pytest.mark.parametrize(("fusion", "temporal"), KINDS)
def test_the_mean_of_a_map_and_the_bias_are_the_vote(fusion, temporal, inputs):
    network = build(fusion, temporal).eval()
    maps = class_activation_maps(network, inputs, ACTIONS)
    with torch.no_grad():
        output = network(inputs)
    assert set(maps) == set(output.votes)
    for head, votes in output.votes.items():
        asked = torch.stack([votes[n, :, actions] for n, actions in enumerate(ACTIONS)])  # (N, V, B)
        summed = maps[head].mean((3, 4)) + network.heads[head].bias[ACTIONS][:, None]
        torch.testing.assert_close(summed, asked, rtol=1e-5, atol=1e-5)


def test_a_stream_maps_snippets_and_ttn_maps_pairs(inputs):
    maps = class_activation_maps(build("attention"), inputs, ACTIONS)
    assert {head: tuple(of.shape) for head, of in maps.items()} == {
        "rgb": (3, 3, 2, 2, 3),
        "flow": (3, 3, 2, 2, 3),
        "ttn": (3, 2, 2, 2, 3),
    }


def test_maps_are_signed(inputs):
    maps = class_activation_maps(build("attention"), inputs, ACTIONS)["ttn"]
    assert maps.min() < 0 < maps.max()


def test_a_map_of_a_pair_knows_nothing_of_the_snippets_outside_it(inputs):
    network = build("attention")
    before = class_activation_maps(network, inputs, ACTIONS)["ttn"]
    changed = {name: torch.cat([x[:, :2], 255 - x[:, 2:]], dim=1) for name, x in inputs.items()}
    after = class_activation_maps(network, changed, ACTIONS)["ttn"]
    torch.testing.assert_close(after[:, 0], before[:, 0])
    assert not torch.allclose(after[:, 1], before[:, 1])


@pytest.mark.parametrize(("fusion", "temporal"), KINDS)
def test_the_package_agrees_with_weights_times_features(fusion, temporal, inputs):
    """Its pictures: cut at 0, resized as a picture, each from its least to its most."""
    network = build(fusion, temporal)
    exact = class_activation_maps(network, inputs, ACTIONS)
    package = class_activation_maps(network, inputs, ACTIONS, method="gradcam")
    for head, maps in exact.items():
        flat = maps.clamp_min(0).flatten(0, 1)
        # It scales before and after resizing.
        flat = _scaled(torch.nn.functional.interpolate(_scaled(flat), (64, 96), mode="bilinear"))
        assert package[head].shape == (*maps.shape[:3], 64, 96)
        torch.testing.assert_close(package[head].flatten(0, 1), flat, rtol=0, atol=2e-4)


def _scaled(maps: torch.Tensor) -> torch.Tensor:
    maps = maps - maps.amin((-2, -1), keepdim=True)
    return maps / (1e-7 + maps.amax((-2, -1), keepdim=True))


@pytest.mark.parametrize("head", ["rgb", "flow", "ttn"])
def test_the_gradients_that_the_package_reads_are_the_classifier_s_weights(head, inputs):
    """Grad-CAM weighs a channel by its mean gradient: that is the weight / (h w), to 1e-6, before anything is drawn."""
    network = build("attention").eval()
    adapter = OneTensor(network, head, segments=3)
    seen = []
    adapter.probe.register_forward_hook(lambda module, args, out: seen.append(out))
    votes = adapter(stack(network, inputs))
    (gradient,) = torch.autograd.grad(votes[:, 3].sum(), seen[0])
    raw = (gradient.mean((2, 3), keepdim=True) * seen[0]).sum(1) * gradient[0, 0].numel()
    exact = class_activation_maps(network, inputs, torch.full((3, 1), 3))[head][:, :, 0].flatten(0, 1)
    assert (raw - exact).abs().max() < 1e-6 * exact.abs().max()


@pytest.mark.parametrize(("fusion", "temporal"), KINDS[:4])
def test_the_one_tensor_adapter_says_what_the_network_says_and_its_probe_fires_once(fusion, temporal, inputs):
    network = build(fusion, temporal).eval()
    for head in network.heads:
        adapter, fired = OneTensor(network, head, segments=3), []
        adapter.probe.register_forward_hook(lambda module, args, out, fired=fired: fired.append(out.shape))
        with torch.no_grad():
            votes, expected = adapter(stack(network, inputs)), network(inputs).votes[head]
        assert len(fired) == 1
        assert expected.shape[1] == adapter.votes
        torch.testing.assert_close(votes, expected.flatten(0, 1))


def test_an_unknown_head_is_refused():
    with pytest.raises(IfttnError, match="rgb, flow, ttn"):
        OneTensor(build("attention"), "mv")


@pytest.mark.parametrize("method", ["cam", "gradcam"])
@pytest.mark.parametrize("frozen", [True, False])
def test_mapping_leaves_the_network_as_it_was(frozen, method, inputs):
    network = build("attention").train()
    network.streams["rgb"].eval()
    network.requires_grad_(not frozen)
    kept = None if frozen else torch.ones_like(network.heads["ttn"].weight)
    network.heads["ttn"].weight.grad = kept
    modes = [module.training for module in network.modules()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    maps = class_activation_maps(network, inputs, ACTIONS, method=method, finer=2)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())
    assert all(weight.requires_grad is not frozen for weight in network.parameters())
    assert network.heads["ttn"].weight.grad is kept
    assert sum(weight.grad is not None for weight in network.parameters()) == (not frozen)
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert not any(conv.dilation != (1, 1) for conv in network.modules() if isinstance(conv, torch.nn.Conv2d))
    assert torch.is_grad_enabled()
    assert not maps["ttn"].requires_grad


@pytest.mark.parametrize("backbone", ["smallest", "resnet50"])
@pytest.mark.parametrize("finer", [2, 4])
def test_every_nth_cell_of_a_finer_map_is_the_map_itself(finer, backbone):
    network, inputs = build("attention", backbone=backbone), some_inputs(72, 96, segments=2)
    coarse = class_activation_maps(network, inputs, ACTIONS)
    fine = class_activation_maps(network, inputs, ACTIONS, finer=finer)
    for head, maps in coarse.items():
        assert fine[head].shape[-2:] == (-(-72 * finer // 32), 3 * finer)
        assert (fine[head][..., ::finer, ::finer] - maps).abs().max() < 1e-5 * maps.abs().max()


def test_the_cells_between_are_what_the_network_says_of_a_moved_image():
    """In the middle, where no border is within reach of the kernels of levels 4 and 5."""
    network, inputs = build(None), some_inputs(256, 256, segments=1)
    one = {name: x[:1] for name, x in inputs.items()}
    moved = {name: x[..., 16:, 16:] for name, x in one.items()}
    actions = ACTIONS[:1]
    fine = class_activation_maps(network, one, actions, finer=2)["rgb"]
    seen = class_activation_maps(network, moved, actions)["rgb"]
    torch.testing.assert_close(fine[..., 7, 7], seen[..., 3, 3], rtol=0.05, atol=0.05 * float(seen.abs().max()))


def test_a_cell_speaks_of_the_pixel_on_which_padding_centres_it():
    """With kernels that all are 1, the gradient of cell i is symmetric about pixel 32 i."""
    network = build(None).eval()
    body = network.streams["rgb"].double()
    for conv in body.modules():
        if isinstance(conv, torch.nn.Conv2d):
            torch.nn.init.constant_(conv.weight, 0.01)
    image = torch.ones((1, 3, 320, 320), dtype=torch.double, requires_grad=True)
    (gradient,) = torch.autograd.grad(body(image)[5][0, :, 5, 4].sum(), image)
    # Max pooling hands a tie to the first of its cells: one cell of 2 px up and left.
    weight = gradient.sum((0, 1))
    row = (weight.sum(1) * torch.arange(320)).sum() / weight.sum()
    column = (weight.sum(0) * torch.arange(320)).sum() / weight.sum()
    assert abs(row - 32 * 5) < 3
    assert abs(column - 32 * 4) < 3


def test_a_map_lies_on_the_pixels_of_its_cells():
    maps = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    pixels = on_pixels(maps, (64, 96))
    torch.testing.assert_close(pixels[::32, ::32], maps)
    torch.testing.assert_close(pixels[0, 16], torch.tensor(0.5))
    torch.testing.assert_close(pixels[63, 95], torch.tensor(5.0))
    assert on_pixels(torch.ones(2, 1, 1), (8, 8)).shape == (2, 8, 8)
    torch.testing.assert_close(on_pixels(maps, (16, 24), stride=8.0)[::8, ::8], maps)


def test_scaled_maps_note_where_there_is_no_evidence_for_the_action():
    maps = np.array([[[-1.0, -3.0]], [[2.0, -1.0]]], np.float32)
    signed, notes = scaled(maps)
    np.testing.assert_allclose(signed, maps / 3)
    assert notes == ["no positive evidence for this class", ""]
    np.testing.assert_allclose(scaled(maps, "relu")[0], [[[0, 0]], [[1, 0]]])
    np.testing.assert_allclose(scaled(maps, "relu", shared=False)[0], [[[0, 0]], [[1, 0]]])
    np.testing.assert_allclose(scaled(maps, "min-max", shared=False)[0], [[[1, 0]], [[1, 0]]])
    np.testing.assert_allclose(scaled(maps, "min-max")[0], [[[0.4, 0]], [[1, 0.4]]])


def test_a_network_stays_as_it_is_while_others_ask_a_dilated_one(inputs):
    network = build("attention").train()
    seen = []
    conv = network.temporal["ttn"].layer4[0].conv2
    conv.register_forward_pre_hook(lambda module, _: seen.append((module.dilation, conv.dilation, network.training)))
    finer = dilated(network, 4).eval()
    finer(inputs)
    class_activation_maps(network, inputs, ACTIONS, finer=4)
    assert seen == [((4, 4), (1, 1), True)] * 2
    assert finer.state_dict().keys() == network.state_dict().keys()
    assert all(x.data_ptr() == y.data_ptr() for x, y in zip(finer.parameters(), network.parameters(), strict=True))
    assert network.temporal["ttn"].layer4[0].conv1.stride == (2, 2)


def test_an_error_inside_the_package_is_seen():
    network = build("attention")
    with pytest.raises(IndexError):
        class_activation_maps(network, some_inputs(), torch.full((3, 1), 99), method="gradcam")
