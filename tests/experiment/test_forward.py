import copy

import pytest
import torch
from torch import nn

from ifttn.experiment.cost import meta_inputs
from ifttn.experiment.forward import Forward, compiled_forward
from ifttn.experiment.networks import network_settings
from ifttn.experiment.optimisation import freeze_all_but, optimiser, stage_loss
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import RECIPES
from ifttn.model.network import Network, pyramids_of
from ifttn.vocabulary import IfttnError

PRESET, LABELS = PRESETS["smallest"], torch.tensor([0, 3])
STAGES = {"spatial": ("spatial", 0), "ttn": ("if-ttn", 0), "joint": ("if-ttn", 1)}


def staged(name):
    """The network of a stage, the stage, and a batch."""
    torch.manual_seed(0)
    recipe = RECIPES[STAGES[name][0]]
    network, stage = Network(network_settings(recipe, PRESET, 4)), recipe.stages[STAGES[name][1]]
    freeze_all_but(network, stage.trains, PRESET.batch_norm)
    shapes = {m: x.shape for m, x in meta_inputs(recipe, PRESET, 2).items()}
    return network, stage, {m: torch.randint(0, 256, shape, dtype=torch.uint8) for m, shape in shapes.items()}


@pytest.mark.usefixtures("compiled_eagerly")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_is_one_graph_with_the_same_loss_and_gradients(name, precision):
    plain, stage, inputs = staged(name)
    machine, quick = Machine(precision=precision, compile=True), copy.deepcopy(plain)
    losses = []
    for network, on in ((plain, Machine(precision=precision)), (quick, machine)):
        forward = compiled_forward(Forward(network, PRESET.segments, machine.dtype("cpu")), on)
        torch.manual_seed(1)  # dropout
        with machine.autocast("cpu"):
            output = forward(inputs, False)
        losses.append(stage_loss(stage, output, LABELS)[0])
        losses[-1].backward()
    assert losses[0] == losses[1]
    for (key, one), (_, other) in zip(plain.named_parameters(), quick.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=key)
    assert [*plain.state_dict()] == [*quick.state_dict()]


def test_frozen_streams_are_cast_and_folded_once_and_the_network_stays_as_it_is():
    network, _, inputs = staged("ttn")
    before = copy.deepcopy(network.state_dict())
    forward = Forward(network, PRESET.segments, torch.bfloat16)
    for part in forward.streams.modules():
        assert not isinstance(part, nn.BatchNorm2d)
        assert not isinstance(part, nn.Conv2d) or part.weight.dtype == torch.bfloat16
    with Machine(precision="bf16").autocast("cpu"), torch.no_grad():
        found, expected = pyramids_of(forward.streams, inputs)["flow"][5], network.pyramids(inputs)["flow"][5]
        forward(inputs)
    torch.testing.assert_close(found, expected, rtol=0.05, atol=float(0.02 * expected.max()))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items() if "streams." in key)
    assert Forward(network, PRESET.segments, torch.float32).streams is None  # on a CPU the bits stay the same
    assert Forward(staged("joint")[0], PRESET.segments, torch.bfloat16).streams is None


def test_compiled_code_decides_itself_what_is_recomputed():
    with pytest.raises(IfttnError, match="--compile and --recompute exclude each other"):
        Machine(compile=True, recompute=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.gpu
@pytest.mark.parametrize("name", STAGES)
def test_a_compiled_stage_has_the_loss_of_the_plain_one_on_a_gpu(name):
    network, stage, inputs = staged(name)
    network.to("cuda")
    machine, found = Machine(compile=True), []
    there = {m: x.to("cuda") for m, x in inputs.items()}
    for part in network.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0  # compiled code draws other numbers
    for way in (Machine(), machine):
        forward = compiled_forward(Forward(network, PRESET.segments, machine.dtype("cuda")), way)
        with machine.autocast("cuda"):
            output = forward(there, False)
        found.append(stage_loss(stage, output, LABELS.to("cuda"))[0])
        found[-1].backward()
    torch.testing.assert_close(found[0], found[1], rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
def test_a_fused_optimiser_moves_weights_as_the_plain_one_does(gpu):
    network, *_ = staged("joint")
    ends = []
    for device in ("cpu", gpu):
        own = copy.deepcopy(network).to(device)
        steps = optimiser(own, PRESETS["paper"])
        generator = torch.Generator().manual_seed(3)
        for _ in range(3):
            for parameter in own.parameters():
                drawn = torch.randn(parameter.shape, generator=generator)
                parameter.grad = torch.empty_like(parameter).copy_(drawn)  # a fused step needs the parameter's layout
            steps.step()
        ends.append([parameter.detach().cpu() for parameter in own.parameters()])
    for one, other in zip(*ends, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
