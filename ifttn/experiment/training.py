"""One loop for every stage of every recipe, in one process or many.

The same command starts a run, goes on with it, or finds it done: an epoch's views, order and dropout follow from
(seed, stage, epoch) alone, and a checkpoint holds how far into an epoch training got and the random states there, so
that a run that was killed ends where an undisturbed one does.
"""

import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from ifttn.data.catalogue import hold_out
from ifttn.data.loading import SnippetDataset, batches
from ifttn.data.preparation_report import read_report
from ifttn.data.store import Store
from ifttn.experiment.evaluation import evaluate
from ifttn.experiment.initialisation import Loaded, from_imagenet, from_runs, wants_imagenet
from ifttn.experiment.leakage import refuse_leak
from ifttn.experiment.networks import network_settings
from ifttn.experiment.optimisation import clip, freeze_all_but, learning_rate, optimiser
from ifttn.experiment.presets import PRESETS, Preset
from ifttn.experiment.processes import Machine, Processes, Share, shares
from ifttn.experiment.pyramids import FrozenPyramids, announce
from ifttn.experiment.recipes import RECIPES, TEMPORAL, Stage, find
from ifttn.experiment.recomputing import recompute
from ifttn.experiment.runs import Run, asked
from ifttn.experiment.scores import Scores, late_fusion, top1
from ifttn.files import held, remove_leftovers, write_whole
from ifttn.model.backbone import Backbone
from ifttn.model.network import Output, Scorer
from ifttn.model.peers.trained import build_network
from ifttn.vocabulary import MODALITIES, IfttnError, Split, Video


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
    hold_out: float = 0.0
    """Share of the training videos, in whole groups, that is scored after every epoch and not trained on."""
    machine: Machine = field(default_factory=Machine)
    processes: Processes = field(default_factory=Processes)

    @property
    def workers(self) -> int:
        """Processes that load batches."""
        own = self.machine.workers
        return find(self.preset, PRESETS, "preset").workers if own is None else own

    def run(self, recipe: str) -> Run:
        """The run of a recipe on this split."""
        return Run.of(self.runs, self.split.dataset, self.split.number, recipe)

    @property
    def folder(self) -> Path:
        """Of all runs on this split."""
        return self.run("").folder

    def trained(self, recipe: str) -> Run:
        """The run of a recipe, for work with these videos.

        Raises:
            IfttnError: there is none, its actions are not the split's, or what it sees was prepared otherwise.
        """
        return self.run(recipe).fitting(self.split.actions, self.store.settings)


def without_failed(split: Split, store: Store) -> Split:
    """The split less the videos that preparation could not read; its notes name them.

    Raises:
        IfttnError: the report of the preparation has been replaced by something else.
    """
    report = read_report(store.folder)
    failed = {name for name, row in report.items() if row.status == "failed"} - set(store.index().video)
    left_out = [video.name for video in (*split.train, *split.test) if video.name in failed]
    return replace(
        split,
        train=tuple(video for video in split.train if video.name not in failed),
        test=tuple(video for video in split.test if video.name not in failed),
        notes=(*split.notes, *(f"{name}: {report[name].reason}" for name in left_out)),
    )


def train(work: Work, name: str) -> Run:
    """Train a recipe through all its stages, or go on with it, or find it done.

    Raises:
        IfttnError: no such recipe or preset, no video to train on, a run that it starts from is not finished or was
            trained on a video that is held out, a video is not in the store, the loss is no longer a number, or a
            checkpoint cannot be written.
    """
    recipe = find(name, RECIPES, "recipe")
    preset = find(work.preset, PRESETS, "preset").fitted(recipe)
    run, processes = work.run(name), work.processes
    work.split.side("train")
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
    run.begin(asked(name, RECIPES[name], work.preset, replace(preset, store=store), **where), work.device)


def _train(work: Work, run: Run, name: str, preset: Preset) -> None:
    recipe, processes = RECIPES[name], work.processes
    if processes.leads:
        remove_leftovers(run.folder)
    work, apart = _held_apart(work)
    seen = _seen(work, name, apart)
    torch.manual_seed(work.seed)
    network = build_network(network_settings(recipe, preset, len(work.split.actions)))
    checkpoint = run.checkpoint()
    if checkpoint is None:
        _report(run, initialise(network, work, name), work)
    else:
        network.load_state_dict(checkpoint["network"])
    network.to(work.device)
    if work.machine.recompute:
        recompute(network)
    first = checkpoint["stage"] if checkpoint else 0
    for index, stage in enumerate(recipe.stages[first:], first):
        Training(work, run, network, stage, index, preset, apart).train(checkpoint if index == first else None)
    if processes.leads:
        run.finish(network, seen)
    processes.wait()


def _held_apart(work: Work) -> tuple[Work, tuple[Video, ...]]:
    if not work.hold_out:
        return work, ()
    split, held = hold_out(work.split, work.hold_out, work.seed)
    return replace(work, split=split), held


def _seen(work: Work, name: str, held: tuple[Video, ...]) -> set[str]:
    seen = {video.name for video in work.split.train}
    for needed in RECIPES[name].needs:
        before = work.run(needed)
        if before.finished:  # else loading its weights says that it is not
            refuse_leak(before.trained_on, (*held, *work.split.test), f"{name} starts from {needed}, which")
            seen |= before.trained_on
    return seen


def _report(run: Run, loaded: list[Loaded], work: Work) -> None:
    if work.processes.leads:
        write_whole(run.folder / "loaded.json", json.dumps([asdict(each) for each in loaded], indent=1).encode())
        if work.progress and loaded:
            print(*loaded, sep="\n")


def test(work: Work, name: str) -> Run:
    """Score the test videos with a finished run, order read-outs included; once, and again when they have changed.

    Raises:
        IfttnError: the run is not finished, was trained on a test video, with other actions or on videos that were
            prepared otherwise; there is no test video, or one is not in the store; another process trains or tests it.
    """
    run, videos = work.trained(name), work.split.side("test")
    if not (run.tested and run.scores().identity == work.store.identity(video.name for video in videos)):
        with held(run.folder):
            _scored(work, run, videos, orders=True).save(run.folder / "scores.npz")
    return run


def score_held_out(work: Work, name: str) -> Scores:
    """Scores of the videos that were held out while a run trained, by which `scores.tune` may choose weights.

    Raises:
        IfttnError: nothing was held out, the run is not finished, or one that it starts from was trained on them.
    """
    run = work.trained(name)
    asked = run.asked
    if not asked.get("hold_out"):
        raise IfttnError(f"the run in {run.folder} held nothing out of training: train one with --hold-out")
    _, held = hold_out(work.split, asked["hold_out"], asked["seed"])
    return _scored(work, run, held)


def _scored(work: Work, run: Run, videos: tuple[Video, ...], orders: bool = False) -> Scores:
    preset, network = run.preset(), run.scorer(work.device)
    refuse_leak(run.trained_on, videos, f"the network in {run.folder}")
    work.store.refuse_unprepared(videos)
    dataset = SnippetDataset(
        work.store, videos, network.settings.modalities, preset.segments, preset.size, crops=preset.crops
    )
    how: dict[str, Any] = {"batch": preset.batch, "workers": work.workers, "machine": work.machine}
    scores = evaluate(network, dataset, work.split.actions, orders=orders, **how)
    return replace(scores, identity=work.store.identity(scores.videos))


def initialise(network: Scorer, work: Work, name: str) -> list[Loaded]:
    """Give each part of a network the weights that its recipe says (paper section 3.4). Returns what became of them."""
    recipe, preset = RECIPES[name], PRESETS[work.preset]
    if wants_imagenet(recipe, preset):
        return [from_imagenet(network, preset.backbone, work.machine.imagenet)]
    return from_runs(network, recipe, {needed: work.trained(needed) for needed in recipe.needs})


def stage_loss(stage: Stage, output: Output, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A stage's loss, and the logits that its accuracy is about.

    The stage has a loss for each of its heads; a stage that names no head has one loss on the late-fused logits.
    """
    if stage.heads:
        heads = torch.stack([output.logits[head] for head in stage.heads])
        losses = torch.stack([functional.cross_entropy(logits.float(), labels) for logits in heads])
        return losses.sum(), heads.sum(0).detach()
    fused = late_fusion({head: logits.float() for head, logits in output.logits.items()})
    return functional.cross_entropy(fused, labels), fused.detach()


class Scored(nn.Module):
    """A network as the loop calls it: one forward for images and for pyramids that are there already."""

    def __init__(self, network: Scorer, segments: int) -> None:
        super().__init__()
        self.network, self.segments = network, segments

    def forward(self, inputs: Mapping[str, Any], frozen: bool) -> Output:
        """Per modality, images or, where the streams are frozen, pyramids."""
        return self.network.read(inputs, self.segments) if frozen else self.network(inputs)


@dataclass
class Position:
    """How far a stage is, and what this epoch's videos said so far (in this process)."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    right: float = 0.0
    seconds: float = 0.0
    waited: float = 0.0
    """Of the seconds, those that went by before a batch was there."""


class Said(NamedTuple):
    """What one micro-batch said, perhaps not yet known to the host."""

    what: str
    value: Tensor
    """The loss, or the norm of a step's gradient."""
    right: Tensor
    names: list[str]
    counts: int
    """How many videos it stands for in the epoch's means."""


class Training:
    """A stage of one run: its data, its optimiser, its loop."""

    def __init__(
        self,
        work: Work,
        run: Run,
        network: Scorer,
        stage: Stage,
        index: int,
        preset: Preset,
        held: tuple[Video, ...] = (),
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
        self.held = replace(self.dataset, videos=held, scales=None) if held else None
        self.labels = torch.tensor([video.label for video in work.split.train])
        self.batch_norm = preset.batch_norm_in(stage)
        freeze_all_but(network, stage.trains, self.batch_norm)
        self.optimiser = optimiser(network, preset, stage.heads if stage == TEMPORAL else ())
        dtype = work.machine.dtype(work.device)
        self.scaler = torch.amp.GradScaler(torch.device(work.device).type, enabled=dtype == torch.float16)
        streams_frozen = not any(p.requires_grad for p in network.streams.parameters())
        self.frozen = self._frozen_pyramids() if streams_frozen and preset.frozen_views else None
        self.steps = math.ceil(len(self.dataset) / preset.batch)
        self.at, self.random_state = Position(), None
        self.said: deque[Said] = deque()
        self.bar = tqdm(disable=True)
        scored = Scored(network, preset.segments)
        # Every process has the batch statistics of its own share; the running ones are the first process's.
        self.parallel = DistributedDataParallel(scored) if work.processes.world > 1 else None
        module = self.parallel or scored
        self.module = cast(nn.Module, torch.compile(module)) if work.machine.compile else module

    def _frozen_pyramids(self) -> dict[str, FrozenPyramids]:
        where = self.work.split
        scene = (
            where.dataset,
            where.number,
            self.work.seed,
            self.preset.size,
            self.preset.segments,
            self.preset.scales,
            *((self.work.hold_out,) if self.work.hold_out else ()),
        )
        frozen = {
            modality: FrozenPyramids(self.work.folder, cast(Backbone, stream), modality, self.dataset, scene)
            for modality, stream in self.network.streams.items()
        }
        if self.work.processes.leads:
            views = range(min(self.schedule.epochs, self.preset.frozen_views or 1))
            announce(self.work.folder, sum(each.bytes_to_write(views) for each in frozen.values()), self.work.progress)
        return frozen

    def train(self, checkpoint: Mapping[str, Any] | None) -> None:
        """Run the epochs that are still to come; after each, a line in metrics.jsonl and a checkpoint."""
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
            tensorboard(self.run, self.work.machine.tensorboard and leads) as board,
            # So that nobody drops the pyramids meanwhile.
            held(self.work.folder, shared=True, wait=True) if self.frozen else nullcontext(),
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
        """Every training video once, from the step that `at` says. Returns the line for metrics.jsonl; loss and
        accuracy are those of training."""
        at, processes = self.at, self.work.processes
        freeze_all_but(self.network, self.stage.trains, self.batch_norm)
        self._seed(epoch, at.step)
        order = np.random.default_rng(self._order_seed(epoch)).permutation(len(self.dataset))
        plan = shares(order, self.preset.batch, processes, self.work.machine.micro_batch)[at.step :]
        feed = self.feed(epoch, [share for step in plan for share in step])
        rate = 0.0
        while plan:
            started = time.perf_counter()
            rate = learning_rate(self.schedule, epoch + at.step / self.steps)
            self.step(plan.pop(0), feed, rate)
            at.step += 1
            at.seconds += time.perf_counter() - started
            self.bar.update()
            if plan and at.step % self.work.machine.checkpoint_steps == 0:
                self._save()
        self._hear()
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
            **self._held_out(),
        }

    def step(self, parts: list[Share], feed: Iterator[tuple[Any, Tensor, list[str]]], rate: float) -> None:
        """One step of the optimiser, on the gradient of one batch."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["times"]
        self.optimiser.zero_grad(set_to_none=True)
        names: list[str] = []
        for part in parts:
            asked_at = time.perf_counter()
            inputs, labels, videos = next(feed)
            names += videos
            self.at.waited += time.perf_counter() - asked_at
            if self.random_state is not None:  # only now: a loader draws from the same numbers when it starts
                self._set_random_state(self.random_state)
                self.random_state = None
            # Gradients meet once a step: processes need not have the same number of micro-batches.
            with self.parallel.no_sync() if self.parallel and part is not parts[-1] else nullcontext():
                with self.work.machine.autocast(self.work.device):
                    output = self.module(inputs, self.frozen is not None)
                loss, scores = stage_loss(self.stage, output, labels)
                right = (scores.argmax(1) == labels).sum()
                self._say("the loss", loss.detach(), right, videos, len(videos) if part.weight else 0)
                self.scaler.scale(loss * part.weight).backward()
        self.scaler.unscale_(self.optimiser)
        norm = clip(self.network, self.preset)
        if not self.scaler.is_enabled():  # a scaler leaves out the steps that it scaled too far
            self._say("the gradient", norm, norm, names, 0)
        self.scaler.step(self.optimiser)
        self.scaler.update()

    def _say(self, what: str, value: Tensor, right: Tensor, names: list[str], counts: int) -> None:
        self.said.append(
            Said(
                f"{what} of {self.stage.name}, epoch {self.at.epoch}, step {self.at.step}", value, right, names, counts
            )
        )
        # On a GPU the host hears it one message later, so that the device need not wait for it.
        self._hear(behind=int(value.is_cuda))

    def _hear(self, behind: int = 0) -> None:
        while len(self.said) > behind:
            said = self.said.popleft()
            value = said.value.item()
            if not math.isfinite(value):
                raise IfttnError(f"{self.run.folder}: {said.what} is {value}; its videos: {', '.join(said.names)}")
            if said.counts:
                self.at.loss += value * said.counts
                self.at.right += said.right.item()

    def _order_seed(self, epoch: int) -> tuple[int, ...]:
        return (self.work.seed, self.index, epoch) if self.frozen else (self.work.seed, self._view(epoch))

    def _view(self, epoch: int) -> int:
        return 1000 * self.index + epoch  # a view of its own for each epoch of each stage

    def _seed(self, epoch: int, step: int) -> None:
        rank = self.work.processes.rank
        if self.frozen:  # before the seed: whether a view is computed or found must not show in the dropout
            with self.work.processes.one_first():
                for frozen in self.frozen.values():
                    frozen.view(epoch % (self.preset.frozen_views or 1))
        torch.manual_seed(hash((self.work.seed, self.index, epoch, *((rank, step) if rank else ()))))  # dropout
        if self.frozen and epoch < (self.preset.frozen_views or 1):
            # Computing a view used to come after the seed, and drew a number a stream: the figures that the README
            # reports have dropout from there on.
            torch.empty(len(self.frozen), dtype=torch.int64).random_()

    def feed(self, epoch: int, parts: list[Share]) -> Iterator[tuple[Any, Tensor, list[str]]]:
        """For each part, on the device: images or frozen pyramids, labels, names."""
        device = self.work.device
        if self.frozen:
            view = epoch % (self.preset.frozen_views or 1)
            for part in parts:
                pyramids = {m: frozen.rows(view, part.rows, device) for m, frozen in self.frozen.items()}
                names = [self.work.split.train[row].name for row in part.rows]
                yield pyramids, self.labels[part.rows].to(device), names
            return
        view = self._view(epoch)
        keys = [[(view, int(row)) for row in part.rows] for part in parts]
        for batch in batches(self.dataset, keys, device, self.work.workers):
            yield batch.inputs, batch.labels, batch.names

    def _held_out(self) -> dict[str, float]:
        if not (self.held and self.work.processes.leads):
            return {}
        how: dict[str, Any] = {"batch": self.preset.batch, "workers": self.work.workers, "machine": self.work.machine}
        scores = evaluate(self.network, self.held, self.work.split.actions, **how)
        heads = [head for head in self.stage.heads if head in scores.heads]  # some are there for the loss alone
        fused = late_fusion({head: scores.heads[head] for head in heads or scores.heads})
        return {"held_out": top1(fused, scores.labels)}

    def _save(self) -> None:
        self._hear()
        everyone = self.work.processes.gather((vars(self.at), self._random_state()))
        if not self.work.processes.leads:
            return
        self.run.save_checkpoint(
            {
                "stage": self.index,
                "processes": everyone,
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
        )

    def _restore(self, checkpoint: Mapping[str, Any]) -> None:
        self.network.load_state_dict(checkpoint["network"])
        self.optimiser.load_state_dict(checkpoint["optimiser"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        everyone, processes = checkpoint["processes"], self.work.processes
        if len(everyone) == processes.world:
            at, state = everyone[processes.rank]
            self.at, self.random_state = Position(**at), state if at["step"] else None
            return
        # Fewer or more processes than before: the sums are the first one's, and dropout is drawn anew from here.
        self.at = Position(**everyone[0][0])
        for key in ("loss", "right"):
            setattr(self.at, key, sum(at[key] for at, _ in everyone) if processes.leads else 0.0)

    def _random_state(self) -> tuple[Tensor, ...]:
        on_gpu = torch.device(self.work.device).type == "cuda"
        return torch.get_rng_state(), *((torch.cuda.get_rng_state(self.work.device),) if on_gpu else ())

    def _set_random_state(self, state: tuple[Tensor, ...]) -> None:
        torch.set_rng_state(state[0])
        if len(state) > 1:
            torch.cuda.set_rng_state(state[1], self.work.device)


def tensorboard(run: Run, wanted: bool) -> Any:
    """A writer of <run>/tensorboard, or nothing.

    Raises:
        IfttnError: it is wanted and not installed.
    """
    if not wanted:
        return nullcontext()
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise IfttnError("TensorBoard is not installed: `pip install tensorboard`, or train without it") from error
    return SummaryWriter(str(run.folder / "tensorboard"))
