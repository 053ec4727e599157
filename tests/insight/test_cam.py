import pytest
import torch

from ifttn.insight.cam import class_activation_maps, undisturbed
from ifttn.model.network import Network, NetworkSettings

ACTIONS = torch.tensor([[0, 3], [2, 4], [1, 1]])


def build(fusion: str | None, temporal: str = "ttn") -> Network:
    torch.manual_seed(0)
    network = Network(NetworkSettings(actions=5, fusion=fusion, temporal=temporal, backbone="smallest"))
    for head in network.heads.values():
        torch.nn.init.normal_(head.weight)  # the shipped start is so small that any map would pass
        torch.nn.init.normal_(head.bias)
    return network


@pytest.fixture
def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand((3, 3, c, 64, 96), generator=generator) * 255 for name, c in [("rgb", 3), ("flow", 10)]}


@pytest.mark.parametrize(
    ("fusion", "temporal"),
    [("attention", "ttn"), ("attention", "average"), ("attention", "trn"), ("separate", "ttn"), (None, "ttn")],
)
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


@pytest.mark.parametrize("frozen", [True, False])
def test_mapping_leaves_the_network_as_it_was(frozen, inputs):
    network = build("attention").train()
    network.streams["rgb"].eval()
    network.requires_grad_(not frozen)
    modes = [module.training for module in network.modules()]
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    maps = class_activation_maps(network, inputs, ACTIONS)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in network.named_buffers())
    assert all(weight.grad is None and weight.requires_grad is not frozen for weight in network.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in network.modules())
    assert torch.is_grad_enabled()
    assert not maps["ttn"].requires_grad


def test_the_mode_is_restored_after_an_error_and_the_error_is_seen():
    network = build(None).train()

    def read_wrongly() -> None:
        with undisturbed(network):
            assert not network.training
            _ = [][0]

    with pytest.raises(IndexError):
        read_wrongly()
    assert network.training
