"""The systems of Table 5 side by side: snippets/s, videos/s, and end to end from a file to class scores.

All rows are measured in turns in one run, with random weights; the paper's column stands beside. Ctrl-C ends it with
what has been measured so far.
"""

import argparse
import contextlib
import os
import platform
import tempfile
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import cv2
import pandas as pd
import torch
from tqdm import tqdm

from ifttn.bench.mv import _processor, examples
from ifttn.bench.options import SPEED_FRAMES
from ifttn.experiment.processes import Machine
from ifttn.experiment.speed import (
    DECODE,
    DEFINITIONS,
    RATE,
    ROWS,
    VECTORS,
    Conditions,
    Rate,
    Result,
    Task,
    Timing,
    fitting,
    tasks,
    timings,
    watched,
)
from ifttn.files import write_whole

_ROW = "{:32}{:>10}{:>3}{:>28}{:>28}{:>28}{:>9}{:>8}{:>10}"


def run(o: argparse.Namespace) -> int:
    """Print the table and the claims. Exit code 0, however much was measured before Ctrl-C."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # random weights can make numbers so small that they cost a hundred times as much
    with tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        video = o.video or examples(Path(folder), SPEED_FRAMES)[0]
        machine = Machine(precision=o.precision, compile=o.compile)
        batch = o.batch or (8 if o.device.startswith("cuda") else 1)
        conditions = Conditions(video, o.size, tuple(o.rows or ROWS), o.segments, batch, o.device, machine)
        result = Result(conditions, *watched(video))
        print("\n".join(header(result, made=o.video is None)), flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            for timing in _with_bar(conditions, o):
                result.timings.append(timing)
    print("\n".join([*table(result), "", *result.claims()]))
    if o.csv:
        write_whole(o.csv, to_frame(result).to_csv(index=False).encode())
        print(f"figures: {o.csv}")
    return 0


def header(result: Result, made: bool) -> Iterator[str]:
    """The conditions, and what each definition says."""
    on = result.conditions
    processor = f"{_processor()}, one core of {os.cpu_count()}"
    device = f"{torch.cuda.get_device_name(on.device)}, {processor}" if on.on_gpu else processor
    dtype = str(on.machine.dtype(on.device)).removeprefix("torch.")
    yield (
        f"{device}; {dtype}, {'compiled' if on.machine.compile else 'not compiled'}, batch normalisation folded, "
        f"channels last; torch {torch.__version__}, Python {platform.python_version()}"
    )
    what = "made: a pan with noise" if made else on.video.name
    yield (
        f"{on.size} size, K = {on.segments}, batch {on.batch} video(s) in the first definition and 1 in the others, "
        f"one crop; a video of {result.num_frames} frames at {result.fps:g} a second ({what}); "
        f"{'time by the clock' if on.on_gpu else 'processor time'}; median [quartiles]"
    )
    for name, text in DEFINITIONS.items():
        yield f"  {name:11} {text}"


def table(result: Result) -> Iterator[str]:
    """A line a row, and one for each figure that shows how far the rows could go."""
    yield ""
    heads = ("row", "GMAC", "V", *DEFINITIONS, "frames/s", "x real", "paper fps")
    yield _ROW.format(*heads)
    for name in result.conditions.rows:
        if any(t.task.row == name for t in result.timings):
            yield _line(result, name)
    yield "GMAC: billions of multiply-adds a video, of V segments: K, or as many of the row's length as it holds."
    yield "frames/s, x real: the video's frames end to end, and over those that are shown a second."
    yield "paper fps: as Table 5 prints it, for one core and a GTX 1080 Ti; it does not say what a frame is."
    for name, unit in ((DECODE, "videos/s"), (VECTORS, "videos/s"), (RATE, "G multiply-adds/s")):
        rate = result.rate(name)
        if rate:
            yield f"{name:34}{rate.median:.1f} [{rate.low:.1f}, {rate.high:.1f}] {unit}, n = {rate.repetitions}"


def _line(result: Result, name: str) -> str:
    snippets, videos, whole = (result.rate(name, definition) for definition in DEFINITIONS)
    frames = whole.median * result.num_frames if whole else None
    setup = ROWS[name].at(result.conditions.size)
    taken = fitting(setup, result.num_frames, result.conditions.segments)

    def cell(rate: Rate | None) -> str:
        return f"{rate.median:.2f} [{rate.low:.2f}, {rate.high:.2f}] n{rate.repetitions}" if rate else ""

    played = [f"{frames:.0f}", f"{frames / result.fps:.1f}"] if frames else ["", ""]
    paper = papers().get(ROWS[name].row)
    return _ROW.format(
        *(ROWS[name].row, f"{result.gmacs(name):.2f}", taken, cell(snippets), cell(videos), cell(whole), *played),
        "" if paper is None else f"{paper:g}",
    )


def papers() -> dict[str, float]:
    """Table 5's speed column, by row."""
    tables = tomllib.loads(files("ifttn.experiment").joinpath("tables.toml").read_text())["tables"]
    return {row["method"]: float(row["paper"][0]) for row in next(t for t in tables if t["number"] == 5)["rows"]}


def to_frame(result: Result) -> pd.DataFrame:
    """Every single figure: row, definition, round, seconds, how many of what it got through, and the conditions."""
    on = result.conditions
    return pd.DataFrame(
        [
            {
                "row": t.task.row,
                "definition": t.task.definition,
                "round": t.round,
                "seconds": t.seconds,
                "count": t.task.count,
                "size": on.size,
                "segments": on.segments,
                "batch": on.batch,
                "device": torch.cuda.get_device_name(on.device) if on.on_gpu else _processor(),
                "precision": str(on.machine.dtype(on.device)).removeprefix("torch."),
                "compiled": on.machine.compile,
                "frames": result.num_frames,
            }
            for t in result.timings
        ]
    )


def _with_bar(conditions: Conditions, o: argparse.Namespace) -> Iterator[Timing]:
    built: list[Task] = []
    steps = tqdm(tasks(conditions), total=3 + 3 * len(conditions.rows), desc="building", leave=False)
    built.extend(steps)
    steps.close()
    bar = tqdm(total=1.0, bar_format="{l_bar}{bar}| {elapsed} gone, about {postfix}", desc="measuring", leave=False)
    spent = 0.0
    try:
        for timing in timings(built, conditions, o.repetitions, o.minutes):
            spent += timing.seconds
            bar.update(spent / max(spent + timing.left, 1e-9) - bar.n)
            bar.set_postfix_str(f"{timing.left:.0f} s to go: {_named(timing.task)}")
            yield timing
    finally:
        bar.close()


def _named(task: Task) -> str:
    return f"{task.row} {task.definition}".strip()
