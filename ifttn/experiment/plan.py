"""What a recipe will cost, before it costs anything: parameters, work, memory and steps, on the meta device.

Nothing here allocates a weight or reads a video.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ifttn.experiment.machine import Machine
from ifttn.experiment.optimisation import freeze_all_but, optimiser
from ifttn.experiment.recipes import (
    JOINT,
    PRESET_ROWS,
    PRESETS,
    RECIPE_ROWS,
    RECIPES,
    WHY_RECIPE,
    Child,
    Preset,
    Recipe,
    Stage,
    find,
    fitted,
    network_settings,
    why,
)
from ifttn.experiment.recomputing import recompute
from ifttn.experiment.training import stage_loss
from ifttn.model.network import Scorer
from ifttn.model.peers.trained import build
from ifttn.vocabulary import MODALITIES


@dataclass(frozen=True)
class StagePlan:
    """A stage of a recipe at a preset."""

    stage: str
    epochs: int
    steps: int
    """Of the optimiser, in all epochs."""
    trained: int
    """Parameters that it moves."""
    gmacs: float
    """10^9 multiply-adds of one video's forward pass."""
    flops: float
    """Of one video's forward and backward pass."""
    activations: float
    """Bytes of one video when the backward pass begins: what autograd keeps, and what `Output` holds."""
    memory: float
    """Bytes on one device: weights, gradients, optimiser, a micro-batch and the next, and its activations."""


def meta_network(recipe: Recipe, preset: Preset, actions: int) -> Scorer:
    """The network, without a byte of weights."""
    with torch.device("meta"):
        return build(network_settings(recipe, preset, actions))


def meta_inputs(recipe: Recipe, preset: Preset, videos: int) -> dict[str, Tensor]:
    """A batch, without a byte: modality -> (videos, K, C, H, W)."""
    return {
        m: torch.empty(
            videos, fitted(preset, recipe).segments, MODALITIES[m].channels, preset.size, preset.size, device="meta"
        )
        for m in recipe.modalities
    }


def plan(recipe: Recipe, preset: Preset, stage: Stage, *, videos: int, actions: int, machine: Machine) -> StagePlan:
    """One stage on one device of `machine`, a GPU where its precision says nothing else.

    Memory is arithmetic, not a measurement: what one video holds when the backward pass begins, halved for 16-bit
    precision, times the micro-batch, and the weights; a tenth is added for what lives for a moment. Frozen streams
    leave autograd nothing, but `Output.taps` holds their pyramids and the fused one to the end of the step.
    """
    network = meta_network(recipe, preset, actions)
    freeze_all_but(network, stage.trains, (stage == JOINT and preset.joint_batch_norm) or preset.batch_norm)
    if machine.recompute:
        recompute(network)
    inputs = meta_inputs(recipe, preset, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(inputs)
    kept: dict[int, Tensor] = {}
    with _keeping(kept) as keep, FlopCounterMode(display=False) as both:
        output = network(inputs)
        for x in (*output.logits.values(), *output.votes.values(), *output.taps.values()):
            keep(x)
        stage_loss(stage, output, torch.zeros(1, dtype=torch.long, device="meta"))[0].backward()
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    activations = sum(x.untyped_storage().nbytes() for storage, x in kept.items() if storage not in weights)
    wide = machine.precision == "fp32"
    activations = float(activations if wide else activations / 2)
    parameters = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    moments = {"SGD": 1, "AdamW": 2}[type(optimiser(network, preset)).__name__]
    copies = 1 + moments + bool(preset.ema)  # gradient, moments, moving average
    at_once = machine.micro_batch or preset.batch
    state = 4 * (parameters + copies * trained) + (0 if wide else 2 * parameters)
    steps = -(-videos // preset.batch) * (epochs := find(stage.name, preset.schedules, "stage").epochs)
    gmacs = counter.get_total_flops() / 2e9
    planes = 2 * sum(x.numel() for x in inputs.values())  # bytes of a video, and of one of the next micro-batch
    memory = 1.1 * (state + at_once * (activations + planes))
    return StagePlan(stage.name, epochs, steps, trained, gmacs, float(both.get_total_flops()), activations, memory)


@contextmanager
def _keeping(kept: dict[int, Tensor]) -> Iterator[Callable[[Tensor], Tensor]]:
    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x  # a storage once, whoever keeps it
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        yield keep


def text(name: str, preset_name: str, *, videos: int, actions: int, machine: Machine, world: int = 1) -> str:
    """All of it for a person: the resolved recipe with its reasons, and a table of its stages."""
    recipe = find(name, RECIPES, "recipe")
    preset = fitted(find(preset_name, PRESETS, "preset"), recipe)
    network = meta_network(recipe, preset, actions)
    lines = [f"recipe {name}{_parent(RECIPE_ROWS[name])}", f"  why: {WHY_RECIPE[name]}"]
    lines += [f"  {f.name} = {_short(getattr(recipe, f.name))}" for f in fields(Recipe) if f.name != "stages"]
    lines += [f"preset {preset_name}{_parent(PRESET_ROWS[preset_name])}"]
    for f in fields(Preset):
        value = getattr(preset, f.name)
        if f.name == "schedules":
            value = {stage.name: value[stage.name] for stage in recipe.stages}
        lines.append(f"  {f.name} = {_short(value)}\n      # {why(preset_name, f.name)}")
    parts = {part: sum(p.numel() for p in module.parameters()) for part, module in network.named_children()}
    total = ", ".join(f"{part} {count / 1e6:.2f}" for part, count in parts.items() if count)
    lines.append(f"parameters: {sum(parts.values()) / 1e6:.2f} million ({total})")
    share = -(-preset.batch // world)
    at_once = min(machine.micro_batch or share, share)
    lines.append(
        f"{videos} videos of {actions} actions, {preset.batch} a step: {world} process(es), {at_once} videos at once "
        f"on each{', activations recomputed' if machine.recompute else ''}, {machine.precision} precision"
    )
    lines.append(
        f"{'stage':12} {'epochs':>6} {'steps':>7} {'trained/M':>9} {'GMAC/video':>10} {'PFLOP':>8} {'memory/GB':>9}"
    )
    for stage in recipe.stages:
        each = plan(
            recipe, preset, stage, videos=videos, actions=actions, machine=replace(machine, micro_batch=at_once)
        )
        lines.append(
            f"{each.stage:12} {each.epochs:6} {each.steps:7} {each.trained / 1e6:9.2f} {each.gmacs:10.2f} "
            f"{each.flops * videos * each.epochs / 1e15:8.1f} {each.memory / 1e9:9.2f}"
        )
    return "\n".join(lines)


def _parent(row: Any) -> str:
    if not isinstance(row, Child):
        return ""
    return f", like {row.parent} but for {', '.join(row.changes)}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_short(each)}" for key, each in value.items())
    if isinstance(value, tuple) and value and is_dataclass(value[0]):
        return "; ".join(map(_short, value))
    if is_dataclass(value):
        return " ".join(f"{f.name} {getattr(value, f.name)}" for f in fields(value))
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
