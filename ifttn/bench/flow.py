"""Compares our TV-L1 with OpenCV's DualTVL1: speed on one core, difference of the flows, error on known motions.

Both compute the same pairs in the same run, in turns, on one core each. Times are processor times, and the best turn of
each pair counts. DualTVL1 is in opencv-contrib, whose wheel would overwrite our OpenCV, so it has its own environment.
"""

import argparse
import os
import pickle
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numba
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8

from ifttn.bench.clock import Clock, PrintedTable, device_name, one_core, use_one_core
from ifttn.bench.peers import python_of
from ifttn.data import tvl1_cuda
from ifttn.data.flow import luminance
from ifttn.data.tvl1 import FAST, OPENCV, CoarseToFine, bytes_moved
from ifttn.data.tvl1_cpu import Solver
from ifttn.vocabulary import IfttnError

REQUIREMENTS = ("opencv-contrib-python-headless==4.14.*",)
# The script reads pickled pairs (2, H, W) and writes pickled (flow (2, H, W), seconds). First it writes its version.
_SCRIPT = """
import pickle, sys, time, cv2
cv2.setNumThreads(1)
answer = cv2.__version__
while True:
    pickle.dump(answer, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    first, second = pickle.load(sys.stdin.buffer)
    solver = cv2.optflow.DualTVL1OpticalFlow_create()
    began = time.process_time()
    flow = solver.calc(first, second, None)
    answer = flow.transpose(2, 0, 1), time.process_time() - began
"""


@dataclass(frozen=True)
class Motion:
    """A known motion between two frames: a similarity transform about the middle of the image."""

    name: str
    shift: tuple[float, float] = (0.0, 0.0)
    """Displacement along x and y in pixels."""
    zoom: float = 1.0
    degrees: float = 0.0

    def matrix(self, height: int, width: int) -> Float[np.ndarray, "2 3"]:
        """The matrix that maps a point (x, y, 1) to its new position."""
        matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -self.degrees, self.zoom)
        matrix[:, 2] += self.shift
        return matrix

    def flow(self, height: int, width: int) -> Float32[np.ndarray, "2 H W"]:
        """The displacement of every pixel."""
        y, x = np.mgrid[:height, :width]
        moved = np.tensordot(self.matrix(height, width), np.stack([x, y, np.ones_like(x)]), 1)
        return (moved - np.stack([x, y])).astype(np.float32)

    def pair(self, height: int, width: int) -> UInt8[np.ndarray, "2 H W"]:
        """A smooth random texture before and after the motion."""
        rng, margin = np.random.default_rng(0), 40
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
    """Results of our flow and of OpenCV's flow on some pairs."""

    ours: float
    """Seconds per pair on one core."""
    theirs: float
    distances: tuple[float, ...]
    """Mean end-point difference of each pair, in pixels."""
    errors: tuple[float, float]
    """Mean end-point error of our flow and of OpenCV's, for a known motion; nan for an unknown motion."""


class DualTVL1:
    """OpenCV's DualTVL1 with its defaults, in another process."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self.version: str = self._answer()

    def __call__(self, pair: UInt8[np.ndarray, "2 H W"]) -> tuple[Float32[np.ndarray, "2 H W"], float]:
        """The flow, and its processor time in seconds."""
        assert self._process.stdin
        pickle.dump(pair, self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        try:
            return pickle.load(self._process.stdout)
        except EOFError as error:
            raise IfttnError("OpenCV's DualTVL1 ended without an answer; its message is above") from error


@contextmanager
def opencv() -> Iterator[DualTVL1]:
    """DualTVL1 of opencv-contrib in its own environment, which the first call makes. Raises IfttnError if it cannot."""
    command = [python_of("opencv-contrib", REQUIREMENTS), "-c", _SCRIPT]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield DualTVL1(process)
        finally:
            process.terminate()


def run(o: argparse.Namespace) -> int:
    """Print a row for each video and each known motion, for each size."""
    use_one_core()
    if o.gpu:
        for width, height in o.sizes:
            print(gpu_line(np.stack([motion.pair(height, width) for motion in MOTIONS])))
        return 0
    pyramid = FAST if o.fast else OPENCV
    with opencv() as peer, tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        print(f"{one_core()}; numba {numba.__version__}, OpenCV {cv2.__version__}")
        print(f"peer: DualTVL1 of opencv-contrib {peer.version}, its defaults")
        name = "tvl1-fast" if o.fast else "tvl1"
        print(f"ours: {name}; {o.pairs} pairs per video, the best of {o.repetitions} turns of each pair")
        print("pairs/s of one core; apart: mean end-point difference in px; error: mean difference to the known motion")
        table = PrintedTable("", "ours", "OpenCV", "ratio", "apart", "our error", "its error")
        videos = o.videos or _embedded(Path(folder))
        for width, height in o.sizes:
            pairs = {video.name: pairs_of(video, (width, height), o.pairs) for video in videos}
            for name, own in pairs.items():
                table.row(f"{name} {width}x{height}", *_cells(compare_flows(peer, own, o.repetitions, pyramid=pyramid)))
            for motion in MOTIONS:
                known = compare_flows(peer, [motion.pair(height, width)], 1, motion.flow(height, width), pyramid)
                table.row(f"{motion.name} {width}x{height}", *_cells(known))
            if not o.fast:
                print(gpu_line(np.concatenate(list(pairs.values()))))
    return 0


def compare_flows(
    peer: Callable[[np.ndarray], tuple[np.ndarray, float]],
    pairs: Sequence[UInt8[np.ndarray, "2 H W"]],
    repetitions: int,
    truth: Float32[np.ndarray, "2 H W"] | None = None,
    pyramid: CoarseToFine = OPENCV,
) -> Compared:
    """Compute every pair with both, in turns. If `truth`, the flow of all pairs, is known, measure end-point errors.

    `peer` returns the flow of a pair and its time in seconds.
    """
    clock, ours, theirs, distances, errors = Clock(), [], [], [], []
    solver = Solver(*pairs[0].shape[1:], pyramid=pyramid)
    solver(*pairs[0].astype(np.float32))  # compiled, or read from the cache
    for pair in pairs:
        images = pair.astype(np.float32)
        turns = [(clock.seconds(lambda images=images: solver(*images)), peer(pair)) for _ in range(repetitions)]
        own, flow = solver(*images), turns[0][1][0]
        ours.append(min(seconds for seconds, _ in turns))
        theirs.append(min(seconds for _, (_, seconds) in turns))
        distances.append(distance(own, flow))
        errors.append((np.nan, np.nan) if truth is None else (distance(own, truth), distance(flow, truth)))
    our_error, their_error = np.mean(errors, axis=0).tolist()
    return Compared(float(np.mean(ours)), float(np.mean(theirs)), tuple(distances), (our_error, their_error))


def distance(flow: Float32[np.ndarray, "2 H W"], other: Float32[np.ndarray, "2 H W"]) -> float:
    """Mean end-point difference in pixels."""
    return float(np.hypot(*(flow - other)).mean())


def pairs_of(video: Path, size: tuple[int, int], count: int) -> list[UInt8[np.ndarray, "2 H W"]]:
    """Evenly spread pairs of neighbouring frames, as luminance at (width, height). Raises IfttnError for one frame."""
    from ifttn.data.video import read_frames  # only here, because known motions need no decoder

    frames = read_frames(video)
    if len(frames) < 2:
        raise IfttnError(f"{video}: has only one frame, and motion needs two")
    starts = np.linspace(0, len(frames) - 2, count + 2).astype(int)[1:-1]
    return [luminance(np.stack([cv2.resize(frames[i], size) for i in (start, start + 1)])) for start in starts]


def _embedded(folder: Path) -> list[Path]:
    from ifttn.data import diagnostic

    diagnostic.write(folder, "ucf", videos=16, seed=0, jobs=1, progress=False)
    return sorted(path for path in folder.rglob("*.*") if path.suffix in (".avi", ".mp4"))[::6]


def _cells(compared: Compared) -> Iterator[str]:
    yield from (f"{1 / compared.ours:.2f}", f"{1 / compared.theirs:.2f}", f"{compared.theirs / compared.ours:.1f}")
    yield f"{np.mean(compared.distances):.4f}"
    yield from () if np.isnan(compared.errors[0]) else (f"{error:.4f}" for error in compared.errors)


def gpu_line(pairs: UInt8[np.ndarray, "P 2 H W"]) -> str:
    """A line with the cost of a pair and, on a GPU, the rate and the bound that its memory sets."""
    height, width = pairs.shape[2:]
    solver = Solver(height, width)
    on_cpu = np.stack([solver(*pair.astype(np.float32)) for pair in pairs])
    cost = bytes_moved(height, width, solver.iterations, tvl1_cuda.FUSED)
    line = f"{width}x{height}: {solver.iterations:.1f} iterations per warp, at least {cost / 1e9:.2f} GB per pair; "
    if not torch.cuda.is_available():
        return f"{line}no rate on a GPU, because this machine has none"
    clock, big = Clock("cuda"), torch.empty(2**28, device="cuda")
    bandwidth = 2 * big.nbytes / clock.best({"": big.clone}, 3, warm_up=True)[""]
    first, second = torch.from_numpy(np.resize(pairs, (1024, *pairs.shape[1:]))).cuda().unbind(1)
    flow = tvl1_cuda.solve(first[: len(pairs)], second[: len(pairs)]).cpu().numpy()
    apart = np.mean([distance(a, b) for a, b in zip(flow, on_cpu, strict=True)])
    seconds = clock.best({"": lambda: tvl1_cuda.solve(first, second)}, 3, warm_up=True)[""]
    return (
        f"{line}{device_name('cuda')} copies {bandwidth / 1e12:.2f} TB/s, which allows {bandwidth / cost:.0f} pairs/s; "
        f"{1024 / seconds:.0f} pairs/s with 1,024 at once, {apart:.4f} px from the CPU's flow"
    )
