"""Shows what limits training: each stage with its data, compared with the same network on data in memory.

    ifttn bench train --preset small --device cuda
    ifttn bench train --preset paper --device cuda --cores 4 --workers 4
    ifttn bench train --preset paper --device cuda --largest-batch
    ifttn bench train --preset paper --device cuda --from-memory --compile
    ifttn bench train --preset paper --device cpu --batch 2 --steps 2 --repetitions 1 --videos 16
    OMP_NUM_THREADS=1 ifttn bench train --preset small --device cpu --batch 4 --workers 1     one core loads

The rate with data is the rate within an epoch. The time to the first batch has its own column (start).

The frames of the embedded data set are drawn into a store of the preset, with DIS as their flow. The weights are
random. Neither changes the cost of a step. On a GPU, the rate is compared with a large bf16 matrix product.
"""

import argparse
import os
import tempfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
import torchvision

from ifttn.bench.clock import Clock, PrintedTable, Spread, device_name, product_rate
from ifttn.bench.memory import peak_bytes, reset_peak
from ifttn.bench.options import TRAINED_STAGES
from ifttn.bench.random_steps import ALONE, print_from_memory, print_largest_batch, stages_from_memory
from ifttn.bench.store import drawn
from ifttn.data.catalogue import read_split
from ifttn.experiment.cost import stage_cost
from ifttn.experiment.networks import network_settings
from ifttn.experiment.presets import PRESETS, Preset
from ifttn.experiment.processes import Machine, Processes, shares
from ifttn.experiment.recipes import RECIPES, find
from ifttn.experiment.runs import Run
from ifttn.experiment.training import Training, Work
from ifttn.model.network import Network
from ifttn.vocabulary import IfttnError

LEAD_IN = 2
"""Steps with data before the timed steps."""
TRAILING = 6
"""Batches that the loader still makes during the last timed steps, as in the middle of an epoch."""


@dataclass(frozen=True)
class StageSpeed:
    """The speed of one stage."""

    fed: float
    """Videos/s with data, while the loader runs."""
    memory_fed: float
    """Videos/s of the same steps on batches that are already on the device."""
    ratio: Spread
    """`fed` divided by `memory_fed`."""
    start: float
    """Seconds from the start of the loader's processes to the first batch."""
    waiting: float
    """Share of the time with data in which training waits for a batch."""
    peak: float
    """Peak memory of the device in bytes, on a CPU of the process; NaN if the system does not measure it."""
    flops: float
    """FLOP/s with data."""


def run(o: argparse.Namespace) -> int:
    """Print a row for each stage."""
    if o.cores:
        if not hasattr(os, "sched_setaffinity"):
            raise IfttnError("--cores needs Linux, because other systems do not let a program choose its cores")
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: o.cores])
    clock = Clock(o.device, wall=True)  # other processes load batches
    name = device_name(o.device)
    print(f"{name}, {joblib.cpu_count()} cores, torch {torch.__version__}, torchvision {torchvision.__version__}")
    machine = Machine(o.micro_batch, o.workers, compile=o.compile, recompute=o.recompute)
    torch.backends.cudnn.benchmark = True
    if o.largest_batch:
        print_largest_batch(o.preset, o.device, machine)
        return 0
    preset = find(o.preset, PRESETS, "preset")
    usual, preset = preset.batch, replace(preset, batch=o.batch or preset.batch)
    product = product_rate(clock, torch.bfloat16) if clock.on_gpu else None
    if product:
        print(f"bf16 matrix product of 8192: {product / 1e12:.0f} TFLOP/s")
    if o.from_memory:
        print(f"preset {o.preset}, batch {preset.batch}, {'compiled' if o.compile else 'not compiled'}")
        stages = [each for name in o.stages for each in ((ALONE, name) if name == "joint" else (name,))]
        print_from_memory(stages_from_memory(preset, machine, o.device, stages, o.steps, o.repetitions), product)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        work = drawn_work(o.folder or Path(temporary), o, machine)
        print(
            f"preset {o.preset}, {o.videos} videos, batch {preset.batch}"
            f"{'' if preset.batch == usual else f' instead of {usual}'}, "
            f"median [quartiles] of {o.repetitions} x {o.steps} steps, {torch.get_num_threads()} threads"
        )
        heads = ("videos/s", "from memory", "      ratio      ", "start/s", "waiting", "peak/GB", "TFLOP/s", "share")
        table = PrintedTable("stage", *heads, first=10)
        for stage in o.stages:
            speed = stage_speed(work, preset, *TRAINED_STAGES[stage], o.steps, o.repetitions)
            table.row(stage, *_cells(speed), f"{speed.flops / product:.1%}" if product else "")
    return 0


def _cells(speed: StageSpeed) -> Iterator[str]:
    yield from (f"{speed.fed:.3g}", f"{speed.memory_fed:.3g}", f"{speed.ratio:.2f}")
    yield from (f"{speed.start:.2g}", f"{speed.waiting:.1%}", f"{speed.peak / 1e9:.2f}", f"{speed.flops / 1e12:.3f}")


def drawn_work(folder: Path, o: argparse.Namespace, machine: Machine) -> Work:
    """An embedded data set, drawn into a store of the preset. All of its videos are training videos."""
    data, store = drawn(folder, o.preset, o.videos, flow="dis")
    split = read_split(data, 1)
    split = replace(split, train=(*split.train, *split.test), test=())
    return Work(split, store, folder / "runs", o.preset, device=o.device, progress=False, machine=machine)


def stage_speed(work: Work, preset: Preset, recipe: str, number: int, steps: int, repetitions: int) -> StageSpeed:
    """Time stage `number` of a recipe with random weights, in turns with data and from memory."""
    stage, actions = RECIPES[recipe].stages[number], len(work.split.actions)
    network = Network(network_settings(RECIPES[recipe], preset, actions)).to(work.device)
    training = Training(work, Run(work.runs / recipe), network, stage, number, preset)
    order = np.resize(np.random.default_rng(0).permutation(len(work.split.train)), preset.batch * steps)
    planned = shares(order, preset.batch, Processes(), work.machine.micro_batch)
    parts = [part for step in planned for part in step]
    if training.frozen:
        next(training.feed(0, parts[:1]))  # computes the pyramids, which are not measured
    clock, kept = Clock(work.device, wall=True), list[Any]()
    feed = training.feed(0, parts)
    start = clock.seconds(lambda: kept.append(next(feed)))
    kept += islice(feed, 2 * len(planned[0]) - 1)

    def train(feed: Iterator[Any], count: int = steps) -> None:
        for step in planned[:count]:
            training.step(step, feed, rate=1e-6)

    from_memory, fed, waited = list[float](), list[float](), 0.0
    lead_in = planned[:LEAD_IN]
    before = [part for step in lead_in for part in step]
    train(cycle(kept), 2)  # warm-up
    reset_peak(work.device)
    for _ in range(repetitions):
        from_memory.append(clock.seconds(partial(train, cycle(kept))))
        feed = training.feed(0, before + parts + TRAILING * parts[: len(planned[0])])
        train(feed, len(lead_in))
        training.at.waited = 0.0
        fed.append(clock.seconds(partial(train, feed)))
        waited += training.at.waited
        deque(feed, maxlen=0)  # so that no process loads batches while the steps from memory are timed
    training.loader.close()
    peak = peak_bytes(work.device)
    cost = stage_cost(RECIPES[recipe], preset, stage, videos=1, actions=actions, machine=work.machine)
    videos = preset.batch * steps
    return StageSpeed(
        fed=videos / float(np.median(fed)),
        memory_fed=videos / float(np.median(from_memory)),
        ratio=Spread.of(np.divide(from_memory, fed)),
        start=start,
        waiting=waited / sum(fed),
        peak=peak,
        flops=videos / float(np.median(fed)) * cost.flops,
    )
