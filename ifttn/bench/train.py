"""What limits training: each stage with its data, against the same network fed from memory.

    ifttn bench train --preset small --device cuda
    ifttn bench train --preset paper --device cuda --largest-batch
    ifttn bench train --preset paper --device cpu --batch 2 --steps 2 --repetitions 1 --videos 16
    OMP_NUM_THREADS=1 ifttn bench train --preset small --device cpu --batch 4 --workers 1     one core loads

Videos are the embedded ones, prepared at the preset's size with DIS as their flow; weights are random: both cost a
step the same. On a GPU, work is compared with one large bf16 matrix product in the same run.
"""

import argparse
import gc
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
import torchvision
from tqdm import tqdm

from ifttn.bench.options import TRAINED_STAGES
from ifttn.data import diagnostic
from ifttn.data.catalogue import read_split
from ifttn.data.preparation import prepare
from ifttn.data.store import Store
from ifttn.experiment.cost import stage_cost
from ifttn.experiment.optimisation import clip, freeze_all_but, optimiser
from ifttn.experiment.presets import PRESETS, Preset, network_settings
from ifttn.experiment.processes import Machine, Processes, Share, shares
from ifttn.experiment.recipes import JOINT, RECIPES, find
from ifttn.experiment.recomputing import recompute
from ifttn.experiment.runs import Run
from ifttn.experiment.training import Training, Work, stage_loss
from ifttn.memory import lacks_memory
from ifttn.model.network import Network
from ifttn.vocabulary import MODALITIES, IfttnError

RESET = Path("/proc/self/clear_refs")
"""Where Linux is asked to count the largest memory of a process anew."""


@dataclass(frozen=True)
class Row:
    """What one stage does in a second."""

    stage: str
    fed: float
    """Videos/s with data."""
    memory_fed: float
    """Videos/s of the same steps on batches that are on the device already."""
    ratios: tuple[float, ...]
    """Of the two, one for each repetition."""
    waiting: float
    """Share of the time with data that goes by before a batch is there."""
    peak: float
    """Bytes of the device; on a CPU those of the process, or NaN where the system does not count them anew."""
    flops: float
    """A second, with data."""


def run(o: argparse.Namespace) -> int:
    """Print the table."""
    gpu = o.device.startswith("cuda")
    name = torch.cuda.get_device_name(o.device) if gpu else "CPU"
    print(f"{name}, {os.cpu_count()} cores, torch {torch.__version__}, torchvision {torchvision.__version__}")
    machine = Machine(o.micro_batch, o.workers, compile=o.compile, recompute=o.recompute)
    torch.backends.cudnn.benchmark = True
    if o.largest_batch:
        largest(o.preset, o.device, machine)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        work = prepared(o.folder or Path(temporary), o, machine)
        preset = batched(o.preset, o.batch)
        shrunk = "" if preset.batch == PRESETS[o.preset].batch else f" instead of {PRESETS[o.preset].batch}"
        print(
            f"preset {o.preset}, {o.videos} videos, batch {preset.batch}{shrunk}, "
            f"median [least, most] of {o.repetitions} x {o.steps} steps, {torch.get_num_threads()} threads"
        )
        product = matrix_product(o.device) if gpu else float("nan")
        if gpu:
            print(f"bf16 matrix product of 8192: {product / 1e12:.0f} TFLOP/s")
        print(
            f"{'stage':10} {'videos/s':>9} {'from memory':>11} {'ratio':>18} {'waiting':>8} {'peak/GB':>8} "
            f"{'TFLOP/s':>8} share"
        )
        for recipe, index in TRAINED_STAGES.values():
            row = measured(work, preset, (recipe, index), o.steps, o.repetitions)
            share = f"{row.flops / product:.1%}" if gpu else ""
            ratio = f"{median(row.ratios):.2f} [{min(row.ratios):.2f}, {max(row.ratios):.2f}]"
            print(
                f"{row.stage:10} {row.fed:9.3g} {row.memory_fed:11.3g} {ratio:>18} "
                f"{row.waiting:8.1%} {row.peak / 1e9:8.2f} {row.flops / 1e12:8.3f} {share}",
                flush=True,
            )
    return 0


def prepared(folder: Path, o: argparse.Namespace, machine: Machine) -> Work:
    """Embedded videos, prepared at the preset's size, all of them to train on."""
    preset, data, store = find(o.preset, PRESETS, "preset"), folder / "embedded-ucf", folder / f"store-{o.preset}"
    if not store.exists():
        diagnostic.write(data, "ucf", videos=o.videos, seed=0, jobs=os.cpu_count() or 1, progress=False)
        prepare(data, store, replace(preset.store, flow="dis"), progress=False)
    split = read_split(data, 1)
    split = replace(split, train=(*split.train, *split.test), test=())
    return Work(split, Store(store), folder / "runs", o.preset, device=o.device, progress=False, machine=machine)


def batched(name: str, batch: int | None) -> Preset:
    """A preset, and its batch or another."""
    preset = find(name, PRESETS, "preset")
    if batch is not None and batch < 1:
        raise IfttnError("--batch needs at least one video")
    return replace(preset, batch=batch or preset.batch)


def measured(work: Work, preset: Preset, which: tuple[str, int], steps: int, repetitions: int) -> Row:
    """A stage: with data and from memory in turn."""
    recipe, index = which
    stage, training = RECIPES[recipe].stages[index], began(work, preset, recipe, index)
    order = np.resize(np.random.default_rng(0).permutation(len(work.split.train)), preset.batch * steps)
    planned = shares(order, preset.batch, Processes(), work.machine.micro_batch)
    parts = [part for step in planned for part in step]
    if training.frozen:
        next(training.feed(0, parts[:1]))  # the pyramids themselves are another matter
    kept = list(islice(training.feed(0, parts), 2 * len(planned[0])))
    trained = steps * preset.batch
    seconds_of(training, planned[:2], cycle(kept))  # warm
    reset_peak(work.device)
    from_memory, fed = list[float](), list[float]()
    training.at.waited = 0.0
    for _ in range(repetitions):
        from_memory.append(seconds_of(training, planned, cycle(kept)))
        fed.append(seconds_of(training, planned, training.feed(0, parts)))
    peak = peak_of(work.device)
    cost = stage_cost(RECIPES[recipe], preset, stage, videos=1, actions=len(work.split.actions), machine=work.machine)
    speed, waiting = trained / median(fed), training.at.waited / sum(fed)
    ratios = tuple(memory / own for memory, own in zip(from_memory, fed, strict=True))
    return Row(stage.name, speed, trained / median(from_memory), ratios, waiting, peak, speed * cost.flops)


def began(work: Work, preset: Preset, recipe: str, index: int) -> Training:
    """A stage that is ready for its first step, on random weights."""
    network = Network(network_settings(RECIPES[recipe], preset, len(work.split.actions))).to(work.device)
    run = Run(work.runs / recipe)
    return Training(work, run, network, RECIPES[recipe].stages[index], index, preset)


def seconds_of(training: Training, planned: Sequence[list[Share]], feed: Iterator[Any]) -> float:
    """What the steps take."""
    synchronise(training.work.device)
    started = time.perf_counter()
    for step in planned:
        training.step(step, feed, rate=1e-6)
    synchronise(training.work.device)
    return time.perf_counter() - started


def largest(preset_name: str, device: str, machine: Machine) -> None:
    """The most videos at once of the joint stage, without and with recomputed blocks, and what they do in a second.

    Raises IfttnError where the device is no GPU.
    """
    if not device.startswith("cuda"):
        raise IfttnError(f"--largest-batch fills the memory of a GPU, and {device} is none: take --device cuda")
    print(f"{'recompute':10} {'videos':>7} {'videos/s':>9} {'peak/GB':>8} {'planned/GB':>10}")
    for recomputed in (False, True):
        own = replace(machine, recompute=recomputed)
        guess = planned_videos(preset_name, free_memory(device), own)
        fits = partial(_fits, preset_name, device, own)
        with tqdm(desc=f"recompute {recomputed}", unit="try", leave=False) as bar:
            best = most(fits, guess, bar)
        found = steps_of(preset_name, device, best, own, timed=3) if best else None
        if found is None:
            print(f"{recomputed!s:10} none fits")
            continue
        speed, peak = found
        planned = planned_memory(preset_name, best, own)
        print(f"{recomputed!s:10} {best:7} {speed:9.1f} {peak / 1e9:8.2f} {planned / 1e9:10.2f}", flush=True)


def planned_memory(preset_name: str, videos: int, machine: Machine) -> float:
    """Bytes of a joint step on so many videos at once."""
    machine = replace(machine, micro_batch=videos)
    return stage_cost(
        RECIPES["if-ttn"], PRESETS[preset_name], JOINT, videos=videos, actions=101, machine=machine
    ).memory


def planned_videos(preset_name: str, free: float, machine: Machine) -> int:
    """The number of videos whose planned memory fits into so many bytes; at least one."""
    one, two = (planned_memory(preset_name, videos, machine) for videos in (1, 2))
    return max(1, int(1 + (free - one) / (two - one)))


def most(fits: Callable[[int], bool], guess: int, bar: tqdm) -> int:
    """The largest number that fits, 0 if none does. Steps away from the guess double until one fits and one does not;
    then halves of what lies between them are tried."""
    low, high, at, step = 0, None, guess, max(1, guess // 16)
    while high is None or high - low > 1:
        bar.set_postfix(videos=at, largest=low)
        if fits(at):
            low = at
        else:
            high = at
        between = (low + (high or 0)) // 2
        at = low + step if high is None else between if low else max(high - step, between)
        step *= 2
        bar.total = bar.n + 1 + (step if high is None else high - low).bit_length()
        bar.update()
    return low


def _fits(preset_name: str, device: str, machine: Machine, videos: int) -> bool:
    return steps_of(preset_name, device, videos, machine) is not None


def steps_of(
    preset_name: str, device: str, videos: int, machine: Machine, timed: int = 0
) -> tuple[float, float] | None:
    """Videos/s of the timed joint steps on so many random videos, after a first one or two, and peak bytes; nothing
    where memory does not suffice."""
    gc.collect()  # a recomputed network of the try before holds itself
    torch.cuda.empty_cache()
    preset, recipe = PRESETS[preset_name], RECIPES["if-ttn"]
    try:
        network = Network(network_settings(recipe, preset, 101)).to(device)
        freeze_all_but(network, JOINT.trains, preset.batch_norm_in(JOINT))
        if machine.recompute:
            recompute(network)
        steps = optimiser(network, preset)
        for group in steps.param_groups:
            group["lr"] = 1e-6
        shape = (videos, preset.segments)
        size = (preset.size, preset.size)
        inputs = {
            m: torch.randint(0, 256, (*shape, MODALITIES[m].channels, *size), dtype=torch.uint8, device=device)
            for m in recipe.modalities
        }
        labels, started = torch.zeros(videos, dtype=torch.long, device=device), 0.0
        reset_peak(device)
        for number in range(2 + timed):
            if number == 2:
                synchronise(device)
                started = time.perf_counter()
            with machine.autocast(device):
                output = network(inputs)
            stage_loss(JOINT, output, labels)[0].backward()
            clip(network, preset)
            steps.step()
            steps.zero_grad(set_to_none=True)
        synchronise(device)
        return timed * videos / (time.perf_counter() - started), peak_of(device)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        return None


def matrix_product(device: str, side: int = 8192) -> float:
    """FLOP/s of a large bf16 matrix product."""
    a, b = (torch.randn(side, side, dtype=torch.bfloat16, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        synchronise(device)
        started = time.perf_counter()
        _ = a @ b
        synchronise(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def synchronise(device: str) -> None:
    """Until the device has done what it was told."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def reset_peak(device: str) -> None:
    """Count the largest use of memory from here."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
    elif RESET.exists():
        with suppress(OSError):  # of a system that does not let a process do that
            RESET.write_text("5")


def free_memory(device: str) -> float:
    """Bytes of a GPU that nobody uses."""
    return float(torch.cuda.mem_get_info(device)[0])


def peak_of(device: str) -> float:
    """Bytes of the largest use since then; NaN where the system does not tell it."""
    if device.startswith("cuda"):
        return float(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if RESET.exists() else None
    return 1024.0 * int(found[1]) if found else float("nan")
