from dataclasses import replace

import torch
from torch.nn.functional import cross_entropy

from ifttn.experiment.cost import meta_network
from ifttn.experiment.optimisation import freeze_all_but, stage_loss
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import JOINT, RECIPES, SPATIAL, TTN, with_its_sources
from ifttn.experiment.scores import late_fusion
from ifttn.model.network import Output


def test_a_recipe_comes_after_all_that_it_starts_from():
    order = with_its_sources("mv-if-ttn")
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


def test_a_part_or_a_head_is_not_another_one_whose_name_begins_as_its_own():
    logits = {head: torch.randn(2, 5) for head in ("rgb", "rgbdiff")}
    labels = torch.tensor([1, 4])
    loss, scores = stage_loss(SPATIAL, Output(logits, {}, {}), labels)
    assert loss == cross_entropy(logits["rgb"], labels)
    assert torch.equal(scores, logits["rgb"])
    network = meta_network(replace(RECIPES["if-ttn"], modalities=("rgb", "rgbdiff")), PRESETS["smallest"], 5)
    freeze_all_but(network, SPATIAL.trains, "trained")
    trained = {".".join(name.split(".")[:2]) for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"streams.rgb", "heads.rgb"}


def test_the_preset_chooses_whether_the_joint_stage_has_a_loss_for_each_head_or_one_on_the_late_fused_logits():
    logits = {head: torch.randn(2, 5) for head in ("rgb", "flow", "ttn")}
    output, labels = Output(logits, {}, {}), torch.tensor([1, 4])
    paper, tiny = (stage_loss(JOINT, output, labels, PRESETS[name].joint_loss)[0] for name in ("paper", "tiny"))
    torch.testing.assert_close(paper, sum(cross_entropy(x, labels) for x in logits.values()))
    torch.testing.assert_close(tiny, cross_entropy(late_fusion(logits), labels))
    assert stage_loss(TTN, output, labels, "per head")[0] == cross_entropy(logits["ttn"], labels)
