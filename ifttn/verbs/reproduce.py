"""`ifttn reproduce`: the whole study, its figures and its report."""

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

from ifttn import gallery
from ifttn.data import catalogue
from ifttn.experiment import results, study
from ifttn.experiment.claims import claims_text
from ifttn.experiment.steps import Progress, Step, run_steps
from ifttn.experiment.table_frames import table_text
from ifttn.files import held
from ifttn.memory import LACKS, advice
from ifttn.verbs.inputs import machine_of, print_left_out
from ifttn.vocabulary import IfttnError, duration
from lab import report
from lab.progress import StudyBar


def run(o: argparse.Namespace) -> int:
    """Do all steps that are still to be done. Exit code 1 when a step failed.

    Where another process, such as another notebook, works in the same folder, this one waits for it, and then finds its
    steps done.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise IfttnError(
            "reproduce runs in one process: `torchrun ... -m ifttn train RECIPE` first, and it skips that run"
        )
    places = study.Places(o.out, own_datasets(o.data))
    with held(o.out, wait=True):
        return reproduce(o, places)


def own_datasets(folders: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of each data set; all splits are read, so that a mistake shows before anything begins."""
    own = {folder.resolve().name: folder.resolve() for folder in folders}
    if len(own) < len(folders):
        raise IfttnError(f"two data sets of one name: {', '.join(str(folder) for folder in folders)}")
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
            reason = "few videos a class, or no lists of the others"
            print(
                f"ifttn: {name} has {len(found)} of three splits ({reason}): the study uses these",
                file=sys.stderr,
            )
    return own


def reproduce(o: argparse.Namespace, places: study.Places) -> int:
    """Run the steps, and write the report after each. Returns the exit code."""
    one_at_a_time = o.quick or o.device.startswith("cuda")  # the quick study's steps wait for one another
    jobs = o.jobs or (1 if one_at_a_time else os.cpu_count() or 1)
    studied = places.datasets[: 1 if o.quick else None]
    seeds = o.seeds or (1 if o.quick or o.data else study.SEEDS_A_ROW)
    settings = study.StudySettings(o.preset, o.device, o.seed, seeds, jobs, machine_of(o))
    steps = steps_with_figures(o, places, settings)
    about, page = about_study(o, places, studied, settings), o.out / "report.html"
    bar, started, printed = StudyBar(o.brief), time.monotonic(), set[str]()
    progress, before = Progress(steps), None
    for progress in run_steps(steps, jobs=jobs, timings=o.out / "timings.json"):
        before = dict(progress.seconds) if before is None else before
        if not (o.brief and page.exists() and progress.seconds == before and not progress.failed):
            report.write(
                page,
                about,
                progress,
                results.filled_tables(places.runs, o.out / "data", on=studied),
                gallery.load_figures(o.out / "figures"),
                results.findings(places.runs, o.out / "data", on=studied),
                results.reversal_table(places.runs, o.out / "data", studied),
            )
        bar.update(progress.share, progress.running, progress.seconds_left(jobs))
        printed |= print_news(bar, progress, printed, None if o.brief else page)
    if o.brief:
        sentence = in_short(progress, before or {}, time.monotonic() - started)
        bar.end(sentence, {"report": page, "runs": places.runs})
        return print_failures(progress, o)
    bar.end()
    return print_results(progress, o, studied)


def steps_with_figures(o: argparse.Namespace, places: study.Places, settings: study.StudySettings) -> list[Step]:
    """The steps of the study, with the one that draws its figures."""
    steps, first = study.steps_of(places, settings, quick=o.quick, videos=o.videos), places.datasets[0]
    # The networks of the other splits judge what the first one's network draws.
    splits = (1,) if o.quick else places.splits(first)
    draw = Step(
        f"{first} split 1: figures",
        gallery.draw_split,
        (places, first, 1, settings),
        needs=tuple(study.step_name(first, split, "if-ttn") for split in splits),
        weight=0.3,
    )
    steps.insert([step.name for step in steps].index(draw.needs[-1]) + 1, draw)
    if o.brief:
        steps = [replace(step, function=quietly, arguments=(step.function, *step.arguments)) for step in steps]
    return steps


def quietly(function: Callable[..., object], *arguments: object) -> None:
    """Do a step without the bars that it prints to stderr, all of which a notebook would keep. Errors are raised."""
    with redirect_stderr(io.StringIO()):
        function(*arguments)


def about_study(
    o: argparse.Namespace, places: study.Places, studied: Sequence[str], settings: study.StudySettings
) -> report.About:
    """How the study is made, for the report."""

    def described(name: str) -> str:
        if name in places.own:
            return f"{len(catalogue.contents(places.own[name]).videos)} videos"
        flavour, usual = study.EMBEDDED[name]
        return f"{o.videos or usual} generated videos, laid out as {flavour.upper()}"

    return report.About(
        preset=o.preset,
        device=f"{o.device}, {settings.jobs} steps at once" if settings.jobs > 1 else o.device,
        datasets={name: described(name) for name in studied},
        seeds=tuple(range(o.seed, o.seed + settings.seeds)),
        versions={name: version(name) for name in ("torch", "torchvision", "ifttn")},
        date=datetime.date.today().isoformat(),
    )


def print_news(bar: StudyBar, progress: Progress, printed: set[str], page: Path | None) -> set[str]:
    """Print what is new: whose process was killed, and, where there is a page to name, how many steps are done."""
    news = {f"{step}: its process was killed; it runs once more, alone" for step in progress.killed}
    if page and progress.done:
        news.add(f"{len(progress.done)} of {len(progress.steps)} steps done; report: {page}")
    for line in sorted(news - printed):
        bar.print(line)
    return news


def print_results(progress: Progress, o: argparse.Namespace, studied: Sequence[str]) -> int:
    """Print the tables, where the time went, and what failed. Returns the exit code."""
    runs, data = o.out / "runs", o.out / "data"
    found = results.filled_tables(runs, data, on=studied)
    measured = [table_text(table) for table in found if table.measured]
    print("\n\n".join([claims_text(results.findings(runs, data, on=studied)), *measured]))
    print("\nWhere the time went (seconds of each step; several ran at once):")
    for name, seconds in sorted(progress.seconds.items(), key=lambda item: -item[1]):
        print(f"  {seconds:7.1f}  {name}")
    print(f"  {sum(progress.seconds.values()):7.1f}  in all")
    code = print_failures(progress, o)
    print(f"report: {o.out / 'report.html'}")
    return code


def in_short(progress: Progress, before: Mapping[str, float], seconds: float) -> str:
    """One sentence about what was done; `before` has the seconds of the steps that were done earlier."""
    steps, now = len(progress.steps), sum(before.get(name) != took for name, took in progress.seconds.items())
    if now or progress.failed:
        return (
            f"{len(progress.done)} of {steps} steps of the study are done, {now} of them now, in {duration(seconds)}."
        )
    took = duration(sum(progress.seconds.values()))
    return f"All {steps} steps of the study were done before, in {took}; {duration(seconds)} to find them."


def print_failures(progress: Progress, o: argparse.Namespace) -> int:
    """Print to stderr what failed and why. Returns the exit code."""
    for name, reason in progress.failed.items():
        helps = advice(vars(o)) if LACKS in reason else ""
        print(f"ifttn: {name} failed: {reason}{helps}", file=sys.stderr)
    if progress.failed:
        print("ifttn: all else is there; the same command tries these steps again", file=sys.stderr)
    return 1 if progress.failed else 0
