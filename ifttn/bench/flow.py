"""Our TV-L1 beside OpenCV's DualTVL1: how fast on one core, how far apart, how far from motions that are known.

Both get the same pairs in the same run, by turns, one core each; figures are of processor time, the best turn of each
pair. OpenCV's lives in opencv-contrib, whose wheel would overwrite ours, so it runs in an environment of its own.
"""

import argparse
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numba
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from ifttn.bench.peers import python_of
from ifttn.data import diagnostic
from ifttn.data.flow import luminance
from ifttn.data.tvl1 import FAST, OPENCV, CoarseToFine, bytes_moved
from ifttn.data.tvl1_cpu import Solver
from ifttn.data.video import read_frames
from ifttn.vocabulary import IfttnError

REQUIREMENTS = ("opencv-contrib-python-headless>=4.11",)
_PEER = """
import sys, time, cv2, numpy
cv2.setNumThreads(1)
print(cv2.__version__, flush=True)
for line in sys.stdin:
    source, target = line.rstrip("\\n").split("\\t")
    first, second = numpy.load(source)
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    began = time.process_time()
    flow = solver.calc(first, second, None)
    seconds = time.process_time() - began
    numpy.save(target, numpy.ascontiguousarray(flow.transpose(2, 0, 1)))
    print(seconds, flush=True)
"""
Other = Callable[[np.ndarray], tuple[np.ndarray, float]]
"""A pair (2, H, W) -> its flow (2, H, W) and the seconds that it took."""
_ROW = "{:34}{:>10}{:>12}{:>12}{:>8}{:>12}{:>12}"


@dataclass(frozen=True)
class Motion:
    """A similarity about the middle of the image, the same between any two frames."""

    name: str
    shift: tuple[float, float] = (0.0, 0.0)
    """Pixels along x and y."""
    zoom: float = 1.0
    degrees: float = 0.0

    def matrix(self, height: int, width: int) -> Float[np.ndarray, "2 3"]:
        """Where a point (x, y, 1) goes."""
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -self.degrees, self.zoom)
        matrix[:, 2] += self.shift
        return matrix

    def flow(self, height: int, width: int) -> Float32[np.ndarray, "2 H W"]:
        """Its displacement of every pixel."""
        y, x = np.mgrid[:height, :width]
        moved = np.tensordot(self.matrix(height, width), np.stack([x, y, np.ones_like(x)]), 1)
        return (moved - np.stack([x, y])).astype(np.float32)

    def pair(self, height: int, width: int, seed: int = 0) -> UInt8[np.ndarray, "2 H W"]:
        """A smooth random texture before and after."""
        rng, margin = np.random.default_rng(seed), 40
        size = (height + 2 * margin, width + 2 * margin)
        rough = np.sum([cv2.GaussianBlur(rng.normal(0, s, size), (0, 0), s) for s in (2.0, 4.0, 8.0)], axis=0)
        texture = np.interp(rough, (rough.min(), rough.max()), (0, 255)).astype(np.float32)
        still = np.array([[1, 0, margin], [0, 1, margin]], np.float64)
        onto = cv2.invertAffineTransform(self.matrix(height, width))
        onto[:, 2] += margin
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        pair = [cv2.warpAffine(texture, matrix, (width, height), flags=flags) for matrix in (still, onto)]
        return np.rint(pair).clip(0, 255).astype(np.uint8)


MOTIONS = (
    Motion("pan (1.5, 0.5) px", (1.5, 0.5)),
    Motion("pan (-4, 3) px", (-4.0, 3.0)),
    Motion("zoom 1.02", zoom=1.02),
    Motion("zoom 0.97", zoom=0.97),
    Motion("rotation 1 degree", degrees=1.0),
    Motion("rotation -2 degrees", degrees=-2.0),
)


@dataclass(frozen=True)
class Compared:
    """The two on some pairs."""

    ours: float
    """Seconds of one core, a pair."""
    theirs: float
    distances: tuple[float, ...]
    """Mean end-point difference of each pair, in pixels."""
    errors: tuple[float, float]
    """Mean end-point error of ours and of theirs, where the motion is known; else nan."""
    iterations: float
    """Of ours, a warp."""


class Peer:
    """OpenCV's DualTVL1 in another process."""

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.process, self.folder = process, folder
        self.version = self._line()

    def __call__(self, pair: UInt8[np.ndarray, "2 H W"]) -> tuple[Float32[np.ndarray, "2 H W"], float]:
        """The flow at its defaults, and the seconds of processor time that it took."""
        source, target = self.folder / "pair.npy", self.folder / "flow.npy"
        np.save(source, pair)
        assert self.process.stdin
        self.process.stdin.write(f"{source}\t{target}\n")
        self.process.stdin.flush()
        seconds = float(self._line())
        return np.load(target), seconds

    def _line(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        if not line:
            raise IfttnError("OpenCV's DualTVL1 ended before it answered; what it said is above")
        return line


@contextmanager
def opencv() -> Iterator[Peer]:
    """DualTVL1 of opencv-contrib, in an environment that the first call makes; IfttnError where it cannot."""
    python = python_of("opencv-contrib", REQUIREMENTS)
    with (
        tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder,
        subprocess.Popen(
            [python, "-c", _PEER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        ) as process,
    ):
        try:
            yield Peer(process, Path(folder))
        finally:
            process.terminate()


def run(o: argparse.Namespace) -> int:
    """Print the tables. Returns the exit code."""
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    pyramid = FAST if o.fast else OPENCV
    with opencv() as peer, tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        _print_header(o, peer.version)
        videos = o.videos or _embedded(Path(folder))
        for width, height in o.sizes:
            pairs = [pair for video in videos for pair in pairs_of(video, (width, height), o.pairs)]
            names = [str(video.name) for video in videos for _ in range(o.pairs)]
            for name in dict.fromkeys(names):
                chosen = [pair for pair, its in zip(pairs, names, strict=True) if its == name]
                compared = compare(peer, chosen, o.repetitions, pyramid=pyramid)
                print(_row(f"{name} {width}x{height}", compared))
            for motion in MOTIONS:
                compared = compare(peer, [motion.pair(height, width)], 1, motion.flow(height, width), pyramid)
                print(_row(f"{motion.name} {width}x{height}", compared))
            if not o.fast:
                _print_device(width, height, np.stack(pairs))
    return 0


def compare(
    peer: Other,
    pairs: Sequence[UInt8[np.ndarray, "2 H W"]],
    repetitions: int,
    truth: Float32[np.ndarray, "2 H W"] | None = None,
    pyramid: CoarseToFine = OPENCV,
) -> Compared:
    """Both on every pair, by turns, best of so many; the end-point errors where the flow of all pairs is known."""
    ours, theirs, distances, errors = [], [], [], []
    Solver(*pairs[0].shape[1:], pyramid=pyramid)(*pairs[0].astype(np.float32))  # compiled, or read from the cache
    solver = Solver(*pairs[0].shape[1:], pyramid=pyramid)
    for pair in pairs:
        turns = [(_timed(solver, pair), peer(pair)) for _ in range(repetitions)]
        (own, _), (flow, _) = turns[0]
        ours.append(min(seconds for (_, seconds), _ in turns))
        theirs.append(min(seconds for _, (_, seconds) in turns))
        distances.append(distance(own, flow))
        errors.append((np.nan, np.nan) if truth is None else (distance(own, truth), distance(flow, truth)))
    our_error, their_error = np.mean(errors, axis=0).tolist()
    return Compared(
        float(np.mean(ours)), float(np.mean(theirs)), tuple(distances), (our_error, their_error), solver.iterations
    )


def _timed(solver: Solver, pair: UInt8[np.ndarray, "2 H W"]) -> tuple[Float32[np.ndarray, "2 H W"], float]:
    began = time.process_time()
    return solver(*pair.astype(np.float32)), time.process_time() - began


def distance(flow: Float32[np.ndarray, "2 H W"], other: Float32[np.ndarray, "2 H W"]) -> float:
    """Mean end-point difference in pixels."""
    return float(np.hypot(*(flow - other)).mean())


def pairs_of(video: Path, size: tuple[int, int], count: int) -> list[UInt8[np.ndarray, "2 H W"]]:
    """Neighbouring frames at (width, height) as luminance, evenly spread; IfttnError where there are too few."""
    frames = read_frames(video)
    if len(frames) < 2:
        raise IfttnError(f"{video}: has one frame, and motion needs two")
    starts = np.linspace(0, len(frames) - 2, count + 2).astype(int)[1:-1]
    return [luminance(np.stack([cv2.resize(frames[i], size) for i in (start, start + 1)])) for start in starts]


def _embedded(folder: Path) -> list[Path]:
    diagnostic.write(folder, "ucf", videos=16, seed=0, jobs=1, progress=False)
    return sorted(path for path in folder.rglob("*.*") if path.suffix in (".avi", ".mp4"))[::6]


def _print_header(o: argparse.Namespace, version: str) -> None:
    print(f"{_processor()}, one core of {os.cpu_count()}; numba {numba.__version__}, OpenCV {cv2.__version__}")
    print(f"peer: DualTVL1 of opencv-contrib {version}, its defaults")
    ours = "tvl1-fast" if o.fast else "tvl1"
    print(f"ours: {ours}; {o.pairs} pairs a video, the best of {o.repetitions} turns of each")
    print("pairs/s of one core; apart: mean end-point distance of the two in px; error: the same to the known motion")
    print(_ROW.format("", "ours", "OpenCV", "ratio", "apart", "our error", "its error"))


def _processor() -> str:
    about = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.+)", about.read_text()) if about.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def _row(name: str, c: Compared) -> str:
    errors = ("", "") if np.isnan(c.errors[0]) else (f"{c.errors[0]:.4f}", f"{c.errors[1]:.4f}")
    apart = f"{np.mean(c.distances):.4f}"
    return _ROW.format(
        name, f"{1 / c.ours:.2f}", f"{1 / c.theirs:.2f}", f"{c.theirs / c.ours:.1f}", apart, *errors
    ).rstrip()


def _print_device(width: int, height: int, pairs: UInt8[np.ndarray, "P 2 H W"]) -> None:
    solver = Solver(height, width)
    on_cpu = np.stack([solver(*pair.astype(np.float32)) for pair in pairs])
    cost = bytes_moved(height, width, solver.iterations)
    print(f"{width}x{height}: {solver.iterations:.1f} iterations a warp, {cost / 1e9:.2f} GB moved a pair", end="; ")
    if not torch.cuda.is_available():
        print("no GPU is here: no rate on one")
        return
    from ifttn.data.tvl1_triton import solve

    repeated = torch.from_numpy(np.resize(pairs, (256, *pairs.shape[1:]))).cuda()
    seconds = min(_seconds(lambda: solve(repeated[:, 0], repeated[:, 1])) for _ in range(4))  # the first one compiles
    big = torch.empty(2**28, device="cuda")
    other = torch.empty_like(big)
    bandwidth = 2 * 4 * 2**28 / min(_seconds(lambda: other.copy_(big)) for _ in range(5))
    rate, floor = len(repeated) / seconds, bandwidth / cost
    flow = solve(repeated[: len(pairs), 0], repeated[: len(pairs), 1]).cpu().numpy()
    apart = np.mean([distance(a, b) for a, b in zip(flow, on_cpu, strict=True)])
    print(
        f"{torch.cuda.get_device_name()}: {rate:.0f} pairs/s, {rate / floor:.0%} of the {floor:.0f} that its "
        f"{bandwidth / 1e12:.2f} TB/s of copies would allow without caches; {apart:.4f} px from the CPU's flow"
    )


def _seconds(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - began
