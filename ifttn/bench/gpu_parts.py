"""The parts of `ifttn bench gpu` that are not also parts of `ifttn bench`. Each runs in its own process.

python -m ifttn.bench.gpu_parts PART DEVICE FOLDER
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torchvision.io import ImageReadMode

from ifttn.bench.clock import Clock, PrintedTable, use_one_core
from ifttn.bench.flow import MOTIONS
from ifttn.bench.gpu import ROOT, Place
from ifttn.bench.store import dataset_of, drawn
from ifttn.data.batch import settled
from ifttn.data.catalogue import read_split
from ifttn.data.loading import batches
from ifttn.data.store import Store
from ifttn.experiment import testing, training
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import with_its_sources
from ifttn.experiment.scores import late_fusion, top1
from ifttn.experiment.work import Work

LEFT_OUT = ("test_training_killed_at_25_random_moments", "test_recomputing_lets_more_videos_fit")
"""Tests that the parts `resume` and `largest` already cover."""
LOADED = 16
"""Videos in a batch of the loader."""


def _tests(place: Place) -> int:
    """Run the tests that need a GPU, except those of other parts. The exit code is 1 if a test fails."""
    pytest = import_module("pytest")  # only a developer has it
    table = PrintedTable("test", "outcome", "seconds", "why", first=86, width=24)

    class Rows:
        """Adds each test to the table when it ends."""

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.when == "call" or report.outcome != "passed":
                table.row(report.nodeid.split("::", 1)[-1], report.outcome, f"{report.duration:.1f}", _why(report))

        def pytest_collectreport(self, report: Any) -> None:
            if report.failed:
                table.row(report.nodeid, "not collected", "", _why(report))

    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    plain = "addopts=--import-mode=importlib --strict-markers"  # without the plugins that only a developer has
    words = ["-m", "gpu", "-k", f"not ({' or '.join(LEFT_OUT)})", "-o", plain, "-W", "default"]
    words += ["-p", "no:cacheprovider", "-q", "--capture=no", "--continue-on-collection-errors", f"--rootdir={ROOT}"]
    return int(pytest.main([*words, *files], [Rows()]) not in (0, 5))  # 5: no test was collected


def _why(report: Any) -> str:
    """Why a test was skipped or failed, in one line."""
    if isinstance(report.longrepr, tuple):  # path, line, reason
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    return next(iter((crash.message if crash else str(report.longrepr or "")).strip().splitlines()), "")


def _resume(place: Place) -> int:
    """Compare killed trainings in deterministic mode with an undisturbed one. The exit code is 1 if bits differ."""
    data, store = drawn(place.folder / "resume", "smallest", 32)
    with tempfile.TemporaryDirectory(dir=place.folder) as runs:
        script = ROOT / "tests" / "experiment" / "forked.py"
        kills = "4" if place.on_gpu else "1"
        command = [sys.executable, str(script), "faults", str(data), str(store.folder), runs, kills, place.device]
        printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    found = json.loads(printed.splitlines()[-1])
    table = PrintedTable("training in deterministic mode", "value", first=50)
    table.row("times that it was killed", str(found["killed"]))
    table.row("ends with the bits of an undisturbed training", f"{sum(found['same'])} of {len(found['same'])}")
    return int(not all(found["same"]))


def _loader(place: Place) -> int:
    """Videos/s of the loader alone, for several numbers of cores, after the first batch of every worker."""
    _, store = drawn(place.folder / "train", place.preset, 64 if place.on_gpu else 16, flow="dis")
    preset, all_cores = PRESETS[place.preset], sorted(os.sched_getaffinity(0))
    sides = {"rgb": ("rgb",), "flow": ("flow",), "rgb and flow": ("rgb", "flow")}
    table = PrintedTable("cores", *(f"{name}, videos/s" for name in sides), first=10)
    for cores in sorted({min(count, len(all_cores)) for count in (4, 8, len(all_cores))}):
        os.sched_setaffinity(0, all_cores[:cores])
        table.row(str(cores), *(f"{_rate(store, preset, side, cores, place.device):.1f}" for side in sides.values()))
    return 0


def _rate(store: Store, preset: training.Preset, modalities: tuple[str, ...], workers: int, device: str) -> float:
    waves = 3  # the first wave is not timed
    dataset = dataset_of(store, preset, modalities, waves * workers * LOADED)
    keys = [[(0, row) for row in range(first, first + LOADED)] for first in range(0, len(dataset), LOADED)]
    feed, clock = batches(dataset, keys, device, workers), Clock(device, wall=True)
    for _ in range(workers):
        next(feed)
    timed = len(keys) - workers
    seconds = clock.seconds(lambda: sum(1 for _ in islice(feed, timed)))  # does not include the end of the processes
    for _ in feed:
        pass
    return timed * LOADED / seconds


def _jpeg(place: Place) -> int:
    """Compare nvJPEG, as torchvision calls it, with OpenCV on one core, on JPEGs of the store. Measure whether it takes
    time from the work of the GPU: both run at once, and the last columns are their speeds relative to running alone."""
    use_one_core()
    _, store = drawn(place.folder / "train", place.preset, 64 if place.on_gpu else 16, flow="dis")
    clock = Clock(place.device, wall=True)
    rates = ("on the device, /s", "OpenCV on one core, /s", "levels apart")
    table = PrintedTable("JPEGs", *rates, "beside a product", "the product", first=24)
    a = torch.randn(2, *((8192, 8192) if place.on_gpu else (256, 256)), dtype=torch.bfloat16, device=place.device)
    for modality, mode, flag in (
        ("rgb", ImageReadMode.RGB, cv2.IMREAD_COLOR_RGB),
        ("flow", ImageReadMode.GRAY, cv2.IMREAD_GRAYSCALE),
    ):
        files = list(_jpegs(store, modality, 1024 if place.on_gpu else 16))
        tensors = [torch.from_numpy(file.copy()) for file in files]
        there = lambda tensors=tensors, mode=mode: _decoded(tensors, mode, place.device)  # noqa: E731
        one_core = lambda files=files, flag=flag: [cv2.imdecode(file, flag) for file in files]  # noqa: E731
        try:
            seconds = clock.best({"": there}, 3, warm_up=True)[""]
        except RuntimeError as error:
            table.row(modality, f"not run: {str(error).splitlines()[0]}")
            continue
        decoded = torch.stack(there()).cpu().squeeze(1).numpy()
        other = np.stack(cast(list[np.ndarray], one_core()))
        apart = np.abs(decoded.astype(int) - (np.moveaxis(other, -1, 1) if other.ndim == 4 else other)).mean()
        height, width = decoded.shape[-2:]
        rates = (f"{len(files) / seconds:.0f}", f"{len(files) / clock.seconds(one_core):.0f}")
        both = _together(there, lambda: a[0] @ a[1], torch.device(place.device))
        table.row(f"{modality} {width}x{height}", *rates, f"{apart:.2f}", *(f"{each:.2f}" for each in both))
    return 0


def _together(decode: Callable[[], object], compute: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """The speeds of two functions that run at once, in threads and streams of their own, relative to each alone."""
    duration = 1.5 if device.type == "cuda" else 0.1

    def rounds(function: Callable[[], object]) -> float:
        began, done = time.perf_counter(), 0
        with _own_stream(device):
            while time.perf_counter() < began + duration:
                function()
                settled(device)
                done += 1
        return done / (time.perf_counter() - began)

    alone = [rounds(function) for function in (decode, compute)]
    with ThreadPoolExecutor(2) as pool:
        both = [*pool.map(rounds, (decode, compute))]
    return both[0] / alone[0], both[1] / alone[1]


def _own_stream(device: torch.device) -> AbstractContextManager[object]:
    return torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext()


def _decoded(files: list[torch.Tensor], mode: ImageReadMode, device: str) -> list[torch.Tensor]:
    """Decode like `torchvision.io.decode_jpeg`, which prints a warning that it will move to another package."""
    if device == "cpu":
        return [torch.ops.image.decode_jpeg(file, mode.value) for file in files]
    return torch.ops.image.decode_jpegs_cuda(files, mode.value, torch.device(device))


def _jpegs(store: Store, modality: str, count: int) -> Iterator[UInt8[np.ndarray, " _"]]:
    for name in store.index().video:
        with store.open(name) as entry:
            for file in entry.jpegs(modality, np.arange(entry.frames - 1)):
                if count == 0:
                    return
                count -= 1
                yield file


def _study(place: Place) -> int:
    """Train and test IF-TTN, and the recipes that it starts from, at the preset `tiny` on 320 drawn videos."""
    preset, videos = ("tiny", 320) if place.on_gpu else ("smallest", 32)
    data, store = drawn(place.folder / "study", preset, videos)
    machine = Machine(workers=min(8, _cores() - 1) if place.on_gpu else 0, compile=False)
    work = Work(read_split(data, 1), store, place.folder / "runs", preset, 0, place.device, False, machine=machine)
    clock, table = Clock(place.device, wall=True), PrintedTable("recipe", "seconds of training", "top-1", first=28)
    for recipe in with_its_sources("if-ttn"):
        seconds = clock.seconds(lambda recipe=recipe: training.train(work, recipe))
        scores = testing.test(work, recipe).scores()
        table.row(recipe, f"{seconds:.1f}", f"{top1(late_fusion(scores.heads), scores.labels):.3f}")
        for head, each in scores.heads.items() if len(scores.heads) > 1 else ():
            table.row(f"{recipe}: {head}", "", f"{top1(each, scores.labels):.3f}")
    return 0


def _peers(place: Place) -> int:
    """Pairs/s of OpenCV's flows at 340x256, if opencv-contrib or an OpenCV with CUDA is installed."""
    use_one_core()
    pairs = [motion.pair(256, 340) if place.on_gpu else motion.pair(32, 48) for motion in MOTIONS]
    table = PrintedTable("peer", "pairs/s", "why not", first=40, width=40)
    found, cuda = cv2.cuda.getCudaEnabledDeviceCount() > 0, cast(Any, cv2).cuda
    makers: Mapping[str, tuple[bool, Callable[[], Callable[[np.ndarray, np.ndarray], object]]]] = {
        "DualTVL1, one core": (hasattr(cv2, "optflow"), _dual_tvl1),
        "DualTVL1, cv2.cuda": (found, lambda: _on_gpu(cuda.OpticalFlowDual_TVL1.create())),
        "NVIDIA's optical flow engine, cv2.cuda": (
            found,
            lambda: _on_gpu(cuda.NvidiaOpticalFlow_2_0.create(pairs[0].shape[:0:-1], perfPreset=5)),
        ),
    }
    clock = Clock(place.device, wall=True)
    for name, (is_there, make) in makers.items():
        if not is_there:
            table.row(name, "absent", "this OpenCV was built without it")
            continue
        try:
            solve = make()
            seconds = clock.best({"": lambda solve=solve: [solve(*pair) for pair in pairs]}, 2, warm_up=True)[""]
            table.row(name, f"{len(pairs) / seconds:.1f}")
        except (cv2.error, AttributeError) as error:
            table.row(name, "not run", str(error).splitlines()[0])
    return 0


def _dual_tvl1() -> Callable[[np.ndarray, np.ndarray], object]:
    solver = cast(Any, cv2).optflow.DualTVL1OpticalFlow_create()
    return lambda first, second: solver.calc(first, second, None)


def _on_gpu(solver: Any) -> Callable[[np.ndarray, np.ndarray], object]:
    def solve(first: np.ndarray, second: np.ndarray) -> object:
        there = [cv2.cuda.GpuMat(image) for image in (first, second)]
        return solver.calc(*there, None)

    return solve


def _cores() -> int:
    return len(os.sched_getaffinity(0))


OWN_PARTS: Mapping[str, Callable[[Place], int]] = {
    "tests": _tests,
    "resume": _resume,
    "loader": _loader,
    "jpeg": _jpeg,
    "study": _study,
    "peers": _peers,
}

if __name__ == "__main__":
    name, device, folder = sys.argv[1:]
    place = Place(device, Path(folder))
    PrintedTable.kept = place.rows
    sys.exit(OWN_PARTS[name](place))
