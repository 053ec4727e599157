import pytest
import torch

from ifttn.experiment.cost import as_text, meta_inputs, meta_network, stage_cost
from ifttn.experiment.optimisation import clip, freeze_all_but, optimiser, stage_loss
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import JOINT, RECIPES
from ifttn.vocabulary import IfttnError


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_of_every_preset_builds_and_takes_a_step_of_each_stage(recipe, preset):
    row, sizes = RECIPES[recipe], PRESETS[preset]
    if row.peer and not sizes.peers:
        with pytest.raises(IfttnError, match="choose from paper, tiny, smallest"):
            as_text(recipe, preset, videos=640, actions=5, machine=Machine())
        return
    network = meta_network(row, sizes, actions=5)
    for stage in row.stages:
        freeze_all_but(network, stage.trains, sizes.batch_norm_in(stage))
        steps = optimiser(network, sizes)
        output = network(meta_inputs(row, sizes, videos=1))
        if row.peer and stage.heads:
            assert {*stage.heads} == {*output.logits}
        loss, scores = stage_loss(stage, output, torch.zeros(1, dtype=torch.long, device="meta"))
        loss.backward()
        assert scores.shape == (1, 5)
        # DistributedDataParallel waits for the gradient of every parameter that trains.
        idle = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
        assert not idle
        clip(network, sizes)
        for group in steps.param_groups:
            group["lr"] = group["times"] * sizes.schedules[stage.name].lr
        steps.step()
        steps.zero_grad(set_to_none=True)


def test_the_cost_is_what_was_counted_by_hand():
    # shared facts: 70.9 million parameters and 79 GMAC a crop of seven snippets, ResNet-50 at 224 px
    text = as_text("if-ttn", "paper", videos=9537, actions=101, machine=Machine())
    assert "parameters: 70.94 million" in text
    ttn, joint = (line.split() for line in text.splitlines()[-2:])
    assert (ttn[0], ttn[1], ttn[2]) == ("ttn", "200", "30000")  # 150 steps an epoch
    assert float(ttn[4]) == float(joint[4]) == pytest.approx(79.0, abs=0.1)
    assert float(joint[6]) > 1.9 * float(ttn[6])


@pytest.mark.parametrize(
    ("recipe", "index", "peak"),
    [("spatial", 0, 11.4e9), ("temporal", 0, 13.27e9), ("if-ttn", 0, 15.67e9), ("if-ttn", 1, 33.02e9)],
)
def test_planned_memory_is_what_a_gpu_took(recipe, index, peak):
    # Peaks of an H100 at a batch of 64 videos, with data. The computed memory may be a fifth above them, and not below
    row = RECIPES[recipe]
    planned = stage_cost(row, PRESETS["paper"], row.stages[index], videos=9537, actions=101, machine=Machine()).memory
    assert peak <= planned <= 1.2 * peak


def test_the_cost_of_a_peer_is_that_of_one_snippet_where_its_recipe_says_so():
    text = as_text("c3d", "paper", videos=9537, actions=101, machine=Machine())
    assert "segments = 1" in text
    assert float(text.splitlines()[-1].split()[4]) == pytest.approx(
        38.5, abs=0.1
    )  # images of 112 px, half the preset's


def test_recomputing_and_smaller_micro_batches_need_less_memory():
    def joint(machine):
        row, preset = RECIPES["if-ttn"], PRESETS["small"]
        return stage_cost(row, preset, JOINT, videos=640, actions=16, machine=machine)

    usual = joint(Machine())
    assert joint(Machine(recompute=True)).activations < 0.75 * usual.activations  # the stems are kept
    assert joint(Machine(micro_batch=8)).memory < usual.memory / 3
    assert joint(Machine(precision="fp32")).activations == 2 * usual.activations
