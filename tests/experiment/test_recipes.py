from dataclasses import fields, replace

import pytest
import torch
from torch.nn.functional import cross_entropy

from ifttn.experiment import plan
from ifttn.experiment.machine import Machine
from ifttn.experiment.optimisation import clip, freeze_all_but, optimiser
from ifttn.experiment.recipes import (
    JOINT,
    PRESET_ROWS,
    PRESETS,
    RECIPE_ROWS,
    RECIPES,
    SPATIAL,
    WHY,
    WHY_RECIPE,
    Child,
    Preset,
    in_order,
    why,
)
from ifttn.experiment.training import stage_loss
from ifttn.model.network import Output
from ifttn.vocabulary import IfttnError


@pytest.mark.parametrize(("rows", "table"), [(RECIPE_ROWS, RECIPES), (PRESET_ROWS, PRESETS)])
def test_a_row_shows_only_what_differs_from_its_parent(rows, table):
    for name, row in rows.items():
        if isinstance(row, Child):
            for field, value in row.changes.items():
                assert value != getattr(table[row.parent], field), f"{name}.{field} is as in {row.parent}"


def test_every_choice_has_its_reason_and_every_reason_its_choice():
    assert set(WHY_RECIPE) == set(RECIPES)
    for name, row in PRESET_ROWS.items():
        own = set(row.changes) if isinstance(row, Child) else {field.name for field in fields(Preset)}
        assert set(WHY[name]) == own
        assert all(why(name, field.name) for field in fields(Preset))


def test_the_papers_schedule_is_the_papers():
    paper = PRESETS["paper"]
    assert (paper.backbone, paper.segments, paper.optimiser, paper.batch) == ("resnet50", 7, "sgd", 64)
    found = {name: (s.epochs, s.lr, s.decay_at) for name, s in paper.schedules.items()}
    assert found["spatial"] == (80, 1e-3, (30, 60))
    assert found["temporal"] == found["mv-temporal"] == (250, 1e-3, (100, 200))
    assert found["ttn"] == found["mv-ttn"] == (200, 1e-3, (80, 160))
    assert paper.dropout == {"rgb": 0.8, "motion": 0.7, "ttn": 0.8}


def test_a_recipe_comes_after_all_that_it_starts_from():
    order = in_order("mv-if-ttn")
    assert order[-1] == "mv-if-ttn"
    assert set(order) == {"spatial", "temporal", "mv-temporal", "if-ttn", "mv-if-ttn"}
    for name in order:
        assert all(order.index(needed) < order.index(name) for needed in RECIPES[name].needs)


def runs_behind(recipe: str, part: str) -> list[str]:
    """The parts of runs that a part's weights go back to, the nearest first."""
    found = [start for start in RECIPES[recipe].starts_from if start.part == part]
    return [f"{s.recipe}: {s.source}" for s in found] + [
        each for s in found for each in runs_behind(s.recipe, s.source)
    ]


def test_the_whole_motion_vector_network_starts_from_the_flow_trained_if_ttn():
    # Paper, section 3.3: "we first train the optical-flow-based IF-TTN, and then initialize the motion-vector-based
    # network with optical flow pre-trained weights".
    behind = {start.part: runs_behind("mv-if-ttn", start.part) for start in RECIPES["mv-if-ttn"].starts_from}
    assert set(behind) == {f"{kind}.{m}" for kind in ("streams", "heads") for m in ("rgb", "mv")} | {
        "temporal.ttn",
        "heads.ttn",
    }
    for part, sources in behind.items():
        assert f"if-ttn: {part.replace('mv', 'flow')}" in sources


def test_every_ttn_that_is_no_successor_of_one_starts_from_the_spatial_network():
    # Paper, section 3.4: "we initialize the temporal network and TTN with pre-trained spatial network weights".
    for name, recipe in RECIPES.items():
        for start in recipe.starts_from:
            if start.part.startswith("temporal."):
                sources = runs_behind(name, start.part)
                assert sources[-1] == "spatial: streams.rgb"
                assert not any(source.startswith("temporal:") for source in sources)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_of_every_preset_builds_and_takes_a_step_of_each_stage(recipe, preset):
    row, sizes = RECIPES[recipe], PRESETS[preset]
    if row.peer and not sizes.peers:
        with pytest.raises(IfttnError, match="choose from paper, tiny, smallest"):
            plan.text(recipe, preset, videos=640, actions=5, machine=Machine())
        return
    network = plan.meta_network(row, sizes, actions=5)
    for stage in row.stages:
        batch_norm = (stage == JOINT and sizes.joint_batch_norm) or sizes.batch_norm
        freeze_all_but(network, stage.trains, batch_norm)
        steps = optimiser(network, sizes)
        output = network(plan.meta_inputs(row, sizes, videos=1))
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


def test_a_part_or_a_head_is_not_another_one_whose_name_begins_as_its_own():
    logits = {head: torch.randn(2, 5) for head in ("rgb", "rgbdiff")}
    labels = torch.tensor([1, 4])
    loss, scores = stage_loss(SPATIAL, Output(logits, {}, {}), labels)
    assert loss == cross_entropy(logits["rgb"], labels)
    assert torch.equal(scores, logits["rgb"])
    network = plan.meta_network(replace(RECIPES["if-ttn"], modalities=("rgb", "rgbdiff")), PRESETS["smallest"], 5)
    freeze_all_but(network, SPATIAL.trains, "trained")
    trained = {".".join(name.split(".")[:2]) for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"streams.rgb", "heads.rgb"}


def test_a_plan_counts_what_was_counted_by_hand():
    # shared facts: 70.9 million parameters and 79 GMAC a crop of seven snippets, ResNet-50 at 224 px
    text = plan.text("if-ttn", "paper", videos=9537, actions=101, machine=Machine())
    assert "parameters: 70.94 million" in text
    ttn, joint = (line.split() for line in text.splitlines()[-2:])
    assert (ttn[0], ttn[1], ttn[2]) == ("ttn", "200", "30000")  # 150 steps an epoch
    assert float(ttn[4]) == float(joint[4]) == pytest.approx(79.0, abs=0.1)
    assert float(joint[6]) > 3 * float(ttn[6])


@pytest.mark.parametrize(
    ("recipe", "index", "peak"), [("spatial", 0, 20.5e9), ("temporal", 0, 22e9), ("if-ttn", 0, 15.5e9)]
)
def test_planned_memory_is_what_a_gpu_took(recipe, index, peak):
    # peaks of an H100 at a batch of 64 videos; the plan may be a tenth above them, and not below
    row = RECIPES[recipe]
    planned = plan.plan(row, PRESETS["paper"], row.stages[index], videos=9537, actions=101, machine=Machine()).memory
    assert peak <= planned <= 1.1 * peak


def test_a_plan_of_a_peer_is_that_of_one_snippet_where_its_recipe_says_so():
    text = plan.text("c3d", "paper", videos=9537, actions=101, machine=Machine())
    assert "segments = 1" in text
    assert float(text.splitlines()[-1].split()[4]) == pytest.approx(
        38.5, abs=0.1
    )  # images of 112 px, half the preset's


def test_recomputing_and_smaller_micro_batches_need_less_memory():
    def joint(machine):
        row, preset = RECIPES["if-ttn"], PRESETS["small"]
        return plan.plan(row, preset, JOINT, videos=640, actions=16, machine=machine)

    usual = joint(Machine())
    assert joint(Machine(recompute=True)).activations < 0.6 * usual.activations  # the stems are kept
    assert joint(Machine(micro_batch=8)).memory < usual.memory / 3
    assert joint(Machine(precision="fp32")).activations == 2 * usual.activations
