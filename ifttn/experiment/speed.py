"""What a second buys: the systems of Table 5 side by side, by three definitions of speed that are always named.

Every figure of a run is taken in turns, row after row and round after round, so that what else the machine does falls
on all alike. On a CPU a figure is of processor time of one core; on a GPU, where the host waits, of the clock.

Shapes: K segments of a video, V of them that a row takes, T frames of a video, planes C of a snippet, H x W pixels.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ifttn.data.augmentation import test_crops
from ifttn.data.frame_source import FrameSource, StoreSettings
from ifttn.data.gop import GOP
from ifttn.data.planes import Snippets
from ifttn.data.video import decode
from ifttn.data.video_source import from_file
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.processes import Machine
from ifttn.experiment.scores import late_fusion
from ifttn.model.folding import folded
from ifttn.model.peers.table5 import ON_FLOW, PEERS, Peer, Variant
from ifttn.vocabulary import MODALITIES, STACK

ROWS: Mapping[str, Peer] = {**PEERS, "if-ttn": ON_FLOW}
"""Table 5, and the network that the claim about motion vectors compares with."""
DEFINITIONS: Mapping[str, str] = {
    "snippets": "snippets a second through the network: bytes on the device -> votes on the device, in batches",
    "videos": "videos a second: bytes of one video's snippets in the host's memory -> its class scores there",
    "end to end": "videos a second from a file on disk to class scores: decoding, motion, crop, network, late fusion",
}
DECODE, VECTORS, RATE = "decoding alone", "decoding, vectors and frames", "a large product"
"""What is measured beside the rows, to know how far they can go."""
ACTIONS = 101
BOUND = PRESETS["paper"].store.bound
TVL1_GMACS = 1e-4
"""About what a pixel of TV-L1 costs, in convolution; it serves to guess how long a measurement takes."""


@dataclass(frozen=True)
class Conditions:
    """What is measured, and on what."""

    video: Path
    size: str = "paper"
    """A name of table5.PEER_SIZES."""
    rows: tuple[str, ...] = tuple(ROWS)
    segments: int = 7
    batch: int = 1
    """Videos at once in the first definition."""
    device: str = "cpu"
    machine: Machine = field(default_factory=Machine)
    """Its precision and whether networks are compiled."""

    @property
    def on_gpu(self) -> bool:
        """Time is of the clock, and waits for the device."""
        return torch.device(self.device).type == "cuda"


@dataclass(frozen=True)
class Task:
    """One thing to time."""

    row: str
    """A name of ROWS, or DECODE, VECTORS, RATE."""
    definition: str
    """A name of DEFINITIONS; empty for what is no row."""
    count: float
    """Snippets, videos or billions of multiply-adds that one repetition gets through."""
    run: Callable[[], object]
    weight: float
    """About how long it takes, in billions of multiply-adds."""


@dataclass(frozen=True)
class Timing:
    """One repetition."""

    task: Task
    round: int
    seconds: float
    left: float
    """About how many seconds all that is still to do will take."""


@dataclass(frozen=True)
class Rate:
    """What a second bought, over the repetitions."""

    low: float
    """First quartile."""
    median: float
    high: float
    """Third quartile."""
    repetitions: int


@dataclass(frozen=True)
class Subject:
    """A row, built and warm."""

    name: str
    setup: Variant
    network: Callable[[Mapping[str, Tensor]], Any]
    gmacs: float
    """Billions of multiply-adds of a video of V segments."""
    taken: int
    """V: segments of the video that it takes. Rows of many frames take no more than fit without overlapping."""


# What a row is fed


def span(setup: Variant) -> int:
    """Frames of the video that one segment needs."""
    needs = {"flow": lambda n: n // 2 + 1, "mv": lambda n: n // 2 + 1, "rgbdiff": lambda n: n // 3 + 1}
    return max(
        snippets + 1 if modality == "accumulated" else needs.get(modality, lambda n: n // 3)(planes)
        for modality, (snippets, planes) in setup.segment.items()
    )


def fitting(setup: Variant, num_frames: int, segments: int) -> int:
    """V: K, or of a row of many frames, how many segments fit into a video without overlapping; at least two."""
    if setup.segment["rgb"][1] == 3 and "accumulated" not in setup.segment:
        return segments
    return int(np.clip(num_frames // span(setup), 2, segments))


def starts_of(setup: Variant, num_frames: int, segments: int) -> Integer[np.ndarray, " V"]:
    """The first frame of each segment, in the middle of V equal spans."""
    taken, valid = fitting(setup, num_frames, segments), max(1, num_frames - span(setup) + 1)
    return (2 * np.arange(taken) + 1) * valid // (2 * taken)


def stored_size(setup: Variant) -> tuple[int, int]:
    """Width and height that frames are decoded to: 340 x 256 for a crop of 224, as TSN has it."""
    return round(340 * setup.size / 224), round(256 * setup.size / 224)


def read_inputs(
    video: Path, setup: Variant, segments: int, device: str = "cpu"
) -> dict[str, UInt8[Tensor, "1 _ _ H W"]]:
    """A file -> what a network takes, the centre cropped, by the very way that `predict` goes: in one decoding pass,
    with TV-L1 on the device, in one batch, of the fields that the snippets hold and no others."""
    width, height = stored_size(setup)
    part = test_crops(height, width, setup.size, 1)[0].region

    def read(footage: FrameSource) -> dict[str, UInt8[np.ndarray, "V C h w"]]:
        sampled = _sampled(footage, setup, segments)
        return {m: sampled[m].planes(m, part, channels=planes) for m, (_, planes) in setup.segment.items()}

    planes, _ = from_file(video, StoreSettings(width, height, BOUND), read, device)
    return {modality: torch.from_numpy(x)[None] for modality, x in planes.items()}


def _sampled(footage: FrameSource, setup: Variant, segments: int) -> dict[str, Snippets]:
    """Per modality, the snippets that a row takes of a video."""
    last, starts = footage.frames - 1, starts_of(setup, footage.frames, segments)
    frames = (starts + (span(setup) - 1) // 2).clip(0, last)
    p_frames, _ = setup.segment.get("accumulated", (0, 0))
    if p_frames:  # of whole groups of pictures, the I-frame and what follows it
        starts = starts - starts % GOP if p_frames > 1 else starts
        frames = starts
    later = (starts[:, None] + 1 + np.arange(p_frames)).clip(0, last).ravel()
    groups = Snippets(footage, later, np.empty((len(later), 0), int))
    found = {"accumulated": groups, "residual": groups}
    for modality in setup.segment.keys() - found.keys():
        count = setup.segment[modality][1] // (2 if MODALITIES[modality].is_motion else 3)
        fields = (starts[:, None] + np.arange(count)).clip(0, last - 1)
        is_run = modality == "rgb" and count > 1
        found[modality] = Snippets(footage, starts + count // 2 if is_run else frames, fields)
    return found


# What a row is, and what it costs


def macs(network: nn.Module, inputs: Mapping[str, tuple[int, ...]]) -> float:
    """Multiply-adds of one forward pass, counted without computing it."""
    nowhere = network.to("meta")
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        nowhere({m: torch.empty(shape, dtype=torch.uint8) for m, shape in inputs.items()})
    return counter.get_total_flops() / 2


def subject(name: str, conditions: Conditions, num_frames: int) -> Subject:
    """A row of ROWS: its batch normalisations folded, channels last, on the device, compiled where that is asked for.

    Weights are random: speed does not depend on them.
    """
    setup = ROWS[name].at(conditions.size)
    taken = fitting(setup, num_frames, conditions.segments)
    with torch.device("meta"):
        cost = macs(setup.network(ACTIONS).eval(), setup.inputs(1, taken))
    network = folded(setup.network(ACTIONS)).to(conditions.device)
    if conditions.machine.compile:
        network = torch.compile(network, mode="reduce-overhead" if conditions.on_gpu else None)
    return Subject(name, setup, network, cost / 1e9, taken)


@torch.inference_mode()
def answer(subject: Subject, inputs: Mapping[str, Tensor], conditions: Conditions) -> Float[Tensor, "N A"]:
    """Bytes, wherever they are -> late-fused scores in the host's memory."""
    there = {m: x.to(conditions.device, non_blocking=True) for m, x in inputs.items()}
    with _autocast(conditions):
        logits = subject.network(there).logits
    return late_fusion({head: x.float() for head, x in logits.items()}).cpu()


def _autocast(conditions: Conditions) -> AbstractContextManager[Any]:
    return conditions.machine.autocast(conditions.device)


# What is timed


def tasks(conditions: Conditions) -> Iterator[Task]:
    """Everything to time in one round, built and warmed up one after the other, as it is asked for."""
    num_frames, _ = watched(conditions.video)
    yield from floor_tasks(conditions, num_frames)
    for name in conditions.rows:
        yield from _tasks_of(subject(name, conditions, num_frames), conditions)


def _tasks_of(subject: Subject, conditions: Conditions) -> Iterator[Task]:
    setup, taken = subject.setup, subject.taken
    generator = torch.Generator().manual_seed(0)
    shapes = setup.inputs(1, taken)
    inputs = {m: torch.randint(0, 256, s, generator=generator, dtype=torch.uint8) for m, s in shapes.items()}
    if conditions.on_gpu:
        inputs = {m: x.pin_memory() for m, x in inputs.items()}
    there = {m: x.to(conditions.device).repeat(conditions.batch, 1, 1, 1, 1) for m, x in inputs.items()}

    @torch.inference_mode()
    def snippets() -> None:
        with _autocast(conditions):
            subject.network(there)

    def end_to_end() -> Tensor:
        read = read_inputs(conditions.video, setup, conditions.segments, conditions.device)
        return answer(subject, read, conditions)

    warm = 1 if ROWS[subject.name].frames > 1 else 2  # segments; pairs need two
    answer(subject, {m: x[:, : x.shape[1] * warm // taken] for m, x in inputs.items()}, conditions)
    if conditions.on_gpu:
        snippets()
    name, cost = subject.name, subject.gmacs
    yield Task(name, "snippets", float(conditions.batch * taken), snippets, conditions.batch * cost)
    yield Task(name, "videos", 1.0, lambda: answer(subject, inputs, conditions), cost)
    width, height = stored_size(setup)
    flow = width * height * TVL1_GMACS * taken * setup.segment.get("flow", (0, 0))[1] / 2
    yield Task(name, "end to end", 1.0, end_to_end, cost + flow)


def floor_tasks(conditions: Conditions, num_frames: int) -> Iterator[Task]:
    """What no implementation gets below: decoding, and the device's own rate of multiply-adds."""
    setup = ROWS["mv-if-ttn"].at(conditions.size)
    side = 8192 if conditions.on_gpu else 1024
    dtype = conditions.machine.dtype(conditions.device)
    a = torch.ones(side, side, device=conditions.device, dtype=dtype)
    yield Task(DECODE, "", 1.0, lambda: _decoded(conditions.video), num_frames / 100)
    yield Task(VECTORS, "", 1.0, lambda: read_inputs(conditions.video, setup, conditions.segments), num_frames / 50)
    yield Task(RATE, "", side**3 / 1e9, lambda: a @ a, side**3 / 1e9)


def _decoded(video: Path) -> int:
    with av.open(video, metadata_errors="replace") as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def watched(video: Path) -> tuple[int, float]:
    """Frames of a video, and how many of them are shown a second; IfttnError where it cannot be decoded."""
    decoded = decode(video, choose=lambda count: [])
    return len(decoded.kinds), decoded.fps


def timings(tasks: Sequence[Task], conditions: Conditions, repetitions: int, minutes: float) -> Iterator[Timing]:
    """Each task once, then again in turns; so often as an equal share of the minutes allows, at most `repetitions`."""
    clock, spent, measured = time.perf_counter if conditions.on_gpu else time.process_time, 0.0, 0.0
    took: dict[int, float] = {}
    share = 60 * minutes / max(1, len(tasks))
    for number, task in enumerate(tasks):
        took[number] = _timed(task, conditions, clock)
        spent, measured = spent + took[number], measured + task.weight
        ahead = sum(other.weight for other in tasks[number + 1 :]) * spent / measured
        yield Timing(task, 0, took[number], ahead + min(share, spent / (number + 1)) * len(tasks))
    turns = {number: int(np.clip(share / took[number], 1, repetitions)) for number in took}
    todo = [(turn, number) for turn in range(1, repetitions) for number in took if turn < turns[number]]
    left = sum(took[number] for _, number in todo)
    for turn, number in todo:
        left -= took[number]
        yield Timing(tasks[number], turn, _timed(tasks[number], conditions, clock), left)


def _timed(task: Task, conditions: Conditions, clock: Callable[[], float]) -> float:
    began = clock()
    task.run()
    if conditions.on_gpu:
        torch.cuda.synchronize(conditions.device)
    return clock() - began


# What it comes to


class Result:
    """Timings gathered: rates of the rows, and what the paper claims of them."""

    def __init__(self, conditions: Conditions, num_frames: int, fps: float) -> None:
        self.conditions, self.num_frames, self.fps = conditions, num_frames, fps
        self.timings: list[Timing] = []

    def seconds(self, row: str, definition: str = "") -> Float[np.ndarray, " n"]:
        """Of one repetition each."""
        return np.array(
            [t.seconds for t in self.timings if (t.task.row, t.task.definition) == (row, definition)], np.float64
        )

    def rate(self, row: str, definition: str = "") -> Rate | None:
        """What a second bought; None where nothing was measured."""
        seconds = self.seconds(row, definition)
        if not len(seconds):
            return None
        counts = {t.task.count for t in self.timings if (t.task.row, t.task.definition) == (row, definition)}
        low, median, high = np.quantile(counts.pop() / seconds, [0.25, 0.5, 0.75])
        return Rate(float(low), float(median), float(high), len(seconds))

    def ratio(self, quick: str, slow: str) -> Rate | None:
        """How many times as many videos a second one row gets through end to end as another does, both of the same
        round; where the two were measured unequally often, the last figure of each stands for the rounds it lacks."""
        first, second = self.seconds(quick, "end to end"), self.seconds(slow, "end to end")
        if not (len(first) and len(second)):
            return None
        rounds = max(len(first), len(second))
        ratios = [second[min(r, len(second) - 1)] / first[min(r, len(first) - 1)] for r in range(rounds)]
        low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        return Rate(float(low), float(median), float(high), min(len(first), len(second)))

    def gmacs(self, row: str) -> float:
        """Of one video."""
        task = next(t.task for t in self.timings if (t.task.row, t.task.definition) == (row, "snippets"))
        return task.weight / self.conditions.batch

    def floors(self, row: str = "mv-if-ttn") -> dict[str, float] | None:
        """Seconds a video that no implementation of a row goes below: "decoding", and "network", its multiply-adds at
        the rate of a large product. None where one was not measured."""
        rate, decoding = self.rate(RATE), self.rate(DECODE)
        if not (rate and decoding and self.rate(row, "videos")):
            return None
        return {"decoding": 1 / decoding.median, "network": self.gmacs(row) / rate.median}

    def claims(self) -> list[str]:
        """What the paper says of speed, and what this run says of that: a sentence each."""
        return [*self._tenfold(), *self._real_time(), *self._floor()]

    def _tenfold(self) -> Iterator[str]:
        for slow, paper in (("if-ttn", ""), ("tsn-rgb-flow", " (the paper prints 142 and 14: 10.1)")):
            ratio = self.ratio("mv-if-ttn", slow)
            if ratio is None:
                continue
            yield (
                f"MV-IF-TTN end to end against {ROWS[slow].row}: {_spread(ratio)} times as fast{paper}; "
                f"at least 10 {'holds' if ratio.median >= 10 else 'does not hold'}."
            )
            yield from self._why(slow)

    def _why(self, slow: str) -> Iterator[str]:
        """What limits the ratio, and what it is where every field of a video is wanted."""
        network, own_network, reading = self.rate(slow, "videos"), self.rate("mv-if-ttn", "videos"), self.rate(VECTORS)
        if not (network and own_network and reading):
            return
        own, other = (float(np.median(self.seconds(name, "end to end"))) for name in ("mv-if-ttn", slow))
        taken = fitting(ROWS[slow].at(self.conditions.size), self.num_frames, self.conditions.segments)
        fields, every = taken * STACK, self.num_frames - 1
        flow = max(0.0, other - 1 / network.median - 1 / reading.median)
        yield (
            f"  Flow is of the {fields} fields that the snippets hold: {1000 * flow:.0f} ms. Decoding with vectors "
            f"takes {1000 / reading.median:.0f} ms, MV-IF-TTN's network {1000 / own_network.median:.0f} ms, "
            f"{min(1.0, 1 / own_network.median / own):.0%} of its time, which bounds the ratio."
        )
        yield (
            f"  Before the network alone: {1 + flow * reading.median:.0f} times. With flow of all {every} fields, as a "
            f"live stream or a store needs (reckoned): {(other + flow * (every / fields - 1)) / own:.1f} times."
        )

    def _real_time(self) -> Iterator[str]:
        rate = self.rate("mv-if-ttn", "end to end")
        if rate:
            times = rate.median * self.num_frames / self.fps
            yield (
                f"MV-IF-TTN {'passes' if times > 1 else 'misses'} real time: {times:.1f} times as fast as the video "
                f"plays ({rate.median * self.num_frames:.0f} of its frames a second, played at {self.fps:g})."
            )

    def _floor(self) -> Iterator[str]:
        floors, own, rate = self.floors(), self.rate("mv-if-ttn", "end to end"), self.rate(RATE)
        if floors and own and rate:
            reached = max(floors.values()) * own.median
            yield (
                f"MV-IF-TTN's floor, in ms a video: decoding alone {1000 * floors['decoding']:.1f}; "
                f"{self.gmacs('mv-if-ttn'):.1f} G multiply-adds at {rate.median:.0f} G a second "
                f"{1000 * floors['network']:.1f}. It takes {1000 / own.median:.1f}, "
                f"{reached:.2f} of the larger ({'aim met' if reached >= 0.8 else 'aim missed'}: 0.8)."
            )


def _spread(rate: Rate) -> str:
    return f"{rate.median:.1f} [{rate.low:.1f}, {rate.high:.1f}]"
