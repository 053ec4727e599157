"""The clock and the table of all parts of `ifttn bench`.

On a CPU the clock measures the processor time of this process, without other work on the machine. On a GPU it waits for
the device and measures wall-clock time.
"""

import json
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float64


class Clock:
    """Times work on a device. `wall`: use wall-clock time on a CPU too, because other processes do part of the work."""

    def __init__(self, device: str = "cpu", wall: bool = False) -> None:
        self.device, self.on_gpu = device, device.startswith("cuda")
        self.unit = "wall-clock time" if wall or self.on_gpu else "processor time"
        self._read = time.perf_counter if wall or self.on_gpu else time.process_time

    def now(self) -> float:
        """The time in seconds, after the device has finished its work."""
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        return self._read()

    def steps(self, work: Callable[[], object]) -> Float64[np.ndarray, " n"]:
        """The seconds of `work()`. If it returns an iterator, the seconds of each step."""
        marks = [self.now()]
        result = work()
        if isinstance(result, Iterator):
            marks.extend(self.now() for _ in result)
        return np.diff([*marks, self.now()])

    def seconds(self, work: Callable[[], object]) -> float:
        """The seconds of `work()` with all its steps."""
        return float(self.steps(work).sum())

    def best(
        self, sides: Mapping[str, Callable[[], object]], repetitions: int, warm_up: bool = False
    ) -> dict[str, float]:
        """The shortest time of each side in seconds. The sides take turns, and each step has its shortest time."""
        least: dict[str, Float64[np.ndarray, " n"]] = {}
        for turn in range(-warm_up, repetitions):
            for name, side in sides.items():
                steps = self.steps(side)
                if turn >= 0:
                    least[name] = np.minimum(least.get(name, steps), steps)
        return {name: float(steps.sum()) for name, steps in least.items()}

    def rounds(self, workloads: Sequence["Workload"], repetitions: int, minutes: float) -> Iterator["Timing"]:
        """Time each workload once, then again in turns. Each gets an equal share of the minutes, and at most
        `repetitions` repetitions."""
        share, spent, weight, first = 60 * minutes / max(1, len(workloads)), 0.0, 0.0, list[float]()
        for number, workload in enumerate(workloads):
            first.append(self.seconds(workload.work))
            spent, weight = spent + first[-1], weight + workload.weight
            ahead = sum(other.weight for other in workloads[number + 1 :]) * spent / weight
            yield Timing(workload, 0, first[-1], ahead + min(share, spent / (number + 1)) * len(workloads))
        turns = [min(repetitions, max(1, int(share / seconds))) for seconds in first]
        to_do = [(turn, number) for turn in range(1, repetitions) for number, most in enumerate(turns) if turn < most]
        left = sum(first[number] for _, number in to_do)
        for turn, number in to_do:
            left -= first[number]
            yield Timing(workloads[number], turn, self.seconds(workloads[number].work), left)


@dataclass(frozen=True)
class Workload:
    """Work to be timed: a row of a table, by one definition of speed."""

    row: str
    definition: str
    count: float
    """Number of snippets or videos in one repetition."""
    work: Callable[[], object]
    weight: float
    """Approximate duration relative to the other workloads, in any unit."""


@dataclass(frozen=True)
class Timing:
    """One repetition of a workload."""

    workload: Workload
    round: int
    seconds: float
    left: float
    """Approximate number of seconds for the rest of the work."""


class Spread(NamedTuple):
    """Quartiles of repeated measurements."""

    low: float
    median: float
    high: float
    repetitions: int

    @classmethod
    def of(cls, values: Sequence[float] | Float64[np.ndarray, " n"]) -> "Spread":
        """The quartiles of one or more values."""
        low, median, high = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return cls(low, median, high, len(values))

    def __format__(self, digits: str) -> str:
        low, median, high = (format(value, digits) for value in self[:3])
        return f"{median} [{low}, {high}]"


class PrintedTable:
    """A table that prints each row as soon as it is measured. `first` is the width of the first column."""

    kept: Path | None = None
    """A file that also gets every row of every table, one JSON object per line: "headings" of a table, then "row"s."""

    def __init__(self, *headings: str, first: int = 34, width: int = 10) -> None:
        self._widths = [max(width, len(heading) + 2) for heading in headings[1:]]
        self._first = first
        self._put("headings", *headings)

    def row(self, name: str, *cells: str) -> None:
        """Print a row."""
        self._put("row", name, *cells)

    def _put(self, kind: str, name: str, *cells: str) -> None:
        if self.kept:
            with self.kept.open("a") as file:
                file.write(json.dumps({kind: [each.strip() for each in (name, *cells)]}) + "\n")
        columns = (f"{cell:>{width}}" for cell, width in zip(cells, self._widths, strict=False))
        print(f"{name:{self._first}}{''.join(columns)}".rstrip(), flush=True)


def use_one_core() -> None:
    """Make OpenCV and torch compute on one core."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)


def device_name(device: str) -> str:
    """The name of the GPU, or of the processor with its number of cores."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    about = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", about.read_text()) if about.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def one_core() -> str:
    """A description of this machine for a rate of one core."""
    return f"{device_name('cpu')}, one core of {os.cpu_count()}"


def product_rate(clock: Clock, dtype: torch.dtype) -> float:
    """FLOP/s of the product of two matrices of 8192 x 8192."""
    side = 8192
    a, b = torch.randn(2, side, side, dtype=dtype, device=clock.device)
    return 2 * side**3 / clock.best({"": lambda: a @ b}, 10, warm_up=True)[""]
