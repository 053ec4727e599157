"""Computes what a recipe will cost: parameters, multiply-adds, memory and steps, for `ifttn train --dry-run`.

Everything is computed on the meta device: no weight is allocated, and no video is read.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ifttn.experiment.networks import network_settings
from ifttn.experiment.optimisation import freeze_all_but, stage_loss
from ifttn.experiment.presets import CHOICES, PARENTS, PRESETS, Preset, own_choices
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import RECIPES, Recipe, Stage, find
from ifttn.experiment.recomputing import recompute
from ifttn.model.network import Scorer
from ifttn.model.peers.trained import build_network
from ifttn.vocabulary import MODALITIES

FED = 8
"""The memory for input data on a device, in micro-batches: the current one, two that are loaded ahead, and the decoded
pictures from which they are cropped."""


@dataclass(frozen=True)
class StageCost:
    """The cost of one stage of a recipe at a preset."""

    stage: str
    epochs: int
    steps: int
    """Steps of the optimiser in all epochs."""
    trained: int
    """Parameters that the stage trains."""
    gmacs: float
    """10^9 multiply-adds of one video's forward pass."""
    flops: float
    """Operations of one video's forward and backward pass."""
    activations: float
    """Bytes that autograd and `Output` hold for one video when its forward pass ends."""
    memory: float
    """Bytes on one device: weights, gradients, optimiser, input data (`FED`) and the activations of one micro-batch."""


def meta_network(recipe: Recipe, preset: Preset, actions: int) -> Scorer:
    """The network on the meta device."""
    with torch.device("meta"):
        return build_network(network_settings(recipe, preset, actions))


def meta_inputs(recipe: Recipe, preset: Preset, videos: int) -> dict[str, Tensor]:
    """A batch on the meta device: modality -> (videos, K, C, H, W)."""
    segments, size = recipe.segments or preset.segments, preset.size
    return {
        name: torch.empty(videos, segments, MODALITIES[name].channels, size, size, device="meta")
        for name in recipe.modalities
    }


def stage_cost(
    recipe: Recipe, preset: Preset, stage: Stage, *, videos: int, actions: int, machine: Machine
) -> StageCost:
    """The cost of a stage on one device. The device is a GPU with 16-bit precision, unless `machine` says fp32.

    Memory is computed, not measured. It is the activations of one video (half as many bytes in 16-bit precision) times
    the micro-batch, plus weights and optimiser, plus a tenth for temporary tensors. Autograd keeps no activations of
    frozen streams, but the forward pass holds their pyramids until it ends.
    """
    network = meta_network(recipe, preset, actions)
    freeze_all_but(network, stage.trains, preset.batch_norm_in(stage))
    if machine.recompute:
        recompute(network)
    inputs = meta_inputs(recipe, preset, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        network(inputs)
    with _storages_kept() as (kept, keep), FlopCounterMode(display=False) as both:
        output = network(inputs)
        for x in (*output.logits.values(), *output.votes.values(), *output.taps.values()):
            keep(x)
        labels = torch.zeros(1, dtype=torch.long, device="meta")
        stage_loss(stage, output, labels, preset.joint_loss)[0].backward()
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    in_single = machine.precision == "fp32"
    activations = sum(x.untyped_storage().nbytes() for storage, x in kept.items() if storage not in weights)
    activations *= 1.0 if in_single else 0.5
    parameters = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    gradient_and_moments = 1 + {"sgd": 1, "adamw": 2}[preset.optimiser]
    state = 4 * (parameters + gradient_and_moments * trained) + (0 if in_single else 2 * parameters)
    fed = FED * sum(x.numel() for x in inputs.values())
    memory = 1.1 * (state + (machine.micro_batch or preset.batch) * (activations + fed))
    epochs = find(stage.name, preset.schedules, "stage").epochs
    return StageCost(
        stage=stage.name,
        epochs=epochs,
        steps=epochs * -(-videos // preset.batch),
        trained=trained,
        gmacs=forward.get_total_flops() / 2e9,
        flops=float(both.get_total_flops()),
        activations=activations,
        memory=memory,
    )


@contextmanager
def _storages_kept() -> Iterator[tuple[dict[int, Tensor], Callable[[Tensor], Tensor]]]:
    """The storages that autograd keeps, each once, and a function that adds the storage of a tensor."""
    kept: dict[int, Tensor] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield kept, keep


def as_text(
    name: str,
    preset_name: str,
    *,
    videos: int,
    actions: int,
    machine: Machine,
    world: int = 1,
    epochs: Mapping[str, int] | None = None,
) -> str:
    """The text of --dry-run: recipe and preset with the reasons for their choices, and a table of costs by stage."""
    recipe = find(name, RECIPES, "recipe")
    preset = find(preset_name, PRESETS, "preset").fitted(recipe, videos).lasting(epochs or {})
    network = meta_network(recipe, preset, actions)
    share = -(-preset.batch // world)
    at_once = min(machine.micro_batch or share, share)
    lines = [
        *_choices(name, recipe, preset_name, preset),
        _parameters(network),
        f"{videos} videos of {actions} actions, {preset.batch} a step: {world} process(es), {at_once} videos at once "
        f"on each{', activations recomputed' if machine.recompute else ''}, {machine.precision} precision",
        f"{'stage':12} {'epochs':>6} {'steps':>7} {'trained/M':>9} {'GMAC/video':>10} {'PFLOP':>8} {'memory/GB':>9}",
    ]
    machine = replace(machine, micro_batch=at_once)
    for stage in recipe.stages:
        cost = stage_cost(recipe, preset, stage, videos=videos, actions=actions, machine=machine)
        lines.append(
            f"{cost.stage:12} {cost.epochs:6} {cost.steps:7} {cost.trained / 1e6:9.2f} {cost.gmacs:10.2f} "
            f"{cost.flops * videos * cost.epochs / 1e15:8.1f} {cost.memory / 1e9:9.2f}"
        )
    return "\n".join(lines)


def _choices(name: str, recipe: Recipe, preset_name: str, preset: Preset) -> Iterator[str]:
    yield f"recipe {name}\n  why: {recipe.why}"
    for field in fields(Recipe):
        if field.name not in ("why", "stages"):
            yield f"  {field.name} = {_short(getattr(recipe, field.name))}"
    parent = PARENTS.get(preset_name)
    yield f"preset {preset_name}" + (f", like {parent} but for {', '.join(own_choices(preset_name))}" if parent else "")
    for field_name, choice in CHOICES[preset_name].items():
        value = getattr(preset, field_name)
        if field_name == "schedules":
            value = {stage.name: value[stage.name] for stage in recipe.stages}
        yield f"  {field_name} = {_short(value)}\n      # {choice.why}"


def _parameters(network: Scorer) -> str:
    counts = {part: sum(p.numel() for p in module.parameters()) for part, module in network.named_children()}
    parts = ", ".join(f"{part} {count / 1e6:.2f}" for part, count in counts.items() if count)
    return f"parameters: {sum(counts.values()) / 1e6:.2f} million ({parts})"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_short(each)}" for key, each in value.items())
    if isinstance(value, tuple):
        return ("; " if value and is_dataclass(value[0]) else ", ").join(map(_short, value))
    if is_dataclass(value):
        return " ".join(f"{field.name} {getattr(value, field.name)}" for field in fields(value))
    return str(value)
