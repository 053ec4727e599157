"""The `ifttn` command: prepare, doctor, train, test, tables, figures, reproduce, predict, export, bench.

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
from dataclasses import replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch

from ifttn.data import catalogue, diagnostic, doctor
from ifttn.data.catalogue import read_split
from ifttn.data.flow import FLOWS
from ifttn.data.preparation import prepare, summary
from ifttn.data.store import Store
from ifttn.experiment import claims, study, tables, training
from ifttn.experiment.evaluation import late_fusion, per_class, top1, tune, wilson
from ifttn.experiment.machine import Machine, deterministic, joined
from ifttn.experiment.recipes import LATE_FUSION, PRESETS, RECIPES, find, in_order
from ifttn.files import write_whole
from ifttn.recognizer import Prediction, Recognizer
from ifttn.vocabulary import IfttnError

BENCHES = ("flow", "mv", "speed", "store", "train", "insight")
EPILOG = """\
The embedded study, from nothing to a report:   ifttn reproduce
One recipe on UCF101 (many GPUs: `torchrun ... -m ifttn train ...`):
  ifttn prepare UCF101 --preset paper
  ifttn train if-ttn --data UCF101 --preset paper --split 1
  ifttn test if-ttn --data UCF101 --preset paper --split 1
The whole study on UCF101 and HMDB51:   ifttn reproduce --preset paper --data UCF101 HMDB51
  ifttn predict some.mp4 --run results/runs/UCF101/split1/if-ttn
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, 1 for a mistake that a person can mend, 130 when stopped."""
    options = parser().parse_args(arguments)
    try:
        return options.verb(options) or 0
    except IfttnError as error:
        print(f"ifttn: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a folder that may not be written: the line names it
        print(f"ifttn: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nifttn: stopped; the same command goes on where it was", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The verbs and their options."""
    top = argparse.ArgumentParser(
        prog="ifttn",
        description=str(__doc__).splitlines()[0],
        epilog=EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    verbs = top.add_subparsers(title="verbs", required=True, metavar="VERB")

    def verb(name: str, function, text: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        added.set_defaults(verb=function)
        return added

    p = verb("prepare", prepare_verb, "videos -> store: frames, optical flow and motion vectors of every video")
    p.add_argument("data", type=Path, help="UCF101 or HMDB51 with its lists, or any folder of class folders")
    p.add_argument(
        "store",
        type=Path,
        nargs="?",
        help="folder to write, by default results/stores/DATA-PRESET, where the other verbs look for it; preparing it "
        "again goes on where it stopped",
    )
    p.add_argument("--preset", default="tiny", help=f"decides resolution and flow: {', '.join(PRESETS)}")
    p.add_argument("--flow", choices=list(FLOWS), help="optical flow, instead of the preset's")
    p.add_argument("--jobs", type=int, help="videos at once; by default one a core")
    p.add_argument(
        "--scheduler",
        metavar="tcp://HOST:PORT",
        help="the workers of this Dask cluster do it (extra `cluster`); DATA and STORE must be on a file system "
        "that every machine mounts in the same place",
    )
    p.add_argument("--limit", type=int, help="prepare only so many videos, spread over the data set")
    p.add_argument("--device", help="for optical flow; by default a GPU where there is one, and cpu in a cluster")
    p.add_argument("--embedded", choices=list(diagnostic.FLAVOURS), help="first write an embedded data set into DATA")
    p.add_argument("--videos", type=int, default=960, help="size of the embedded data set")
    p.add_argument("--difficulty", type=float, default=1.0, help="of the embedded data set: 0 is without disturbance")

    p = verb("doctor", doctor.run, "a known pan through every flow and codec at hand: sign, size, zero")
    doctor.add_options(p)

    for name, function, text in (
        ("train", train_verb, "train a recipe, and first whatever it starts from; goes on where it stopped"),
        ("test", test_verb, "score the test videos with a trained recipe, and print how many are right"),
    ):
        p = verb(name, function, text)
        p.add_argument("recipe", help=", ".join(RECIPES))
        add_work(p)
        if name == "train":
            add_training(p)
        else:
            p.add_argument("--classes", action="store_true", help="print the accuracy of each action as well")
            p.add_argument(
                "--tune", action="store_true", help="also with weights tuned on what --hold-out kept from training"
            )

    p = verb("tables", tables_verb, "print the paper's claims and tables, measured beside paper")
    p.add_argument("numbers", type=int, nargs="*", help="which tables; by default all that have a measured cell")
    p.add_argument("--data", type=Path, default=Path("results/data"), help="folder of the data sets, for their factors")
    p.add_argument("--csv", type=Path, help="write the rows to this file as well")
    p.add_argument(
        "--seeds", type=Path, nargs="+", default=[], help="folders of the same runs from other seeds, for the spread"
    )
    add_runs(p)

    p = verb("figures", figures_verb, "draw Figures 1, 6 and 7 for trained runs, and the curves of their training")
    p.add_argument("--out", type=Path, default=Path("results/figures"), help="folder for the pictures")
    p.add_argument(
        "--denoise",
        action="store_true",
        help="first train a denoiser of the training snippets, in 25 minutes on two cores; Figures 1 and 7 are drawn "
        "through it, now and from then on",
    )
    p.add_argument(
        "--full", action="store_true", help="all actions, five seeds, all test videos: an hour instead of a minute"
    )
    p.add_argument("--gallery", type=Path, help="folder for small copies, GIFs and screenshots as a README shows them")
    p.add_argument("--shots", type=Path, default=Path("build/screenshots"), help="folder that `make browser` filled")
    add_work(p)

    p = verb("reproduce", reproduce_verb, "the whole study: data, training, tables, figures, report")
    p.add_argument("--out", type=Path, default=Path("results"), help="folder for all of it")
    p.add_argument(
        "--data",
        type=Path,
        nargs="+",
        default=[],
        help="UCF101, HMDB51 or any folder of class folders, in the place of the embedded data sets; the first has all "
        "tables, the others what the paper reports on all splits",
    )
    p.add_argument("--quick", action="store_true", help="Table 3 and the figures, on one split")
    p.add_argument(
        "--brief",
        action="store_true",
        help="end in a few lines, without the tables; where nothing was left to do, the report stays as it is",
    )
    p.add_argument("--preset", default="tiny", help=f"how large and how long: {', '.join(PRESETS)}")
    p.add_argument("--jobs", type=int, help="steps at once; by default one a core, or one with --quick or a GPU")
    p.add_argument("--videos", type=int, help="of each embedded data set, a multiple of 16; by default 960 and 384")
    p.add_argument("--seed", type=int, default=0, help="of data, weights, views, order and dropout")
    add_device(p)
    add_machine(p)

    p = verb("bench", bench_verb, "measure a part on this machine, with its peer beside it")
    p.add_argument("part", choices=BENCHES, help="which; `ifttn bench flow --help` explains the options of one")
    p.add_argument("options", nargs=argparse.REMAINDER, help="of that part")

    p = verb("predict", predict_verb, "print the likeliest actions of a video of any size and codec")
    p.add_argument("video", type=Path, nargs="+", help="video files")
    p.add_argument(
        "--run", type=Path, default=Path("results/runs/embedded-ucf/split1/if-ttn"), help="folder of a trained run"
    )
    p.add_argument("--top", type=int, default=5, help="how many actions to print")
    p.add_argument(
        "--every", type=float, metavar="SECONDS", help="play it as a stream, with a line as each segment ends"
    )
    p.add_argument("--crops", type=int, help="views of a frame: 1, 3 or 10; by default what the run was tested with")
    p.add_argument("--json", type=Path, help="write scores of videos, heads, snippets and pairs to this file as well")
    add_device(p)

    p = verb("export", export_verb, "write a network to a file that needs none of this package: OUT.pt2 or OUT.onnx")
    p.add_argument("run", type=Path, help="folder of a trained run")
    p.add_argument("out", type=Path, help=".pt2 (torch.export) or .onnx (extra `export`); any number of videos a batch")
    return top


def add_work(p: argparse.ArgumentParser) -> None:
    """A split of a prepared data set, its runs, and how they are trained."""
    p.add_argument("--data", type=Path, default=Path("results/data/embedded-ucf"), help="videos and lists")
    p.add_argument("--store", type=Path, help="what `ifttn prepare` wrote; by default results/stores/DATA-PRESET")
    p.add_argument("--split", type=int, default=1, help="1, 2 or 3")
    p.add_argument("--preset", default="tiny", help=f"how large and how long: {', '.join(PRESETS)}")
    p.add_argument("--seed", type=int, default=0, help="of weights, views, order and dropout")
    add_runs(p)
    add_device(p)


def add_training(p: argparse.ArgumentParser) -> None:
    """What is held out, and whether anything is trained at all."""
    p.add_argument("--dry-run", action="store_true", help="print recipe, parameters, work, memory and steps, and stop")
    p.add_argument("--hold-out", type=float, default=0.0, help="share of the training videos, in groups, to score only")
    p.add_argument("--deterministic", action="store_true", help="the same bits every time on a GPU too; slower")
    add_machine(p)


def add_machine(p: argparse.ArgumentParser) -> None:
    """What the machine decides about training."""
    p.add_argument(
        "--imagenet", type=Path, help="local file of ImageNet weights; by default torchvision fetches its own"
    )
    p.add_argument("--micro-batch", type=int, help="videos at once on a device; the batch is made of several")
    p.add_argument("--workers", type=int, help="processes that load batches; by default what the preset says")
    p.add_argument("--precision", default="auto", help="fp32, bf16, fp16, or auto: fp32 on a CPU, 16 bits on a GPU")
    p.add_argument("--compile", action="store_true", help="torch.compile: a minute first, then faster steps")
    p.add_argument("--recompute", action="store_true", help="less memory for a third more work")
    p.add_argument("--tensorboard", action="store_true", help="write RUN/tensorboard as well as RUN/metrics.jsonl")
    p.add_argument("--checkpoint-steps", type=int, default=200, help="steps between checkpoints within an epoch")


def add_runs(p: argparse.ArgumentParser) -> None:
    """The folder of runs."""
    p.add_argument("--runs", type=Path, default=Path("results/runs"), help="folder of the runs")


def add_device(p: argparse.ArgumentParser) -> None:
    """The device, a GPU where there is one."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    p.add_argument("--device", default=default, help="cpu, cuda, cuda:1, ...")


def prepare_verb(o: argparse.Namespace) -> int:
    """`ifttn prepare`: exit code 1 when a video failed. What the lists or the folder lack is named, too."""
    if o.embedded:
        diagnostic.write(o.data, o.embedded, videos=o.videos, difficulty=o.difficulty, seed=0, jobs=o.jobs or -1)
    settings = find(o.preset, PRESETS, "preset").store
    settings = replace(settings, flow=o.flow or settings.flow)
    contents = catalogue.contents(o.data)
    for what, names in (
        ("listed, and not in the folder", contents.missing),
        ("in the folder, and in no list", contents.extra),
    ):
        tell(what, names)
    device = o.device or ("cuda" if torch.cuda.is_available() and not o.scheduler else "cpu")
    store = store_of(o)
    report = prepare(o.data, store, settings, jobs=o.scheduler or o.jobs, limit=o.limit, device=device)
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


def bench_verb(o: argparse.Namespace) -> int:
    """`ifttn bench`: each part is a module of `ifttn.bench`, imported only when asked for."""
    part = import_module(f"ifttn.bench.{o.part}")
    p = argparse.ArgumentParser(
        prog=f"ifttn bench {o.part}",
        description=str(part.__doc__).splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    part.add_options(p)
    return part.run(p.parse_args(o.options))


def store_of(o: argparse.Namespace) -> Path:
    """The store that is named, or where a study has it."""
    return o.store or study.Places(Path("results")).store(o.data.resolve().name, o.preset)


def work_of(o: argparse.Namespace) -> training.Work:
    """The split, the store and the runs that the options name."""
    find(o.preset, PRESETS, "preset")
    store = Store(store_of(o))
    split = training.without_failed(read_split(o.data, o.split), store)
    if split.missing:
        print(
            f"ifttn: {len(split.missing)} listed videos are left out: {', '.join(split.missing[:5])} ...",
            file=sys.stderr,
        )
    return training.Work(split, store, o.runs, o.preset, o.seed, o.device)


def machine_of(o: argparse.Namespace) -> Machine:
    """How this machine trains."""
    return Machine(
        micro_batch=o.micro_batch,
        workers=o.workers,
        precision=o.precision,
        compile=o.compile,
        recompute=o.recompute,
        tensorboard=o.tensorboard,
        checkpoint_steps=o.checkpoint_steps,
        imagenet=o.imagenet,
    )


def train_verb(o: argparse.Namespace) -> None:
    """`ifttn train`, in one process or in those of torchrun."""
    find(o.recipe, RECIPES, "recipe")
    if o.dry_run:
        dry_run(o)
        return
    torch.backends.cudnn.benchmark = True
    if o.deterministic:
        deterministic()
    with joined(o.device) as (processes, device):
        work = replace(work_of(o), device=device, hold_out=o.hold_out, machine=machine_of(o), processes=processes)
        for recipe in in_order(o.recipe):
            run = training.train(work, recipe)
            if processes.leads:
                print(f"{recipe}: trained, in {run.folder}")


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
    find(o.recipe, RECIPES, "recipe")
    work = work_of(o)
    run = training.test(work, o.recipe)
    scores = run.scores()
    preset = {head: LATE_FUSION[head] for head in scores.heads}
    fused = late_fusion([(scores, preset)])
    for name, each in (*scores.heads.items(), *([("together", fused)] if len(preset) > 1 else [])):
        share, total = top1(each, scores.labels), len(scores.labels)
        low, high = wilson(round(share * total), total)
        read = ", ".join(
            f"{reading} {top1(said[name] if name in said else late_fusion([(other, preset)]), scores.labels):.3f}"
            for reading, said in scores.readings.items()
            if (other := scores.read(reading))
        )
        print(f"{name:9} top-1 {share:.3f} [{low:.3f}, {high:.3f}] of {total} videos; {read}")
    if o.classes:
        print(per_class(fused, scores.labels, scores.actions).to_string(index=False, float_format="%.3f"))
    if o.tune:
        tuned = tune([(training.score_held_out(work, o.recipe), preset)], [video.name for video in work.split.test])
        weights = ", ".join(f"{head} {weight:g}" for head, weight in tuned.parts[0].items())
        reached = top1(late_fusion([(scores, tuned.parts[0])]), scores.labels)
        print(f"{tuned.label} ({weights}): top-1 {reached:.3f} of the test videos, {tuned.top1:.3f} of those held out")
    print(f"scores: {run.folder / 'scores.npz'}")


def tables_verb(o: argparse.Namespace) -> None:
    """`ifttn tables`."""
    found = study.measured(o.runs, o.data, o.seeds)
    unknown = set(o.numbers) - {table.number for table in found}
    if unknown:
        raise IfttnError(f"no Table {min(unknown)} in the paper: choose from 1 to {len(found)}")
    chosen = [
        table
        for table in found
        if table.number in o.numbers or (not o.numbers and any(cell.measured for cell in table.cells))
    ]
    if not chosen:
        raise IfttnError(f"no tested run in {o.runs}: `ifttn reproduce` makes them, or name a table to see the paper's")
    numbers = {table.number for table in chosen}
    decided = [finding for finding in study.judged(o.runs, o.data) if finding.table in numbers]
    print("\n\n".join([claims.as_text(decided), *(tables.as_text(table) for table in chosen)]))
    if o.csv:
        frames = [tables.to_frame(table).assign(table=table.number) for table in chosen]
        write_whole(o.csv, pd.concat(frames).to_csv(index=False).encode())


def figures_verb(o: argparse.Namespace) -> None:
    """`ifttn figures`."""
    from ifttn import gallery
    from lab import showcase

    work = work_of(o)
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
    """`ifttn reproduce`: exit code 1 when a step failed."""
    from ifttn import gallery
    from lab import report
    from lab.live import Live

    find(o.preset, PRESETS, "preset")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise IfttnError(
            "reproduce runs in one process: `torchrun ... -m ifttn train RECIPE` first, and it is found done"
        )
    places = study.Places(o.out, own_datasets(o.data))
    alone = o.quick or o.device.startswith("cuda")  # the quick study's steps wait for one another
    jobs = o.jobs or (1 if alone else os.cpu_count() or 1)
    first = places.datasets[0]
    setup = study.Setup(o.preset, o.device, o.seed, jobs, machine_of(o))
    steps = study.tasks(places, setup, quick=o.quick, videos=o.videos)
    splits = (1,) if o.quick else (1, 2, 3)  # with three, one network bears witness to what the others draw
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
        datasets={
            name: f"{o.videos or videos} generated videos, laid out as {flavour.upper()}"
            for name, (flavour, videos) in study.EMBEDDED.items()
        }
        if not places.own
        else {name: f"{len(catalogue.all_videos(folder))} videos" for name, folder in places.own.items()},
        seeds=(o.seed,),
        versions={name: version(name) for name in ("torch", "torchvision", "ifttn")},
        date=datetime.date.today().isoformat(),
        steps=(),
    )
    page, live, began, seen = o.out / "report.html", Live(o.brief), time.monotonic(), 0
    progress, found = study.Progress(steps), None
    for progress in study.run(steps, jobs=jobs, timings=o.out / "timings.json"):
        found = dict(progress.seconds) if found is None else found
        if not (o.brief and page.exists() and progress.seconds == found and not progress.failed):
            report.write(
                page,
                replace(state, steps=report.steps(progress)),
                study.measured(places.runs, o.out / "data"),
                gallery.load(o.out / "figures"),
                study.judged(places.runs, o.out / "data"),
            )
        live.update(progress.share, progress.running)
        if len(progress.done) > seen and not o.brief:
            seen = len(progress.done)
            live.say(f"{seen} of {len(steps)} steps done; report: {page}")
    if not progress.failed:
        study.drop_pyramids(places)
    if not o.brief:
        live.end()
        return conclude(progress, o)
    live.end(in_short(progress, found or {}, time.monotonic() - began), {"report": page, "runs": places.runs})
    return failures(progress)


def quietly(function: Callable[..., object], *arguments: object) -> None:
    """A step without bars of its own: in a notebook all that they ever said would stay. What fails is raised."""
    with redirect_stderr(io.StringIO()):
        function(*arguments)


def own_datasets(folders: Sequence[Path]) -> dict[str, Path]:
    """Name -> folder of each data set, all of them looked into before anything begins."""
    own = {folder.resolve().name: folder.resolve() for folder in folders}
    if len(own) < len(folders):
        raise IfttnError(f"two data sets of one name: {', '.join(str(folder) for folder in folders)}")
    for folder in own.values():
        read_split(folder)
    return own


def conclude(progress: study.Progress, o: argparse.Namespace) -> int:
    """Print the tables, where the time went, and what failed."""
    found = study.measured(o.out / "runs", o.out / "data")
    measured = [tables.as_text(table) for table in found if any(cell.measured for cell in table.cells)]
    print("\n\n".join([claims.as_text(study.judged(o.out / "runs", o.out / "data")), *measured]))
    print("\nWhere the time went (seconds of each step; several ran at once):")
    for name, seconds in sorted(progress.seconds.items(), key=lambda item: -item[1]):
        print(f"  {seconds:7.1f}  {name}")
    print(f"  {sum(progress.seconds.values()):7.1f}  in all")
    code = failures(progress)
    print(f"report: {o.out / 'report.html'}")
    return code


def in_short(progress: study.Progress, found: Mapping[str, float], seconds: float) -> str:
    """What was done, in a sentence; `found` is what was done before, and how long it took."""
    from lab.report import duration

    of, now = len(progress.tasks), sum(found.get(name) != took for name, took in progress.seconds.items())
    if now or progress.failed:
        return f"{len(progress.done)} of {of} steps of the study are done, {now} of them now, in {duration(seconds)}."
    took = duration(sum(progress.seconds.values()))
    return f"All {of} steps of the study were done before, in {took}; {duration(seconds)} to find them."


def failures(progress: study.Progress) -> int:
    """Name what failed. Returns the exit code."""
    for name, reason in progress.failed.items():
        print(f"ifttn: {name} failed: {reason}", file=sys.stderr)
    return 1 if progress.failed else 0


def predict_verb(o: argparse.Namespace) -> int:
    """`ifttn predict`: exit code 1 when a video could not be read."""
    recognize, failed, found = Recognizer.load(o.run, o.device, o.crops), 0, {}
    for video in o.video:
        try:
            if o.every:
                print(video)
                prediction = play(recognize.stream(video, o.every))
            else:
                prediction = recognize(video)
                print(video)
        except IfttnError as error:
            print(f"ifttn: {error}", file=sys.stderr)
            failed += 1
            continue
        for action, probability in prediction.top(o.top):
            print(f"  {probability:6.1%}  {action}")
        if not o.every:
            print("\n".join(time_line(prediction)))
        found[str(video)] = prediction.as_json()
    if o.json:
        write_whole(o.json, json.dumps(found, indent=1).encode())
        print(f"scores: {o.json}")
    return 1 if failed else 0


def play(stream: Iterator[Prediction]) -> Prediction:
    """Print a line for each segment as it comes. Returns the last prediction.

    Raises:
        IfttnError: not one segment came.
    """
    prediction = None
    for prediction in stream:
        print(moment(prediction, prediction.seconds[-1]), flush=True)
    if prediction is None:
        raise IfttnError("the video ends before its first segment: choose fewer seconds with --every")
    return prediction


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


if __name__ == "__main__":
    sys.exit(main())
