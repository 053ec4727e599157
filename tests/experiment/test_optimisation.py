import pytest
import torch

from ifttn.experiment.networks import network_settings
from ifttn.experiment.optimisation import clip, freeze_all_but, optimiser
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import JOINT, RECIPES, SPATIAL
from ifttn.model.network import Network


def network(recipe="if-ttn"):
    torch.manual_seed(0)
    return Network(network_settings(RECIPES[recipe], PRESETS["smallest"], 4))


def norm(parameters):
    return torch.stack([p.grad.norm() for p in parameters]).norm().item()


def test_each_part_is_clipped_to_a_norm_of_its_own():
    net = network()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    clip(net, PRESETS["paper"])
    for part, limit in (("rgb", 40.0), ("flow", 20.0)):
        own = [*net.streams[part].parameters(), *net.heads[part].parameters()]
        assert norm(own) == pytest.approx(limit, rel=1e-3)
    assert norm([*net.temporal.parameters(), *net.heads["ttn"].parameters()]) == pytest.approx(40.0, rel=1e-3)


def test_one_norm_over_everything_where_parts_are_not_apart():
    net = network()
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = clip(net, PRESETS["tiny"]).item()
    assert before == pytest.approx(sum(p.numel() for p in net.parameters()) ** 0.5, rel=1e-4)
    assert norm(net.parameters()) == pytest.approx(0.5, rel=1e-3)


def test_frozen_streams_keep_all_their_statistics_while_their_weights_train():
    net = network()
    freeze_all_but(net, JOINT.trains, "frozen")
    assert not net.streams["rgb"].bn1.training
    assert not net.streams["rgb"].bn1.weight.requires_grad
    assert net.streams["rgb"].conv1.weight.requires_grad
    assert net.temporal["ttn"].layer2[0].bn1.training


def test_freezing_twice_is_freezing_once():
    net = network("spatial")
    freeze_all_but(net, SPATIAL.trains, "partial")
    once = {
        name: (m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for name, m in net.named_modules()
    }
    net.eval()
    freeze_all_but(net, SPATIAL.trains, "partial")
    again = {
        name: (m.training, [p.requires_grad for p in m.parameters(recurse=False)]) for name, m in net.named_modules()
    }
    assert once == again


@pytest.mark.parametrize("preset", ["paper", "tiny"])
def test_only_an_averaged_stem_moves_five_times_as_fast(preset):
    net = network("temporal")
    stem = net.streams["flow"].conv1.weight

    def times(*stems):
        rows = optimiser(net, PRESETS[preset], stems).param_groups
        return next(row["times"] for row in rows if any(p is stem for p in row["params"]))

    assert times("flow") == 5.0
    assert times() == 1.0
