"""The `ifttn` command: from videos to trained networks, tables, figures and features.

This module has the verbs and their options. A row of VERBS names the module of a verb. That module is imported only
when the verb runs, so that help and error messages do not wait for torch.
"""

import argparse
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ifttn.bench.options import JSON_HELP, PARTS
from ifttn.memory import explained
from ifttn.options import (
    FLOW,
    PRESET,
    RECIPE,
    Number,
    Parser,
    Whole,
    add_device,
    add_memory,
    address,
    crops,
    device,
    existing_file,
    existing_folder,
    existing_video,
    folder,
    new_file,
    stage_epochs,
    table,
)
from ifttn.vocabulary import IfttnError

EPILOG = """\
The embedded study, from nothing to a report:   ifttn reproduce
One recipe on UCF101 (many GPUs: `torchrun ... -m ifttn train ...`):
  ifttn prepare UCF101 --preset paper
  ifttn train if-ttn --data UCF101 --preset paper --split 1
  ifttn test if-ttn --data UCF101 --preset paper --split 1
The whole study on UCF101 and HMDB51:   ifttn reproduce --preset paper --data UCF101 HMDB51
  ifttn predict some.mp4 --run results/runs/UCF101/split1/if-ttn
"""
USUAL_RUN = Path("results/runs/embedded-ucf/split1/if-ttn")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit code: 0, 1 for an error that the user can fix, 130 if stopped by Ctrl-C.

    Raises SystemExit for --help (0) and for invalid options (2).
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a character outside the encoding must not end a verb
            stream.reconfigure(errors="backslashreplace")
    options = parser().parse_args(arguments)
    try:
        choose_device(options)
        with explained(vars(options)):  # an out-of-memory error names the options that need less memory
            return import_module(options.module).run(options) or 0
    except (IfttnError, OSError) as error:  # an OSError names the full disk or the folder that is not writable
        print(f"ifttn: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nifttn: stopped; the same command continues from here", file=sys.stderr)
        return 130


def choose_device(options: argparse.Namespace) -> None:
    """Set `options.device` to a GPU if there is one and no device is given.

    Raises:
        IfttnError: this machine does not have the given GPU, but should use it.
    """
    if "device" not in options or options.device == "cpu" or getattr(options, "scheduler", None):
        return
    import torch

    gpus = torch.cuda.device_count()
    if not options.device:
        if options.verb != "prepare":  # a store records the device on which it was begun
            options.device = "cuda" if gpus else "cpu"
    elif int(options.device.partition(":")[2] or 0) >= gpus and not getattr(options, "dry_run", False):
        names = ["cpu", *(f"cuda:{number}" for number in range(gpus))]
        raise IfttnError(f"--device {options.device}: torch does not find this GPU; choose from {', '.join(names)}")


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs and their options."""
    top = Parser(
        prog="ifttn",
        description=str(__doc__).splitlines()[0],
        epilog=EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    verbs = top.add_subparsers(title="verbs", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        p = verbs.add_parser(
            name, help=verb.text, description=verb.text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        p.set_defaults(verb=name, module=verb.module or f"ifttn.verbs.{name}")
        verb.add_options(p)
    return top


def _prepare(p: argparse.ArgumentParser) -> None:
    p.add_argument("data", type=folder, help="UCF101 or HMDB51 with its lists, or any folder of class folders")
    p.add_argument(
        "store",
        type=folder,
        nargs="?",
        help="folder to write, by default results/stores/DATA-PRESET, where the other verbs look for it; the same "
        "command continues after a stop",
    )
    p.add_argument("--preset", type=PRESET, default="tiny", help="preset of resolution and flow: %(type)s")
    p.add_argument("--flow", type=FLOW, help="optical flow, in place of the preset's: %(type)s")
    p.add_argument("--jobs", type=Whole(1), help="videos at once; by default one per core")
    p.add_argument(
        "--scheduler",
        type=address,
        metavar="tcp://HOST:PORT",
        help="prepare on the workers of this Dask cluster (extra `cluster`); DATA and STORE must be on a file system "
        "that every machine mounts in the same place",
    )
    p.add_argument("--limit", type=Whole(1), help="prepare only this many videos, spread over the data set")
    p.add_argument(
        "--device", type=device, help="device for optical flow; by default a GPU if there is one, and cpu in a cluster"
    )
    p.add_argument(
        "--embedded",
        choices=("ucf", "hmdb", "something"),
        help="first write an embedded data set into DATA, in the layout of this data set",
    )
    p.add_argument("--videos", type=Whole(16, step=16), default=960, help="size of the embedded data set")
    p.add_argument(
        "--difficulty",
        type=Number(0, 2, closed=True),
        default=1.0,
        help="difficulty of the embedded data set, 0 to 2: 0 is without disturbance",
    )


def _doctor(p: argparse.ArgumentParser) -> None:
    p.add_argument("--folder", type=folder, help="folder for the videos; by default they are removed")


def _train(p: argparse.ArgumentParser) -> None:
    p.add_argument("recipe", type=RECIPE, help="%(type)s")
    _add_work(p)
    p.add_argument("--dry-run", action="store_true", help="only print recipe, parameters, work, memory and steps")
    p.add_argument(
        "--hold-out", type=Number(0, 1), default=0.0, help="share of the training videos, in groups, to score only"
    )
    p.add_argument(
        "--epochs",
        type=stage_epochs,
        nargs="+",
        default=[],
        metavar="STAGE=N",
        help="epochs of a stage instead of the preset's, such as ttn=32; --dry-run lists the stages",
    )
    p.add_argument("--deterministic", action="store_true", help="repeatable bit for bit on a GPU too; slower")
    _add_machine(p)


def _test(p: argparse.ArgumentParser) -> None:
    p.add_argument("recipe", type=RECIPE, help="%(type)s")
    _add_work(p)
    add_memory(p)
    p.add_argument("--classes", action="store_true", help="also print the accuracy of each action")
    p.add_argument("--tune", action="store_true", help="also use weights that are tuned on the videos of --hold-out")


def _tables(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "numbers",
        type=table,
        nargs="*",
        help="numbers of tables, by default all with a measured cell; or `order`: predictions for actions that are "
        "played backwards",
    )
    p.add_argument(
        "--data", type=existing_folder, default=Path("results/data"), help="folder of the data sets, for their factors"
    )
    p.add_argument("--csv", type=new_file, help="also write the rows to this file")
    p.add_argument(
        "--seeds",
        type=existing_folder,
        nargs="+",
        default=[],
        help="more folders of the same runs with other seeds, such as OUT/runs of `ifttn reproduce --seed 9`; seeds of "
        "the study in RUNS/seed1 and so on are always read",
    )
    p.add_argument(
        "--on",
        nargs="+",
        default=[],
        metavar="NAME",
        help="data sets to show, the first in place of UCF-101; by default your own data sets with runs",
    )
    _add_runs(p)


def _figures(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=folder, default=Path("results/figures"), help="folder for the figures")
    p.add_argument(
        "--denoise",
        action="store_true",
        help="first train a denoiser on the training snippets, as `reproduce` does; from now on, Figures 1 and 7 are "
        "drawn through it",
    )
    p.add_argument(
        "--full", action="store_true", help="all actions, five seeds, all test videos: in an hour, not in a minute"
    )
    p.add_argument(
        "--contours", action="store_true", help="outline the true balls of the embedded data set in Figure 6"
    )
    p.add_argument("--gallery", type=folder, help="folder for small copies, GIFs and screenshots for a README")
    p.add_argument("--shots", type=folder, default=Path("build/screenshots"), help="screenshots of `make browser`")
    _add_work(p)


def _reproduce(p: argparse.ArgumentParser) -> None:
    p.add_argument("--out", type=folder, default=Path("results"), help="folder of the study")
    p.add_argument(
        "--data",
        type=existing_folder,
        nargs="+",
        default=[],
        help="UCF101, HMDB51 or any folder of class folders, in place of the embedded data sets; the first fills all "
        "tables, the others only the rows that the paper reports on all splits",
    )
    p.add_argument("--quick", action="store_true", help="Table 3 and the figures, on one split")
    p.add_argument(
        "--brief",
        action="store_true",
        help="print only a few lines, without the tables; if all steps were done before, keep the report",
    )
    p.add_argument("--preset", type=PRESET, default="tiny", help="sizes and schedules: %(type)s")
    p.add_argument(
        "--jobs",
        type=Whole(1),
        help="steps at once; by default one per core, or one with --quick or if a large network has the GPU",
    )
    p.add_argument(
        "--videos",
        type=Whole(16, step=16),
        help="videos of each embedded data set, a multiple of 16; by default 960 and 384",
    )
    p.add_argument(
        "--seed", type=Whole(0, 2**32 - 1), default=0, help="seed of data, weights, views, order and dropout"
    )
    p.add_argument(
        "--seeds",
        type=Whole(1),
        help="trainings of each row in a close claim, on split 1; by default 3 to 5, or 1 with --quick or --data",
    )
    add_device(p)
    _add_machine(p)


def _predict(p: argparse.ArgumentParser) -> None:
    p.add_argument("video", type=existing_video, nargs="+", help="video files, or folders of numbered images")
    p.add_argument("--run", type=existing_folder, default=USUAL_RUN, help="folder of a trained run")
    p.add_argument("--top", type=Whole(1), default=5, help="number of actions to print")
    p.add_argument(
        "--every", type=Number(0), metavar="SECONDS", help="predict as for a stream, with a line after each segment"
    )
    p.add_argument("--crops", type=crops, help="views of a frame, 1, 3 or 10; by default as in the test of the run")
    p.add_argument("--json", type=new_file, help="also write scores of videos, heads, snippets and pairs to this file")
    add_device(p)


def _clips(p: argparse.ArgumentParser) -> None:
    p.add_argument("recipe", type=RECIPE, help="%(type)s")
    p.add_argument("clips", type=Whole(1), nargs="+", help="training videos of each action, such as 4 8 16 32")
    p.add_argument(
        "--repeats", type=Whole(1), default=1, help="number of trainings, each with another seed and other videos"
    )
    _add_work(p)
    p.set_defaults(runs=Path("results/clips"))
    _add_machine(p)


def _features(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "video",
        type=existing_video,
        nargs="+",
        help="video files, folders of numbered images, folders of videos, data sets with or without lists, or stores",
    )
    p.add_argument("--run", type=existing_folder, default=USUAL_RUN, help="folder of a trained run")
    p.add_argument("--out", type=folder, default=Path("results/features"), help="folder for one file per video")
    p.add_argument("--crops", type=crops, help="views of a frame, 1, 3 or 10; by default as in the test of the run")
    add_device(p)


def _export(p: argparse.ArgumentParser) -> None:
    p.add_argument("run", type=existing_folder, help="folder of a trained run")
    p.add_argument(
        "out", type=new_file, help=".pt2 (torch.export) or .onnx (extra `export`), for batches of any number of videos"
    )


def _bench(p: argparse.ArgumentParser) -> None:
    parts = p.add_subparsers(title="parts", required=True, metavar="PART")
    for name, (text, add_options) in PARTS.items():
        part = parts.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        part.set_defaults(part=name, module="ifttn.bench")
        add_options(part)
        part.add_argument("--json", type=new_file, help=JSON_HELP.get(name, "also add every row to this file"))


def _add_work(p: argparse.ArgumentParser) -> None:
    """Add the options for a split of a prepared data set, its runs, and their training."""
    p.add_argument("--data", type=folder, default=Path("results/data/embedded-ucf"), help="folder of videos and lists")
    p.add_argument("--store", type=folder, help="store of `ifttn prepare`; by default results/stores/DATA-PRESET")
    p.add_argument("--split", type=Whole(1, 3), default=1, help="1, 2 or 3")
    p.add_argument("--preset", type=PRESET, default="tiny", help="sizes and schedules: %(type)s")
    p.add_argument("--seed", type=Whole(0, 2**32 - 1), default=0, help="seed of weights, views, order and dropout")
    _add_runs(p)
    add_device(p)


def _add_machine(p: argparse.ArgumentParser) -> None:
    """Add the options for the machine that trains."""
    p.add_argument(
        "--imagenet", type=existing_file, help="local file of ImageNet weights; by default torchvision downloads them"
    )
    add_memory(p)
    p.add_argument("--compile", action="store_true", help="use torch.compile, which takes minutes at the start")
    p.add_argument("--recompute", action="store_true", help="activation checkpointing: less memory, a third more work")
    p.add_argument("--tensorboard", action="store_true", help="also write RUN/tensorboard")
    p.add_argument("--checkpoint-steps", type=Whole(1), default=200, help="steps between checkpoints within an epoch")


def _add_runs(p: argparse.ArgumentParser) -> None:
    p.add_argument("--runs", type=folder, default=Path("results/runs"), help="folder of the runs")


class Verb(NamedTuple):
    """A row of VERBS."""

    text: str
    add_options: Callable[[argparse.ArgumentParser], None]
    module: str = ""
    """The module whose `run` the verb calls; by default the module of `ifttn.verbs` with the name of the verb."""


VERBS: Mapping[str, Verb] = {
    "prepare": Verb("videos -> store: frames, optical flow and motion vectors of every video", _prepare),
    "doctor": Verb(
        "check every flow and codec of this machine with a known pan: sign, size, zero",
        _doctor,
        module="ifttn.data.doctor",
    ),
    "train": Verb("train a recipe, after the recipes that it starts from; continues where it stopped", _train),
    "test": Verb("score the test videos with a trained recipe, and print the accuracy", _test),
    "tables": Verb("print the paper's claims and tables, with measured and printed values", _tables),
    "figures": Verb("draw Figures 1, 6 and 7 for trained runs, and the curves of their training", _figures),
    "reproduce": Verb("run the complete study: data, training, tables, figures, report", _reproduce),
    "bench": Verb("measure a part on this machine, and compare it with another program", _bench),
    "predict": Verb("print the most likely actions of a video of any size and codec", _predict),
    "clips": Verb("measure and draw accuracy against the number of training videos per action", _clips),
    "features": Verb("write levels, votes and scores of each video to a file of arrays; resumable", _features),
    "export": Verb("write a network to a file that does not need this package: OUT.pt2 or OUT.onnx", _export),
}


if __name__ == "__main__":
    sys.exit(main())
