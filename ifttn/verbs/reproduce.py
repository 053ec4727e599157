"""`ifttn reproduce`: run the complete study, with figures and a report."""

import argparse
import datetime
import io
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch

from ifttn import gallery
from ifttn.data import catalogue
from ifttn.experiment import results, study
from ifttn.experiment.claims import claims_text
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.reversal_frames import reversal_table
from ifttn.experiment.steps import Progress, Step, run_steps
from ifttn.experiment.table_texts import table_text
from ifttn.files import held
from ifttn.memory import LACKS, advice
from ifttn.verbs.inputs import machine_of, print_left_out
from ifttn.vocabulary import IfttnError, duration
from lab import report
from lab.progress import StudyBar

BYTES_OF_STEP = 2e9
"""Estimated memory of a training at the preset `tiny` on a GPU: its planned 0.2 GB, and what CUDA takes per process."""


def run(o: argparse.Namespace) -> int:
    """Do all steps that are not done yet. The exit code is 1 if a step failed.

    If another process, such as another notebook, works in the same folder, this process waits for it. The steps of the
    other process are then done.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise IfttnError(
            "reproduce runs in one process: run `torchrun ... -m ifttn train RECIPE` first, and it skips that run"
        )
    results.refuse_published(o.out)
    places = study.Places(o.out, own_datasets(o.data))
    with held(o.out, wait=True):
        return reproduce(o, places)


def own_datasets(folders: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of each data set. All splits are read, so that an error shows before the first step."""
    own = {folder.resolve().name: folder.resolve() for folder in folders}
    if len(own) < len(folders):
        raise IfttnError(f"two data sets have the same name: {', '.join(str(folder) for folder in folders)}")
    splits = {}
    for name, folder in own.items():
        numbers = catalogue.split_numbers(folder)
        splits[name] = [catalogue.read_split(folder, number) for number in (1, *numbers[1:])]  # split 1 has Tables 1-4
        for split in splits[name]:
            for side in ("train", "test"):
                split.side(side)
    for name, found in splits.items():
        print_left_out(found[0])
        if len(found) < 3:
            reason = "few videos per class, or no lists of the others"
            print(f"ifttn: {name} has {len(found)} of three splits ({reason}): the study uses these", file=sys.stderr)
    return own


def reproduce(o: argparse.Namespace, places: study.Places) -> int:
    """Run the steps, and write the report after each step. Returns the exit code."""
    jobs = o.jobs or steps_at_once(o)
    studied = places.datasets[: 1 if o.quick else None]
    seeds = o.seeds or (1 if o.quick or o.data else None)
    settings = study.StudySettings(o.preset, o.device, o.seed, seeds, jobs, machine_of(o))
    steps = steps_with_figures(o, places, settings)
    about, page = about_study(o, places, studied, settings), o.out / "report.html"
    bar, started, printed = StudyBar(o.brief), time.monotonic(), set[str]()
    progress, before = Progress(steps), None
    for progress in run_steps(steps, jobs=jobs, timings=o.out / "timings.json"):
        before = dict(progress.seconds) if before is None else before
        nothing_new = o.brief and page.exists() and progress.seconds == before and not progress.failed
        if progress.changed and not nothing_new:
            found = results.Results(places.runs, o.out / "data", on=studied)
            pictures = gallery.load_figures(o.out / "figures")
            report.write(page, about, progress, found.tables(), pictures, found.findings(), reversal_table(found))
        bar.update(progress.share, progress.running, progress.seconds_left(jobs))
        printed |= print_news(bar, progress, printed, None if o.brief else page)
    if o.brief:
        sentence = in_short(progress, before or {}, time.monotonic() - started)
        bar.end(sentence, {"report": page, "runs": places.runs})
        return print_failures(progress, o)
    bar.end()
    return print_results(progress, o, studied)


def steps_at_once(o: argparse.Namespace) -> int:
    """The default of --jobs: one step per core, but one if a large network fills the GPU, or if steps need one another.

    A step of a network of the preset `tiny` calls 1,400 to 3,800 operators of torch. The host probably needs more time
    for these calls than a GPU needs to compute them, so a GPU trains several such networks at once.
    """
    cores = os.cpu_count() or 1
    if o.quick or not o.device.startswith("cuda"):
        return 1 if o.quick else cores
    if PRESETS[o.preset].backbone != "tiny":
        return 1
    return max(1, min(cores, int(torch.cuda.get_device_properties(o.device).total_memory / BYTES_OF_STEP)))


def steps_with_figures(o: argparse.Namespace, places: study.Places, settings: study.StudySettings) -> list[Step]:
    """The steps of the study, with the step that draws its figures."""
    steps, first = study.steps_of(places, settings, quick=o.quick, videos=o.videos), places.datasets[0]
    # The networks of the other splits judge the drawings of the network of the first split.
    splits = (1,) if o.quick else places.splits(first)
    draw = Step(
        f"{first} split 1: figures",
        gallery.draw_split,
        (places, first, 1, settings),
        needs=tuple(study.step_name(first, split, "if-ttn") for split in splits),
        weight=0.3,
    )
    if o.preset == "tiny":
        arguments, needs = (places, first, 1, settings), (f"{first}: store",)
        trained = Step(f"{first} split 1: denoiser", gallery.train_split_denoiser, arguments, needs, weight=11.3)
        draw = replace(draw, needs=(*draw.needs, trained.name), weight=8.0)
        steps.insert([step.name for step in steps].index(draw.needs[0]) + 1, trained)
    steps.insert(max([step.name for step in steps].index(name) for name in draw.needs) + 1, draw)
    if o.brief:
        steps = [replace(step, function=quietly, arguments=(step.function, *step.arguments)) for step in steps]
    return steps


def quietly(function: Callable[..., object], *arguments: object) -> None:
    """Do a step without its progress bars on stderr, because a notebook keeps every update. Errors are raised."""
    with redirect_stderr(io.StringIO()):
        function(*arguments)


def about_study(
    o: argparse.Namespace, places: study.Places, studied: Sequence[str], settings: study.StudySettings
) -> report.About:
    """The settings of the study, for the report."""

    def described(name: str) -> str:
        if name in places.own:
            return f"{len(catalogue.contents(places.own[name]).videos)} videos"
        flavour, usual = study.EMBEDDED[name]
        return f"{o.videos or usual} generated videos, in the layout of {flavour.upper()}"

    further = {int(name) for path in places.runs.glob("seed*") if (name := path.name.removeprefix("seed")).isdigit()}
    return report.About(
        preset=o.preset,
        device=f"{o.device}, {settings.jobs} steps at once" if settings.jobs > 1 else o.device,
        datasets={name: described(name) for name in studied},
        seeds=tuple(sorted({*settings.every_seed, *further})),  # the tables use all of them
        versions={name: version(name) for name in ("torch", "torchvision", "ifttn")},
        date=datetime.date.today().isoformat(),
    )


def print_news(bar: StudyBar, progress: Progress, printed: set[str], page: Path | None) -> set[str]:
    """Print which steps were killed and, with a `page`, how many are done. Lines in `printed` are not repeated."""
    news = {f"{step}: its process was killed; the step runs again, alone" for step in progress.killed}
    if page and progress.done:
        news.add(f"{len(progress.done)} of {len(progress.steps)} steps done; report: {page}")
    for line in sorted(news - printed):
        bar.print(line)
    return news


def print_results(progress: Progress, o: argparse.Namespace, studied: Sequence[str]) -> int:
    """Print the tables, the time of each step, and the failures. Returns the exit code."""
    found = results.Results(o.out / "runs", o.out / "data", on=studied)
    measured = [table_text(table) for table in found.tables() if table.measured]
    print("\n\n".join([claims_text(found.findings()), *measured]))
    print("\nSeconds of each step (several steps run at once):")
    for name, seconds in sorted(progress.seconds.items(), key=lambda item: -item[1]):
        print(f"  {seconds:7.1f}  {name}")
    print(f"  {sum(progress.seconds.values()):7.1f}  in all")
    code = print_failures(progress, o)
    print(f"report: {o.out / 'report.html'}")
    return code


def in_short(progress: Progress, before: Mapping[str, float], seconds: float) -> str:
    """One sentence about the steps. `before` has the seconds of the steps that were done earlier."""
    steps, now = len(progress.steps), sum(before.get(name) != took for name, took in progress.seconds.items())
    if now or progress.failed:
        return (
            f"{len(progress.done)} of {steps} steps of the study are done, {now} of them now, in {duration(seconds)}."
        )
    took = duration(sum(progress.seconds.values()))
    return f"All {steps} steps of the study were done before, in {took}; this check took {duration(seconds)}."


def print_failures(progress: Progress, o: argparse.Namespace) -> int:
    """Print to stderr which steps failed and why. Returns the exit code."""
    for name, reason in progress.failed.items():
        helps = advice(vars(o)) if LACKS in reason else ""
        print(f"ifttn: {name} failed: {reason}{helps}", file=sys.stderr)
    if progress.failed:
        print("ifttn: all other steps are done; the same command tries these steps again", file=sys.stderr)
    return 1 if progress.failed else 0
