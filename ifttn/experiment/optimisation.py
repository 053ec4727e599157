"""The loss of a stage, its frozen parts, the learning rate, the optimiser and gradient clipping."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ifttn.experiment.presets import Preset, Schedule
from ifttn.experiment.recipes import Stage
from ifttn.experiment.scores import late_fusion
from ifttn.model.network import Output, Scorer
from ifttn.vocabulary import MODALITIES


def freeze_all_but(network: Scorer, trains: tuple[str, ...], batch_norm: str) -> None:
    """Freeze the weights, batch statistics and dropout of every part that `trains` does not name. Train the rest.

    It is called before DistributedDataParallel takes the network, and again after every test. Within a stage the same
    parts stay frozen, so that every trained parameter has a gradient in every step.

    Args:
        network: the network of any recipe.
        trains: the full names of the parts to train; "" is the whole network.
        batch_norm: batch norm of the streams that train: "trained", "partial" (all but the first layer is frozen, as in
            TSN) or "frozen".
    """
    network.train()
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        trained = any(part in ("", name) or name.startswith(f"{part}.") for part in trains)
        if own or isinstance(module, nn.Dropout | nn.BatchNorm2d):
            module.train(trained)
        for parameter in own:
            parameter.requires_grad_(trained)
    if batch_norm == "trained":
        return
    # A peer has no `bn1`. It starts from random weights, without statistics to keep.
    for stream in [each for each in network.streams.values() if hasattr(each, "bn1")]:
        for module in stream.modules():
            if isinstance(module, nn.BatchNorm2d) and (batch_norm == "frozen" or module is not stream.bn1):
                module.eval().requires_grad_(False)


def learning_rate(schedule: Schedule, progress: float) -> float:
    """The learning rate after `progress` epochs: the paper's steps, or one cycle whose first quarter is the warm-up."""
    if schedule.decay_at is not None:
        return schedule.lr * 0.1 ** sum(progress >= epoch for epoch in schedule.decay_at)
    share, warm_up = progress / schedule.epochs, 0.25
    if share < warm_up:
        return schedule.lr * max(share / warm_up, 0.04)
    return schedule.lr * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up))) / 2


def optimiser(
    network: Scorer, preset: Preset, averaged_stems: tuple[str, ...] = ("flow", "mv")
) -> torch.optim.Optimizer:
    """AdamW, or SGD with TSN's parameter groups. The learning rate is set before every step.

    Biases, batch norm and fusion weights have no weight decay. In the streams `averaged_stems`, the weights of the
    first convolution are means over RGB. This convolution has five times the learning rate (TSN), because it gives the
    stream x + y until it has changed, and the stream cannot separate x from y. With SGD, the bias of a head has twice
    the learning rate.
    """
    sgd = preset.optimiser == "sgd"
    stems = {f"streams.{modality}.conv1.weight" for modality in averaged_stems}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim == 1 or name.startswith("fusion.") else preset.weight_decay
        times = 1.0
        if sgd and name.startswith("heads.") and name.endswith(".bias"):
            times = 2.0
        if name in stems:
            times = 5.0
        groups.setdefault((decay, times), []).append(parameter)
    rows = [{"params": params, "weight_decay": decay, "times": times} for (decay, times), params in groups.items()]
    device = next(network.parameters()).device.type
    if sgd:  # on a CPU, the fused version rounds differently and is no faster
        return torch.optim.SGD(rows, lr=1.0, momentum=0.9, fused=device == "cuda")
    return torch.optim.AdamW(rows, lr=1.0, fused=device != "meta")  # there is no fused kernel for the meta device


def clip(network: Scorer, preset: Preset) -> Tensor:
    """Clip the gradient to the preset's norms, as a whole or by part. Returns the norm before clipping (a scalar)."""
    if not preset.clip_apart:
        motion = any(MODALITIES[modality].is_motion for modality in network.settings.modalities)
        return nn.utils.clip_grad_norm_(network.parameters(), preset.clip["motion" if motion else "rgb"])
    parts: dict[str, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            owner = name.split(".")[1]  # streams.<modality>, heads.<modality or temporal head>
            parts.setdefault(owner if owner in MODALITIES else "ttn", []).append(parameter)
    norms = [nn.utils.clip_grad_norm_(parameters, preset.clip[_kind(part)]) for part, parameters in parts.items()]
    return torch.stack(norms).norm()


def _kind(part: str) -> str:
    if part not in MODALITIES:
        return part
    return "motion" if MODALITIES[part].is_motion else "rgb"


def stage_loss(stage: Stage, output: Output, labels: Tensor, joint_loss: str = "fused") -> tuple[Tensor, Tensor]:
    """The loss of a stage, and the logits for its training accuracy.

    The loss is the sum of a loss for each head of the stage. For a stage without heads, `joint_loss` of the preset
    decides.
    """
    names = stage.heads or (tuple(output.logits) if joint_loss == "per head" else ())
    if names:
        heads = torch.stack([output.logits[head] for head in names])
        losses = torch.stack([functional.cross_entropy(logits.float(), labels) for logits in heads])
        return losses.sum(), heads.sum(0).detach()
    fused = late_fusion({head: logits.float() for head, logits in output.logits.items()})
    return functional.cross_entropy(fused, labels), fused.detach()
