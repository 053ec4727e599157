"""Trains every stage of every recipe with one loop, in one process or in several.

The same command starts a run, continues it, or finds it done. Views, order and dropout of an epoch depend only on
(seed, stage, epoch). A checkpoint holds the position in the epoch and the random states. A run that was killed and
continued therefore ends with the same weights as an uninterrupted one.
"""

import json
import math
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ifttn.data.catalogue import hold_out
from ifttn.data.loading import Loader
from ifttn.data.samples import SnippetDataset
from ifttn.experiment.evaluation import evaluate
from ifttn.experiment.forward import Forward, compiled_forward
from ifttn.experiment.initialisation import Loaded, initialise
from ifttn.experiment.leakage import refuse_leak
from ifttn.experiment.metrics import shortfalls
from ifttn.experiment.networks import network_settings
from ifttn.experiment.optimisation import clip, freeze_all_but, learning_rate, optimiser, stage_loss
from ifttn.experiment.presets import PRESETS, Preset
from ifttn.experiment.processes import Share, largest_share, shares
from ifttn.experiment.pyramids import FrozenPyramids, announce
from ifttn.experiment.recipes import RECIPES, TEMPORAL, Stage, find
from ifttn.experiment.recomputing import recompute
from ifttn.experiment.runs import Run, identity_of
from ifttn.experiment.scores import late_fusion, top1
from ifttn.experiment.work import Work
from ifttn.files import held, remove_leftovers, write_whole
from ifttn.model.backbone import Backbone
from ifttn.model.network import Scorer
from ifttn.model.peers.trained import build_network
from ifttn.vocabulary import MODALITIES, IfttnError, Video


def train(work: Work, name: str) -> Run:
    """Train all stages of a recipe, continue the training, or find it done.

    Raises:
        IfttnError: the recipe or preset does not exist, a training video is missing, a run that it starts from is not
            finished or has seen a held-out video, the loss is not finite, or a checkpoint cannot be written.
    """
    recipe, videos = find(name, RECIPES, "recipe"), len(work.split.side("train"))
    preset = find(work.preset, PRESETS, "preset").fitted(recipe, videos).lasting(work.epochs)
    run, processes = work.run(name), work.processes
    with held(run.folder) if processes.leads and not run.finished else nullcontext():
        if processes.leads:
            _begin(work, run, name, preset)
        processes.wait()
        if not run.finished:
            _train(work, run, name, preset)
    return run


def _begin(work: Work, run: Run, name: str, preset: Preset) -> None:
    store, usual = work.store.settings, preset.store
    if (store.width, store.height) != (usual.width, usual.height):
        raise IfttnError(
            f"{work.store.folder}: holds pictures of {store.width}x{store.height}, and preset {work.preset} trains on "
            f"{usual.width}x{usual.height}: `ifttn prepare --preset {work.preset}` prepares them"
        )
    work.store.refuse_unprepared((*work.split.train, *work.split.test))
    where = {"dataset": work.split.dataset, "split": work.split.number, "seed": work.seed, "hold_out": work.hold_out}
    where |= {"actions": work.split.actions, "videos": work.store.identity(video.name for video in work.split.train)}
    run.begin(identity_of(name, RECIPES[name], work.preset, replace(preset, store=store), **where), work.device)


def _train(work: Work, run: Run, name: str, preset: Preset) -> None:
    recipe, leads, held_out = RECIPES[name], work.processes.leads, ()
    if leads:
        remove_leftovers(run.folder)
    if work.hold_out:
        split, held_out = hold_out(work.split, work.hold_out, work.seed)
        work = replace(work, split=split)
    trained_on = _trained_on(work, name, held_out)
    torch.manual_seed(work.seed)
    network = build_network(network_settings(recipe, preset, len(work.split.actions)))
    checkpoint = run.checkpoint()
    if checkpoint:
        network.load_state_dict(checkpoint["network"])
    else:
        _report(run, work, initialise(network, work, name))
    network.to(work.device)
    if work.machine.recompute:
        recompute(network)
    first = checkpoint["stage"] if checkpoint else 0
    for index, stage in enumerate(recipe.stages[first:], first):
        Training(work, run, network, stage, index, preset, held_out).train(checkpoint if index == first else None)
    if leads:
        run.finish(network, trained_on)
        for line in shortfalls(run.folder):
            tqdm.write(line, file=sys.stderr)
    work.processes.wait()


def _report(run: Run, work: Work, loaded: list[Loaded]) -> None:
    if work.processes.leads:
        write_whole(run.folder / "loaded.json", json.dumps([asdict(each) for each in loaded], indent=1).encode())
        if work.progress and loaded:
            print(*loaded, sep="\n")


def _trained_on(work: Work, name: str, held_out: tuple[Video, ...]) -> set[str]:
    """Names of the videos that the weights depend on, also through the runs that the recipe starts from."""
    names = {video.name for video in work.split.train}
    for needed in RECIPES[name].needs:
        run = work.run(needed)
        if run.finished:  # else loading its weights raises an error
            refuse_leak(run.trained_on, (*held_out, *work.split.test), f"{name} starts from {needed}, which")
            names |= run.trained_on
    return names


@dataclass
class Position:
    """The position in a stage, and this process's sums over the epoch."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    """The part of the seconds in which the loop waited for a batch."""


class Pending(NamedTuple):
    """A loss or a gradient norm that is being copied from the device."""

    what: str
    value: Tensor
    right: Tensor
    arrived: torch.cuda.Event | None
    """It has passed when both are on the host. None: they are computed on the host."""
    names: list[str]
    videos: int
    """The number of videos that this adds to the epoch's means."""


class Training:
    """One stage of a run: its data, its optimiser and its loop."""

    def __init__(
        self,
        work: Work,
        run: Run,
        network: Scorer,
        stage: Stage,
        index: int,
        preset: Preset,
        held_out: tuple[Video, ...] = (),
    ) -> None:
        self.work, self.run, self.network = work, run, network
        self.stage, self.index, self.preset = stage, index, preset
        self.schedule = find(stage.name, preset.schedules, "stage")
        modalities = network.settings.modalities
        kind = "rgb" if all("rgb" in (m, MODALITIES[m].run_of) for m in modalities) else "motion"
        self.dataset = SnippetDataset(
            work.store,
            work.split.train,
            modalities,
            segments=preset.segments,
            size=preset.size,
            scales=preset.scales[kind],
            seed=work.seed,
        )
        self.loader = Loader(self.dataset, work.device, work.workers)
        self.held_out = replace(self.dataset, videos=held_out, scales=None) if held_out else None
        self.labels = torch.tensor([video.label for video in work.split.train])
        freeze_all_but(network, stage.trains, preset.batch_norm_in(stage))
        averaged = stage.heads if stage == TEMPORAL and preset.stem == "averaged" else ()
        self.optimiser = optimiser(network, preset, averaged)
        half = work.machine.dtype(work.device) == torch.float16
        self.scaler = torch.amp.GradScaler(torch.device(work.device).type, enabled=half)
        self.views = preset.frozen_views or 1
        streams_frozen = not any(p.requires_grad for p in network.streams.parameters())
        self.frozen = self._frozen_pyramids() if streams_frozen and preset.frozen_views else None
        self.steps = math.ceil(len(self.dataset) / preset.batch)
        self.at, self.random_state, self.pending, self.bar = Position(), None, deque[Pending](), tqdm(disable=True)
        forward = Forward(network, preset.segments, work.machine.dtype(work.device))
        # Each process has the batch statistics of its own share. The running statistics are the first process's.
        self.parallel = DistributedDataParallel(forward) if work.processes.world > 1 else None
        self.module = self.parallel or forward
        self.compiled = compiled_forward(self.module, work.machine)
        self.usual = largest_share(preset.batch, work.processes, work.machine.micro_batch)

    def _frozen_pyramids(self) -> dict[str, FrozenPyramids]:
        work, preset = self.work, self.preset
        scene = [work.split.dataset, work.split.number, work.seed, preset.size, preset.segments, preset.scales]
        scene += [work.hold_out] * bool(work.hold_out)
        frozen = {
            modality: FrozenPyramids(work.folder, cast(Backbone, stream), modality, self.dataset, scene)
            for modality, stream in self.network.streams.items()
        }
        if work.processes.leads:
            views = range(min(self.schedule.epochs, self.views))
            announce(work.folder, sum(each.bytes_to_write(views) for each in frozen.values()), work.progress)
        return frozen

    def train(self, checkpoint: Mapping[str, Any] | None) -> None:
        """Train the remaining epochs. After each, add a line to metrics.jsonl and save a checkpoint."""
        if checkpoint:
            self._restore(checkpoint)
        leads = self.work.processes.leads
        with (
            tqdm(
                desc=f"{self.run.folder.name} ({self.stage.name})",
                initial=self.at.epoch * self.steps + self.at.step,
                total=self.schedule.epochs * self.steps,
                unit="step",
                disable=not (self.work.progress and leads),
            ) as self.bar,
            self.run.tensorboard() if self.work.machine.tensorboard and leads else nullcontext() as board,
            # The lock keeps other processes from dropping the pyramids.
            held(self.work.folder, shared=True, wait=True) if self.frozen else nullcontext(),
            closing(self.loader),
        ):
            for epoch in range(self.at.epoch, self.schedule.epochs):
                row = self.epoch(epoch)
                self.bar.set_postfix(epoch=epoch + 1, loss=f"{row['loss']:.3f}", accuracy=f"{row['accuracy']:.2f}")
                if leads:
                    self.run.log(row)
                    for key in ("loss", "accuracy", "held_out", "lr", "videos_per_second", "waiting"):
                        if board and key in row:
                            board.add_scalar(f"{self.stage.name}/{key}", row[key], epoch)
                self.at = Position(epoch + 1)
                self._save()

    def epoch(self, epoch: int) -> dict[str, Any]:
        """Train on every video once, from the current step on. Returns the line for metrics.jsonl, with the loss and
        accuracy of the training videos."""
        at, processes = self.at, self.work.processes
        freeze_all_but(self.network, self.stage.trains, self.preset.batch_norm_in(self.stage))
        self._seed(epoch, at.step)
        seed = (self.work.seed, self.index, epoch) if self.frozen else (self.work.seed, self._view(epoch))
        order = np.random.default_rng(seed).permutation(len(self.dataset))
        remaining = shares(order, self.preset.batch, processes, self.work.machine.micro_batch)[at.step :]
        feed = self.feed(epoch, [share for step in remaining for share in step])
        rate = 0.0
        while remaining:
            started = time.perf_counter()
            rate = learning_rate(self.schedule, epoch + at.step / self.steps)
            self.step(remaining.pop(0), feed, rate)
            at.step += 1
            at.seconds += time.perf_counter() - started
            self.bar.update()
            if remaining and at.step % self.work.machine.checkpoint_steps == 0:
                self._save()
        started = time.perf_counter()
        self._read_pending()
        at.seconds += time.perf_counter() - started
        loss, right = np.sum(processes.gather((at.loss, at.right)), axis=0)
        return {
            "stage": self.stage.name,
            "epoch": epoch,
            "of": self.schedule.epochs,
            "loss": float(loss) / len(self.dataset),
            "accuracy": float(right) / len(self.dataset),
            "lr": rate,
            "seconds": at.seconds,
            "videos_per_second": len(self.dataset) / at.seconds,
            "waiting": at.waited / at.seconds,
            **self._held_out_accuracy(),
        }

    def step(self, parts: list[Share], feed: Iterator[tuple[Any, Tensor, list[str]]], rate: float) -> None:
        """One step of the optimiser, with the gradient of one batch."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["times"]
        self.optimiser.zero_grad(set_to_none=True)
        names: list[str] = []
        for part in parts:
            started = time.perf_counter()
            inputs, labels, videos = next(feed)
            names += videos
            self.at.waited += time.perf_counter() - started
            if self.random_state is not None:  # restored here, because a loader draws random numbers when it starts
                self._set_random_state(self.random_state)
                self.random_state = None
            # Processes exchange gradients once a step, as they may have different numbers of micro-batches.
            with self.parallel.no_sync() if self.parallel and part is not parts[-1] else nullcontext():
                # Other sizes, such as that of the last batch of an epoch, are not compiled.
                forward = self.compiled if len(labels) == self.usual else self.module
                with self.work.machine.autocast(self.work.device):
                    output = forward(inputs, self.frozen is not None)
                loss, scores = stage_loss(self.stage, output, labels, self.preset.joint_loss)
                right = (scores.argmax(1) == labels).sum()
                self._add_pending("the loss", loss.detach(), right, videos, len(videos) if part.weight else 0)
                self.scaler.scale(loss * part.weight).backward()
        self.scaler.unscale_(self.optimiser)
        norm = clip(self.network, self.preset)
        if not self.scaler.is_enabled():  # a scaler skips the steps that it scaled too far
            self._add_pending("the gradient", norm, norm, names, 0)
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def _add_pending(self, what: str, value: Tensor, right: Tensor, names: list[str], videos: int) -> None:
        where = f"{what} of {self.stage.name}, epoch {self.at.epoch}, step {self.at.step}"
        arrived = torch.cuda.Event(blocking=True) if value.is_cuda else None
        if arrived:
            value, right = (x.detach().to("cpu", non_blocking=True) for x in (value, right))
            arrived.record(torch.cuda.current_stream(self.work.device))
        self.pending.append(Pending(where, value, right, arrived, names, videos))
        # The newest value of a GPU is read one call later, so that the GPU has work and does not wait for the host.
        self._read_pending(leave=int(arrived is not None))

    def _read_pending(self, leave: int = 0) -> None:
        while len(self.pending) > leave:
            pending = self.pending.popleft()
            if pending.arrived:
                pending.arrived.synchronize()
            value = pending.value.item()
            if not math.isfinite(value):
                videos = ", ".join(pending.names)
                raise IfttnError(f"{self.run.folder}: {pending.what} is {value}; its videos: {videos}")
            if pending.videos:
                self.at.loss += value * pending.videos
                self.at.right += pending.right.item()

    def _view(self, epoch: int) -> int:
        return 1000 * self.index + epoch  # each epoch of each stage has its own view

    def _seed(self, epoch: int, step: int) -> None:
        rank = self.work.processes.rank
        if self.frozen:  # before the seed, so that dropout is the same whether pyramids are computed or found
            with self.work.processes.one_first():
                for frozen in self.frozen.values():
                    frozen.view(epoch % self.views)
        torch.manual_seed(hash((self.work.seed, self.index, epoch, *((rank, step) if rank else ()))))

    def feed(self, epoch: int, parts: list[Share]) -> Iterator[tuple[Any, Tensor, list[str]]]:
        """For each part: images or frozen pyramids on the device, labels on the device, and names of the videos."""
        device = self.work.device
        if self.frozen:
            for part in parts:
                pyramids = {m: frozen.rows(epoch % self.views, part.rows, device) for m, frozen in self.frozen.items()}
                names = [self.work.split.train[row].name for row in part.rows]
                yield pyramids, self.labels[part.rows].to(device, non_blocking=True), names
            return
        keys = [[(self._view(epoch), int(row)) for row in part.rows] for part in parts]
        for batch in self.loader(keys):
            yield batch.inputs, batch.labels, batch.names

    def _held_out_accuracy(self) -> dict[str, float]:
        if not (self.held_out and self.work.processes.leads):
            return {}
        how: dict[str, Any] = {"batch": self.preset.batch, "workers": self.work.workers, "machine": self.work.machine}
        scores = evaluate(self.network, self.held_out, self.work.split.actions, **how)
        own = {head: x for head, x in scores.heads.items() if head in self.stage.heads}
        return {"held_out": top1(late_fusion(own or scores.heads), scores.labels)}

    def _save(self) -> None:
        self._read_pending()
        processes = self.work.processes.gather((vars(self.at), self._random_state()))
        if self.work.processes.leads:
            self.run.save_checkpoint(
                {
                    "stage": self.index,
                    "processes": processes,
                    "network": self.network.state_dict(),
                    "optimiser": self.optimiser.state_dict(),
                    "scaler": self.scaler.state_dict(),
                }
            )

    def _restore(self, checkpoint: Mapping[str, Any]) -> None:
        self.network.load_state_dict(checkpoint["network"])
        self.optimiser.load_state_dict(checkpoint["optimiser"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        saved, processes = checkpoint["processes"], self.work.processes
        if len(saved) == processes.world:
            at, state = saved[processes.rank]
            self.at, self.random_state = Position(**at), state if at["step"] else None
            return
        # The number of processes has changed. The first one continues all sums, and dropout has new random numbers.
        self.at = Position(**saved[0][0])
        for key in ("loss", "right"):
            setattr(self.at, key, sum(at[key] for at, _ in saved) if processes.leads else 0.0)

    def _random_state(self) -> tuple[Tensor, ...]:
        on_gpu = torch.device(self.work.device).type == "cuda"
        return torch.get_rng_state(), *((torch.cuda.get_rng_state(self.work.device),) if on_gpu else ())

    def _set_random_state(self, state: tuple[Tensor, ...]) -> None:
        torch.set_rng_state(state[0])
        if len(state) > 1:
            torch.cuda.set_rng_state(state[1], self.work.device)
