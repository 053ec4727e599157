"""One loop for every stage of every recipe.

The same command starts a run, goes on with it, or finds it done: an epoch's views, order and dropout follow from
(seed, stage, epoch) alone, so that a run that was interrupted ends where an undisturbed one does.
"""

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from ifttn.data.snippets import SnippetDataset
from ifttn.data.snippets import loader as load
from ifttn.data.store import Store
from ifttn.experiment.evaluation import evaluate
from ifttn.experiment.pyramids import FrozenPyramids
from ifttn.experiment.recipes import (
    LATE_FUSION,
    PRESETS,
    RECIPES,
    Preset,
    Schedule,
    Stage,
    find,
    network_settings,
)
from ifttn.experiment.runs import Run, asked
from ifttn.model.backbone import Backbone, adapt_stem, imagenet_weights
from ifttn.model.network import Network, Output
from ifttn.vocabulary import MODALITIES, IfttnError, Split


@dataclass(frozen=True)
class Work:
    """Where the videos are and where runs go: what every run of a study has in common."""

    split: Split
    store: Store
    runs: Path
    preset: str
    seed: int = 0
    device: str = "cpu"
    progress: bool = True

    def run(self, recipe: str) -> Run:
        """The run of a recipe on this split."""
        return Run.of(self.runs, self.split.dataset, self.split.number, recipe)


def without_failed(split: Split, store: Store) -> Split:
    """The split less the videos that preparation could not read; `missing` names them too."""
    report = store.folder / "report.csv"
    if not report.exists():
        return split
    rows = pd.read_csv(report)
    failed = set(rows[rows.status == "failed"].video) - set(store.index().video)
    return replace(
        split,
        train=tuple(video for video in split.train if video.name not in failed),
        test=tuple(video for video in split.test if video.name not in failed),
        missing=(*split.missing, *sorted(failed & {video.name for video in (*split.train, *split.test)})),
    )


def train(work: Work, name: str) -> Run:
    """Train a recipe through all its stages, or go on with it, or find it done.

    Raises:
        IfttnError: no such recipe or preset, a run that it starts from is not finished, a video is not in the store,
            or the loss is no longer a number.
    """
    recipe, preset = find(name, RECIPES, "recipe"), find(work.preset, PRESETS, "preset")
    run = work.run(name)
    run.begin(
        asked(
            name,
            recipe,
            work.preset,
            preset,
            dataset=work.split.dataset,
            split=work.split.number,
            seed=work.seed,
            actions=work.split.actions,
        )
    )
    if run.finished:
        return run
    torch.manual_seed(work.seed)
    network = Network(network_settings(recipe, preset, len(work.split.actions)))
    checkpoint = run.checkpoint(work.device)
    if checkpoint is None:
        initialise(network, work, name)
    network.to(work.device)
    for index, stage in enumerate(recipe.stages):
        if checkpoint is None or checkpoint["stage"] <= index:
            resumed = checkpoint if checkpoint and checkpoint["stage"] == index else None
            Training(work, run, network, stage, index, preset).train(resumed)
    run.finish(network)
    return run


def test(work: Work, name: str) -> Run:
    """Score the test videos with a finished run; once.

    Raises:
        IfttnError: the run is not finished, or a video is not in the store.
    """
    run = work.run(name)
    if not run.tested:
        preset = run.preset()
        network = run.network(work.device)
        dataset = SnippetDataset(
            work.store,
            work.split.test,
            network.settings.modalities,
            segments=preset.segments,
            size=preset.size,
            crops=preset.crops,
        )
        evaluate(
            network, dataset, work.split.actions, batch=preset.batch, crops=preset.crops, workers=preset.workers
        ).save(run.folder / "scores.npz")
    return run


def initialise(network: Network, work: Work, name: str) -> None:
    """Give each part of a network the weights that its recipe says (paper section 3.4)."""
    recipe, preset = RECIPES[name], PRESETS[work.preset]
    if preset.pretrained and not recipe.starts_from:
        network.streams["rgb"].load_state_dict(imagenet_weights(preset.backbone))
    for start in recipe.starts_from:
        part = network.get_submodule(start.part)
        weights = work.run(start.recipe).weights(start.source)
        if start.part.startswith("streams."):
            weights = adapt_stem(weights, MODALITIES[start.part.removeprefix("streams.")].channels)
        wanted = part.state_dict()
        differing = [key for key in wanted if key not in weights or weights[key].shape != wanted[key].shape]
        if differing:
            raise IfttnError(
                f"{start.part} of {name} does not fit {start.source} of {start.recipe}: "
                f"{', '.join(differing[:3])} differ"
            )
        part.load_state_dict({key: weights[key] for key in wanted})  # TTN takes a stream's levels, not its stem


def freeze_all_but(network: Network, trains: tuple[str, ...], batch_norm: str) -> None:
    """Freeze weights, batch statistics and dropout of every part that no prefix names; train the rest."""
    network.train()
    for name, module in network.named_modules():
        own = list(module.parameters(recurse=False))
        trained = name.startswith(trains)
        if own or isinstance(module, nn.Dropout | nn.BatchNorm2d):
            module.train(trained)
        for parameter in own:
            parameter.requires_grad_(trained)
    if batch_norm == "partial":  # TSN: of each stream only the first adapts
        for stream in network.streams.values():
            for module in stream.modules():
                if isinstance(module, nn.BatchNorm2d) and module is not stream.bn1:
                    module.eval().requires_grad_(False)


def late_fused(output: Output) -> Tensor:
    """The late-fused score of each video, with the weights that a test uses."""
    return torch.stack([LATE_FUSION[head] * logits for head, logits in output.logits.items()]).sum(0)


def learning_rate(schedule: Schedule, progress: float) -> float:
    """The rate after `progress` epochs: steps (the paper's), or one cycle with a quarter of it to warm up."""
    if schedule.decay_at is not None:
        return schedule.lr * 0.1 ** sum(progress >= epoch for epoch in schedule.decay_at)
    share, warm_up = progress / schedule.epochs, 0.25
    if share < warm_up:
        return schedule.lr * max(share / warm_up, 0.04)
    return schedule.lr * (1 + math.cos(math.pi * (share - warm_up) / (1 - warm_up))) / 2


class Training:
    """A stage of one run: its data, its optimiser, its loop."""

    def __init__(self, work: Work, run: Run, network: Network, stage: Stage, index: int, preset: Preset) -> None:
        self.work, self.run, self.network, self.stage, self.index, self.preset = (
            work,
            run,
            network,
            stage,
            index,
            preset,
        )
        self.schedule = find(stage.name, preset.schedules, "stage")
        modalities = network.settings.modalities
        self.kind = "motion" if any(MODALITIES[m].is_motion for m in modalities) else "rgb"
        self.dataset = SnippetDataset(
            work.store,
            work.split.train,
            modalities,
            segments=preset.segments,
            size=preset.size,
            scales=preset.scales[self.kind],
            seed=work.seed,
        )
        self.labels = torch.tensor([video.label for video in work.split.train])
        freeze_all_but(network, stage.trains, preset.batch_norm)
        self.optimiser = optimiser(network, preset)
        streams_frozen = not any(p.requires_grad for p in network.streams.parameters())
        self.frozen = self._frozen_pyramids() if streams_frozen and preset.frozen_views else None

    def _frozen_pyramids(self) -> dict[str, FrozenPyramids]:
        where = self.work.split
        scene = (
            where.dataset,
            where.number,
            self.work.seed,
            self.preset.size,
            self.preset.segments,
            self.preset.scales,
        )
        folder = self.work.runs / where.dataset / f"split{where.number}" / "pyramids"
        return {
            modality: FrozenPyramids(folder, cast(Backbone, stream), modality, self.dataset, scene)
            for modality, stream in self.network.streams.items()
        }

    def train(self, checkpoint: Mapping[str, Any] | None) -> None:
        """Run the epochs that are still to come; after each, a checkpoint and a line in metrics.jsonl."""
        first = 0
        if checkpoint:
            first = checkpoint["epoch"]
            self.network.load_state_dict(checkpoint["network"])
            self.optimiser.load_state_dict(checkpoint["optimiser"])
        bar = tqdm(
            range(first, self.schedule.epochs),
            desc=f"{self.run.folder.name} ({self.stage.name})",
            initial=first,
            total=self.schedule.epochs,
            unit="epoch",
            disable=not self.work.progress,
        )
        for epoch in bar:
            row = self.epoch(epoch)
            bar.set_postfix(loss=f"{row['loss']:.3f}", accuracy=f"{row['accuracy']:.2f}")
            self.run.save_checkpoint(
                {
                    "stage": self.index,
                    "epoch": epoch + 1,
                    "network": self.network.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                }
            )
            self.run.log(row)

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Every training video once. Returns the line for metrics.jsonl; loss and accuracy are those of training."""
        started = time.perf_counter()
        freeze_all_but(self.network, self.stage.trains, self.preset.batch_norm)
        torch.manual_seed(hash((self.work.seed, self.index, epoch)))  # dropout
        steps = math.ceil(len(self.dataset) / self.preset.batch)
        loss_sum = right = rate = 0.0
        for step, (output, labels, names) in enumerate(self._steps(epoch)):
            loss, scores = self.loss(output, labels)
            if not torch.isfinite(loss):
                raise IfttnError(
                    f"{self.run.folder}: the loss of {self.stage.name}, epoch {epoch}, step {step} is {loss.item()}; "
                    f"its videos: {', '.join(names)}"
                )
            rate = learning_rate(self.schedule, epoch + step / steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate * group["times"]
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), self.preset.clip[self.kind])
            self.optimiser.step()
            loss_sum += loss.item() * len(labels)
            right += (scores.argmax(1) == labels).sum().item()
        seconds = time.perf_counter() - started
        return {
            "stage": self.stage.name,
            "epoch": epoch,
            "of": self.schedule.epochs,
            "loss": loss_sum / len(self.dataset),
            "accuracy": right / len(self.dataset),
            "lr": rate,
            "seconds": seconds,
            "videos_per_second": len(self.dataset) / seconds,
        }

    def loss(self, output: Output, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The stage's loss, and the scores that it is about."""
        heads = [
            logits for head, logits in output.logits.items() if self.stage.heads and head.startswith(self.stage.heads)
        ]
        losses = [functional.cross_entropy(scores.float(), labels) for scores in heads or [late_fused(output)]]
        return torch.stack(losses).sum(), (torch.stack(heads).sum(0) if heads else late_fused(output)).detach()

    def _steps(self, epoch: int) -> Iterator[tuple[Output, Tensor, list[str]]]:
        device, batch = self.work.device, self.preset.batch
        if self.frozen:
            view = epoch % (self.preset.frozen_views or 1)
            order = np.random.default_rng((self.work.seed, self.index, epoch)).permutation(len(self.dataset))
            for rows in np.split(order, range(batch, len(order), batch)):
                pyramids = {m: frozen.rows(view, rows, device) for m, frozen in self.frozen.items()}
                names = [self.work.split.train[row].name for row in rows]
                yield self.network.read(pyramids, self.preset.segments), self.labels[rows].to(device), names
            return
        view = 1000 * self.index + epoch  # a view of its own for each epoch of each stage
        for examples in load(self.dataset, batch, view=view, shuffle=True, workers=self.preset.workers):
            inputs = {m: x.to(device, non_blocking=True) for m, x in examples.inputs.items()}
            with torch.autocast(device, torch.bfloat16, enabled=device.startswith("cuda")):
                output = self.network(inputs)
            yield output, examples.labels.to(device), examples.names


def optimiser(network: Network, preset: Preset) -> torch.optim.Optimizer:
    """AdamW, or SGD with TSN's parameter groups; the rate itself is set before every step.

    No decay on biases, batch norm and fusion weights. With SGD, a head's bias moves at twice the rate and the first
    convolution of a motion stream, whose weights were only averaged, at five times.
    """
    sgd = preset.optimiser == "sgd"
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        decay = 0.0 if parameter.ndim == 1 or name.startswith("fusion.") else preset.weight_decay
        times = 1.0
        if sgd and name.startswith("heads.") and name.endswith(".bias"):
            times = 2.0
        if sgd and name.endswith("conv1.weight") and name.count(".") == 3 and "rgb." not in name:
            times = 5.0
        groups.setdefault((decay, times), []).append(parameter)
    rows = [{"params": params, "weight_decay": decay, "times": times} for (decay, times), params in groups.items()]
    return torch.optim.SGD(rows, lr=1.0, momentum=0.9) if sgd else torch.optim.AdamW(rows, lr=1.0)
