"""Compares the systems of Table 5: snippets/s, videos/s, and end to end from a file to class scores.

All rows are measured in turns in one run, with random weights, so that other work on the machine slows all of them in
the same way. The table also has the paper's column. Ctrl-C ends the run and prints the results so far.
"""

import argparse
import contextlib
import platform
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import torch
from tqdm import tqdm

from ifttn.bench.clock import Clock, PrintedTable, Spread, Timing, device_name, one_core, use_one_core
from ifttn.bench.measured_speeds import MeasuredSpeeds
from ifttn.bench.options import SPEED_FRAMES, SPEED_RATE
from ifttn.bench.systems import (
    DECODE,
    DEFINITIONS,
    PRODUCT,
    ROWS,
    VECTORS,
    Conditions,
    frames_and_rate,
    segments_taken,
    workloads,
)
from ifttn.experiment.processes import Machine
from ifttn.files import write_whole


def run(o: argparse.Namespace) -> int:
    """Print the table and the claims. The exit code is 0, also after Ctrl-C."""
    use_one_core()
    torch.set_flush_denormal(True)  # random weights can give denormal numbers, which are a hundred times slower
    with tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        video = o.video or _example(Path(folder))
        machine = Machine(precision=o.precision, compile=o.compile)
        batch = o.batch or (8 if o.device.startswith("cuda") else 1)
        conditions = Conditions(video, o.size, tuple(o.rows), o.segments, batch, o.device, machine)
        speeds = MeasuredSpeeds(conditions, *(frames_and_rate(video) if video else (SPEED_FRAMES, SPEED_RATE)))
        print("\n".join(header(speeds, made=o.video is None)), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            speeds.timings.extend(_with_bar(conditions, speeds.num_frames, o.repetitions, o.minutes))
    print_table(speeds)
    print("\n".join(["", *speeds.claims()]))
    if o.csv:
        write_whole(o.csv, speeds.frame().to_csv(index=False).encode())
        print(f"figures: {o.csv}")
    return 0


def _example(folder: Path) -> Path | None:
    if not find_spec("av"):
        return None
    from ifttn.bench.mv import examples

    return examples(folder, SPEED_FRAMES)[0]


def header(speeds: MeasuredSpeeds, made: bool) -> Iterator[str]:
    """The conditions, and the text of each definition."""
    on = speeds.conditions
    device = f"{device_name(on.device)}, {one_core()}" if on.on_gpu else one_core()
    yield (
        f"{device}; {on.dtype}, {'compiled' if on.machine.compile else 'not compiled'}, batch normalisation folded, "
        f"channels last; torch {torch.__version__}, Python {platform.python_version()}"
    )
    what = on.video.name if on.video and not made else "made: a pan with noise"
    if on.video is None:
        what = "none: PyAV is not installed, so nothing is measured from a file"
    yield (
        f"{on.size} size, K = {on.segments}, batch {on.batch} video(s) in the first definition and 1 in the others, "
        f"one crop; a video of {speeds.num_frames} frames at {speeds.fps:g} per second ({what}); "
        f"{Clock(on.device).unit}; median [quartiles]"
    )
    for name, text in DEFINITIONS.items():
        yield f"  {name:11} {text}"


def _with_bar(conditions: Conditions, num_frames: int, repetitions: int, minutes: float) -> Iterator[Timing]:
    bar = tqdm(workloads(conditions, num_frames), total=3 + 3 * len(conditions.rows), desc="building", leave=False)
    built, spent = list(bar), 0.0
    bar_format = "{l_bar}{bar}| {elapsed} gone, about {postfix}"
    with tqdm(total=1.0, bar_format=bar_format, desc="measuring", leave=False) as bar:
        for timing in Clock(conditions.device).rounds(built, repetitions, minutes):
            spent += timing.seconds
            bar.update(spent / max(spent + timing.left, 1e-9) - bar.n)
            name = f"{timing.workload.row} {timing.workload.definition}".strip()
            bar.set_postfix_str(f"{timing.left:.0f} s to go: {name}")
            yield timing


def print_table(speeds: MeasuredSpeeds) -> None:
    """Print a row for each measured system, and a line for each bound of the speed."""
    print()
    spreads = (f"{name:>26}" for name in DEFINITIONS)
    table = PrintedTable("row", "GMAC", "V", *spreads, "frames/s", "x real", "fps", "paper fps", first=32, width=4)
    for name in speeds.conditions.rows:
        if any(timing.workload.row == name for timing in speeds.timings):
            table.row(ROWS[name].row, *_cells(speeds, name))
    print("GMAC: billions of multiply-adds per video. V: its segments, K or as many long ones as fit into the video.")
    print("frames/s: frames of the video end to end. x real: frames/s divided by the frame rate of the video.")
    print("fps: frames per second that the network sees (one per snippet, or all of a peer's run), in batches, with")
    print("their flow and without decoding. This is our reading of Table 5, which does not define a frame.")
    print("paper fps: the value in Table 5, for one core and a GTX 1080 Ti.")
    for name, unit in ((DECODE, "videos/s"), (VECTORS, "videos/s"), (PRODUCT, "G multiply-adds/s")):
        rate = speeds.rate(name)
        if rate:
            print(f"{name:34}{rate:.1f} {unit}, n = {rate.repetitions}")


def _cells(speeds: MeasuredSpeeds, name: str) -> Iterator[str]:
    yield f"{speeds.gmacs(name):.2f}"
    variant = ROWS[name].at(speeds.conditions.size)
    yield str(segments_taken(variant, speeds.num_frames, speeds.conditions.segments))
    rate: Spread | None = None
    for definition in DEFINITIONS:
        rate = speeds.rate(name, definition)
        yield f"{rate:.2f} n{rate.repetitions}" if rate else ""
    frames = rate.median * speeds.num_frames if rate else None
    yield from (f"{frames:.0f}", f"{frames / speeds.fps:.1f}") if frames else ("", "")
    own = speeds.paper_fps(name)
    yield f"{own:.0f}" if own else ""
    paper = paper_speeds().get(ROWS[name].row)
    yield "" if paper is None else f"{paper:g}"


def paper_speeds() -> dict[str, float]:
    """Row of Table 5 -> the paper's speed."""
    tables = tomllib.loads(files("ifttn.experiment").joinpath("tables.toml").read_text())["tables"]
    return {row["method"]: float(row["paper"][0]) for row in next(t for t in tables if t["number"] == 5)["rows"]}
