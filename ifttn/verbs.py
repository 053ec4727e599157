"""What each verb of the `ifttn` command does; `ifttn.cli` has their options.

It stands above `lab`, because figures and the report are drawn; only those verbs import it.
"""

import argparse
import datetime
import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import fields, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from ifttn.data import catalogue, diagnostic, doctor
from ifttn.data.catalogue import read_split
from ifttn.data.preparation import prepare, summary
from ifttn.data.store import Store
from ifttn.experiment import claims, study, tables, training
from ifttn.experiment.machine import Machine, deterministic, joined
from ifttn.experiment.pyramids import drop_pyramids
from ifttn.experiment.recipes import PRESETS, find, in_order
from ifttn.experiment.scores import late_fusion, per_class, top1, tune
from ifttn.experiment.significance import wilson
from ifttn.files import held, write_whole
from ifttn.memory import LACKS, advice, explained
from ifttn.options import Parser
from ifttn.recognizer import Prediction, Recognizer
from ifttn.vocabulary import IfttnError, Split, duration

if TYPE_CHECKING:
    from lab.live import Live


def run(o: argparse.Namespace) -> int:
    """Do what `o.verb` names. Returns the exit code: 0, 1 for a mistake that a person can mend, 130 when stopped."""
    try:
        choose_device(o)
        with explained(vars(o)):
            return VERBS[o.verb](o) or 0
    except IfttnError as error:
        print(f"ifttn: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the line names it
        print(f"ifttn: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nifttn: stopped; the same command goes on where it was", file=sys.stderr)
        return 130


def choose_device(o: argparse.Namespace) -> None:
    """Set `o.device` to a GPU where there is one and no device is named.

    Raises:
        IfttnError: a GPU is named that is not here, and the work is to be done here.
    """
    if "device" not in o or o.device == "cpu" or getattr(o, "scheduler", None):
        return
    here = torch.cuda.device_count()
    if not o.device:
        if o.verb != "prepare":  # which goes on where its store was begun
            o.device = "cuda" if here else "cpu"
    elif int(o.device.partition(":")[2] or 0) >= here and not getattr(o, "dry_run", False):
        names = ["cpu", *(f"cuda:{number}" for number in range(here))]
        raise IfttnError(f"--device {o.device}: torch finds no such GPU here; choose from {', '.join(names)}")


def prepare_verb(o: argparse.Namespace) -> int:
    """`ifttn prepare`: exit code 1 when a video failed. What the lists or the folder lack is named, too."""
    if o.embedded:
        diagnostic.write(o.data, o.embedded, videos=o.videos, difficulty=o.difficulty, seed=0, jobs=o.jobs or -1)
    settings = PRESETS[o.preset].store
    settings = replace(settings, flow=o.flow or settings.flow)
    contents = catalogue.contents(o.data)
    tell("in the folder, and in no list", contents.extra)
    tell_left_out(contents)
    store = store_of(o)
    report = prepare(o.data, store, settings, jobs=o.scheduler or o.jobs, limit=o.limit, device=o.device)
    print("\n".join(summary(report)))
    failed = report[report.status == "failed"]
    tell("failed", [f"{video}: {reason}" for video, reason in zip(failed.video, failed.reason, strict=True)])
    print(f"report: {store / 'report.csv'}")
    return 1 if len(failed) else 0


def tell(what: str, names: Sequence[str], most: int = 20) -> None:
    """A line on stderr for each name, and one for those beyond `most`."""
    for name in names[:most]:
        print(f"{what}: {name}", file=sys.stderr)
    if len(names) > most:
        print(f"{what}: {len(names) - most} more", file=sys.stderr)


def tell_left_out(of: catalogue.Contents | Split) -> None:
    """What a data set lacks or holds in vain."""
    tell("listed, and not in the folder", of.missing)
    tell("left out", of.notes)


def bench_verb(o: argparse.Namespace) -> int:
    """`ifttn bench`: each part is a module of `ifttn.bench`, imported only when asked for."""
    part = import_module(f"ifttn.bench.{o.part}")
    p = Parser(
        prog=f"ifttn bench {o.part}",
        description=str(part.__doc__).splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    p.set_defaults(verb="bench")
    part.add_options(p)
    options = p.parse_args(o.options)
    choose_device(options)
    with explained(vars(options)):
        return part.run(options)


def store_of(o: argparse.Namespace) -> Path:
    """The store that is named, or where a study has it."""
    return o.store or study.Places(Path("results")).store(o.data.resolve().name, o.preset)


def work_of(o: argparse.Namespace) -> training.Work:
    """The split, the store and the runs that the options name."""
    split = read_split(o.data, o.split)
    store = Store(store_of(o))
    split = training.without_failed(split, store)
    tell_left_out(split)
    return training.Work(split, store, o.runs, o.preset, o.seed, o.device, machine=machine_of(o))


def machine_of(o: argparse.Namespace) -> Machine:
    """How this machine trains and tests, as far as the verb has options for it."""
    return Machine(**{field.name: getattr(o, field.name) for field in fields(Machine) if field.name in o})


def train_verb(o: argparse.Namespace) -> None:
    """`ifttn train`, in one process or in those of torchrun."""
    if o.dry_run:
        dry_run(o)
        return
    torch.backends.cudnn.benchmark = True
    if o.deterministic:
        deterministic()
    with joined(o.device) as (processes, device):
        work = replace(work_of(o), device=device, hold_out=o.hold_out, processes=processes)
        for recipe in in_order(o.recipe):
            run = training.train(work, recipe)
            if processes.leads:
                print(f"{recipe}: trained, in {run.folder}")
        if processes.leads:
            drop_pyramids(work.folder)


def dry_run(o: argparse.Namespace) -> None:
    """`ifttn train --dry-run`: for the videos of the data set, or for UCF101's where there is none."""
    from ifttn.experiment import plan

    videos, actions = 9537, 101
    if o.data.exists():
        split = read_split(o.data, o.split)
        videos, actions = len(split.train), len(split.actions)
    else:
        print(f"no data set in {o.data}: as for UCF101, split 1")
    world = int(os.environ.get("WORLD_SIZE", 1))
    print(plan.text(o.recipe, o.preset, videos=videos, actions=actions, machine=machine_of(o), world=world))


def test_verb(o: argparse.Namespace) -> None:
    """`ifttn test`."""
    work = work_of(o)
    run = training.test(work, o.recipe)
    scores = run.scores()
    fused = late_fusion(scores.heads)
    for name, each in (*scores.heads.items(), *([("together", fused)] if len(scores.heads) > 1 else [])):
        share, total = top1(each, scores.labels), len(scores.labels)
        low, high = wilson(round(share * total), total)
        read = ", ".join(
            f"{reading} {top1(heads[name] if name in heads else late_fusion(heads), scores.labels):.3f}"
            for reading, heads in scores.readings.items()
        )
        print(f"{name:9} top-1 {share:.3f} [{low:.3f}, {high:.3f}] of {total} videos; {read}")
    if o.classes:
        print(per_class(fused, scores.labels, scores.actions).to_string(index=False, float_format="%.3f"))
    if o.tune:
        tuned = tune(training.score_held_out(work, o.recipe), [video.name for video in work.split.test])
        weights = ", ".join(f"{head} {weight:g}" for head, weight in tuned.weights.items())
        reached = top1(late_fusion(scores.heads, tuned.weights), scores.labels)
        print(f"{tuned.label} ({weights}): top-1 {reached:.3f} of the test videos, {tuned.top1:.3f} of those held out")
    print(f"scores: {run.folder / 'scores.npz'}")


def tables_verb(o: argparse.Namespace) -> None:
    """`ifttn tables`."""
    for name in o.on:
        find(name, study.tested(o.runs), "data set with tested runs")
    found = study.measured(o.runs, o.data, o.seeds, o.on)
    unknown = set(o.numbers) - {table.number for table in found}
    if unknown:
        raise IfttnError(f"no Table {min(unknown)} in the paper: choose from 1 to {len(found)}")
    chosen = [
        table
        for table in found
        if table.number in o.numbers or (not o.numbers and any(cell.measured for cell in table.cells))
    ]
    rest = study.not_shown(o.runs, found)
    if not chosen:
        raise IfttnError(rest)
    numbers = {table.number for table in chosen}
    decided = [finding for finding in study.judged(o.runs, o.data, o.on) if finding.table in numbers]
    print("\n\n".join([claims.as_text(decided), *(tables.as_text(table) for table in chosen)]))
    if rest:
        print(f"ifttn: {rest}", file=sys.stderr)
    if o.csv:
        frames = [tables.to_frame(table).assign(table=table.number) for table in chosen]
        write_whole(o.csv, pd.concat(frames).to_csv(index=False).encode())


def figures_verb(o: argparse.Namespace) -> None:
    """`ifttn figures`."""
    from ifttn import gallery
    from lab import showcase

    work = work_of(o)
    work.split.side("test")
    if o.denoise:
        gallery.train_denoiser_on(work)
    for figure in gallery.draw(work, o.out, full=o.full):
        print(figure.title)
    print(f"figures: {o.out}")
    if o.gallery:
        run = next(recipe for recipe in gallery.COMPLETE if work.run(recipe).tested)
        for path in showcase.write(work, run, o.out, o.gallery, o.shots):
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def reproduce_verb(o: argparse.Namespace) -> int:
    """`ifttn reproduce`: exit code 1 when a step failed.

    Where another process, such as another notebook, is at work in the same folder, it waits, and then finds done what
    that one did.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise IfttnError(
            "reproduce runs in one process: `torchrun ... -m ifttn train RECIPE` first, and it is found done"
        )
    places = study.Places(o.out, own_datasets(o.data))
    with held(o.out, wait=True):
        return reproduce(o, places)


def reproduce(o: argparse.Namespace, places: study.Places) -> int:
    """All steps of a study that are still to be done, its report, and its figures. Returns the exit code."""
    from ifttn import gallery
    from lab import report
    from lab.live import Live

    alone = o.quick or o.device.startswith("cuda")  # the quick study's steps wait for one another
    jobs = o.jobs or (1 if alone else os.cpu_count() or 1)
    studied = places.datasets[: 1 if o.quick else None]
    first = studied[0]
    setup = study.Setup(o.preset, o.device, o.seed, jobs, machine_of(o))
    steps = study.tasks(places, setup, quick=o.quick, videos=o.videos)
    # With three splits, one network bears witness to what the others draw.
    splits = (1,) if o.quick else places.splits(first)
    draw = study.Task(
        f"{first} split 1: figures",
        gallery.draw_split,
        (places, first, 1, setup),
        needs=tuple(f"{first} split {number}: if-ttn" for number in splits),
        weight=0.3,
    )
    steps.insert([step.name for step in steps].index(draw.needs[-1]) + 1, draw)
    if o.brief:
        steps = [replace(step, function=quietly, arguments=(step.function, *step.arguments)) for step in steps]
    state = report.StudyState(
        preset=o.preset,
        device=f"{o.device}, {jobs} steps at once" if jobs > 1 else o.device,
        datasets={name: described(places, name, o.videos) for name in studied},
        seeds=(o.seed,),
        versions={name: version(name) for name in ("torch", "torchvision", "ifttn")},
        date=datetime.date.today().isoformat(),
        steps=(),
    )
    page, live, began, told = o.out / "report.html", Live(o.brief), time.monotonic(), set[str]()
    progress, found = study.Progress(steps), None
    for progress in study.run(steps, jobs=jobs, timings=o.out / "timings.json"):
        found = dict(progress.seconds) if found is None else found
        if not (o.brief and page.exists() and progress.seconds == found and not progress.failed):
            report.write(
                page,
                replace(state, steps=report.steps(progress)),
                study.measured(places.runs, o.out / "data", on=studied),
                gallery.load(o.out / "figures"),
                study.judged(places.runs, o.out / "data", studied),
            )
        live.update(progress.share, progress.running, progress.seconds_left(jobs))
        told |= say_news(live, progress, told, "" if o.brief else f"; report: {page}")
    if not progress.failed:
        study.drop_pyramids(places)
    if not o.brief:
        live.end()
        return conclude(progress, o, studied)
    live.end(in_short(progress, found or {}, time.monotonic() - began), {"report": page, "runs": places.runs})
    return failures(progress, o)


def described(places: study.Places, name: str, videos: int | None) -> str:
    """What a data set of the study is, for its report."""
    if name in places.own:
        return f"{len(catalogue.all_videos(places.own[name]))} videos"
    flavour, usual = study.EMBEDDED[name]
    return f"{videos or usual} generated videos, laid out as {flavour.upper()}"


def say_news(live: "Live", progress: study.Progress, told: set[str], where: str) -> set[str]:
    """Say what was not told before: whose process was killed, and, with `where`, how many steps are done."""
    news = {f"{step}: its process was killed; it is done once more, alone" for step in progress.killed}
    if where and progress.done:
        news.add(f"{len(progress.done)} of {len(progress.tasks)} steps done{where}")
    for line in sorted(news - told):
        live.say(line)
    return news


def quietly(function: Callable[..., object], *arguments: object) -> None:
    """A step without bars of its own: in a notebook all that they ever said would stay. What fails is raised."""
    with redirect_stderr(io.StringIO()):
        function(*arguments)


def own_datasets(folders: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of each data set, all of them looked into before anything begins."""
    own = {folder.resolve().name: folder.resolve() for folder in folders}
    if len(own) < len(folders):
        raise IfttnError(f"two data sets of one name: {', '.join(str(folder) for folder in folders)}")
    splits = {}
    for name, folder in own.items():
        numbers = catalogue.split_numbers(folder)
        splits[name] = [read_split(folder, number) for number in (1, *numbers[1:])]  # Tables 1 to 4 are of split 1
        for split in splits[name]:
            for side in ("train", "test"):
                split.side(side)
    for name, those in splits.items():
        tell_left_out(those[0])
        if len(those) < 3:
            said = f"{name} has {len(those)} of three splits (few videos a class, or no lists of the others)"
            print(f"ifttn: {said}, and is studied on that", file=sys.stderr)
    return own


def conclude(progress: study.Progress, o: argparse.Namespace, studied: Sequence[str]) -> int:
    """Print the tables, where the time went, and what failed."""
    runs, data = o.out / "runs", o.out / "data"
    found = study.measured(runs, data, on=studied)
    measured = [tables.as_text(table) for table in found if any(cell.measured for cell in table.cells)]
    print("\n\n".join([claims.as_text(study.judged(runs, data, studied)), *measured]))
    print("\nWhere the time went (seconds of each step; several ran at once):")
    for name, seconds in sorted(progress.seconds.items(), key=lambda item: -item[1]):
        print(f"  {seconds:7.1f}  {name}")
    print(f"  {sum(progress.seconds.values()):7.1f}  in all")
    code = failures(progress, o)
    print(f"report: {o.out / 'report.html'}")
    return code


def in_short(progress: study.Progress, found: Mapping[str, float], seconds: float) -> str:
    """What was done, in a sentence; `found` is what was done before, and how long it took."""
    of, now = len(progress.tasks), sum(found.get(name) != took for name, took in progress.seconds.items())
    if now or progress.failed:
        return f"{len(progress.done)} of {of} steps of the study are done, {now} of them now, in {duration(seconds)}."
    took = duration(sum(progress.seconds.values()))
    return f"All {of} steps of the study were done before, in {took}; {duration(seconds)} to find them."


def failures(progress: study.Progress, o: argparse.Namespace) -> int:
    """Name what failed. Returns the exit code."""
    for name, reason in progress.failed.items():
        helps = advice(vars(o)) if LACKS in reason else ""
        print(f"ifttn: {name} failed: {reason}{helps}", file=sys.stderr)
    if progress.failed:
        print("ifttn: all else is there; the same command tries these steps again", file=sys.stderr)
    return 1 if progress.failed else 0


def predict_verb(o: argparse.Namespace) -> int:
    """`ifttn predict`: exit code 1 when a video could not be read, or not to its end."""
    recognize, failed, found = Recognizer.load(o.run, o.device, o.crops), 0, {}
    for video in o.video:
        prediction = None
        try:
            for prediction in predictions(recognize, video, o.every):
                found[str(video)] = prediction
                if o.every:
                    print(moment(prediction, prediction.seconds[-1]), flush=True)
        except IfttnError as error:  # of a stream, what came before is predicted all the same
            print(f"ifttn: {error}", file=sys.stderr)
            failed += 1
        if prediction:
            print("\n".join(likeliest(prediction, o.top) + time_line(prediction) * (not o.every)))
    if o.json:
        write_whole(o.json, json.dumps({name: each.as_json() for name, each in found.items()}, indent=1).encode())
        print(f"scores: {o.json}")
    return 1 if failed else 0


def predictions(recognize: Recognizer, video: Path, every: float | None) -> Iterator[Prediction]:
    """Of each segment as it ends, or of the whole video, behind a line with its name; at last, what of it was lost."""
    if every:
        print(video)
        notes = yield from recognize.stream(video, every)
    else:
        prediction = recognize(video)
        print(video)
        yield prediction
        notes = prediction.notes
    for note in notes:
        print(f"ifttn: {video}: {note}", file=sys.stderr)


def likeliest(prediction: Prediction, count: int) -> list[str]:
    """Of each of the likeliest actions, how likely it is."""
    return [f"  {probability:6.1%}  {action}" for action, probability in prediction.top(count)]


def time_line(prediction: Prediction) -> list[str]:
    """Of each segment by itself, when it is shown, its likeliest action and how likely that is, as a bar."""
    return [moment(part, part.seconds[0]) for part in prediction.segments]


def moment(prediction: Prediction, seconds: float, width: int = 20) -> str:
    """A line of a time line."""
    ((action, share),) = prediction.top(1)
    bar = "█" * round(share * width)
    return f"  {int(seconds) // 60:3}:{seconds % 60:04.1f}  {bar:·<{width}} {share:4.0%}  {action}"


def export_verb(o: argparse.Namespace) -> None:
    """`ifttn export`."""
    from ifttn.experiment.runs import Run
    from ifttn.exporting import export

    apart = export(Run(o.run), o.out)
    print(f"{o.out}: its scores are the network's to within {apart:.1e} of the largest")


VERBS: Mapping[str, Callable[[argparse.Namespace], int | None]] = {
    "prepare": prepare_verb,
    "doctor": doctor.run,
    "train": train_verb,
    "test": test_verb,
    "tables": tables_verb,
    "figures": figures_verb,
    "reproduce": reproduce_verb,
    "bench": bench_verb,
    "predict": predict_verb,
    "export": export_verb,
}
