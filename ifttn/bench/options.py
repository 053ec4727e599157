"""The options of each part of `ifttn bench`. The module `ifttn.bench.PART` does the measurement.

This module does not import torch, so that help and error messages come at once.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

from ifttn.options import (
    PRECISION,
    PRESET,
    Number,
    Whole,
    add_device,
    existing_file,
    existing_folder,
    folder,
    new_file,
    size,
)

FRAME_SIZES = ((340, 256), (320, 240))
"""Width and height of frames: those of TSN, and those of UCF101."""
SPEED_ROWS = (
    *("two-stream-i3d", "tsn-rgb-flow", "din", "c3d", "tsn-rgb", "tsn-rgb-rgbdiff"),
    *("emv-cnn", "coviar", "off", "mv-if-ttn", "if-ttn"),
)
"""The rows of Table 5, and IF-TTN on flow, for the claim about motion vectors."""
SPEED_FRAMES = 186
"""Frames of the video that `bench speed` makes. This is the mean of UCF101."""
SPEED_RATE = 25.0
"""Frames per second of that video."""
TRAINED_STAGES = {
    "spatial": ("spatial", 0),
    "temporal": ("temporal", 0),
    "ttn": ("if-ttn", 0),
    "joint": ("if-ttn", 1),
}
"""Name of a stage of training -> its recipe, and its number in that recipe."""
DRAWN_BACKBONES = {"tiny": "tiny", "small": "resnet18", "paper": "resnet50"}
"""Preset of drawing -> backbone of the network."""
UNTRAINED_WAYS = ("published", "fourier", "maco", "accentuation", "leaps")
DRAWING_WAYS = (*UNTRAINED_WAYS, "denoiser-300", "denoiser-600", "denoiser-1600", "default")
"""Ways to draw an ordered pair. A number is the steps that a denoiser is trained for."""

GPU_PARTS = (
    *("tests", "resume", "flow", "train", "four", "memory", "loader", "study", "largest"),
    *("jpeg", "speed", "compile", "insight", "peers"),
)
"""The parts of `bench gpu`. The most useful parts are first, because a run may be cut off."""


def _flow(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "videos", type=existing_file, nargs="*", help="video files; by default some of the embedded data set"
    )
    p.add_argument("--pairs", type=Whole(1), default=3, help="evenly spread pairs of each video")
    p.add_argument("--repetitions", type=Whole(1), default=2, help="turns; the best counts")
    p.add_argument("--sizes", type=size, nargs="+", default=list(FRAME_SIZES), help="sizes of frames, such as 340x256")
    p.add_argument("--fast", action="store_true", help="measure tvl1-fast, as in the preset tiny (use --sizes 96x72)")
    p.add_argument("--gpu", action="store_true", help="measure only a GPU, on known motions, without OpenCV's flow")


def _mv(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "videos",
        type=existing_file,
        nargs="*",
        help="video files; by default temporary ones: MPEG-4, and H.264 with one reference",
    )
    p.add_argument("--frames", type=Whole(2), default=300, help="frames of a temporary video")
    p.add_argument("--repetitions", type=Whole(1), default=15, help="turns; the best counts")
    p.add_argument("--no-extractor", action="store_true", help="do not download and run motion-vector-extractor")


def _speed(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--size",
        default="paper",
        choices=("paper", "small"),
        help="the paper's networks, or small ones for a quick look",
    )
    p.add_argument(
        "--rows",
        nargs="+",
        default=list(SPEED_ROWS),
        choices=SPEED_ROWS,
        metavar="ROW",
        help=f"the systems: {', '.join(SPEED_ROWS)}",
    )
    p.add_argument(
        "--video", type=existing_file, help=f"by default a temporary one: {SPEED_FRAMES} frames of 320x240, MPEG-4"
    )
    p.add_argument("--segments", type=Whole(2), default=7, help="segments K of a video")
    p.add_argument("--batch", type=Whole(1), help="videos at once in the first definition; by default 1, on a GPU 8")
    add_device(p)
    p.add_argument("--precision", type=PRECISION, default="auto", help="%(type)s; auto is fp32 on a CPU")
    p.add_argument("--compile", action="store_true", help="use torch.compile, which takes a minute for each network")
    p.add_argument("--repetitions", type=Whole(1), default=7, help="largest number of repetitions")
    p.add_argument("--minutes", type=Number(0), default=4.0, help="time after which slow rows are not repeated")
    p.add_argument("--csv", type=new_file, help="also write every timing to this file")


def _store(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--store", type=existing_folder, help="folder of a prepared data set; by default a small temporary one"
    )
    p.add_argument("--preset", type=PRESET, default="paper", help="preset of snippets and crops: %(type)s")
    p.add_argument("--videos", type=Whole(1), default=32, help="videos per turn")
    p.add_argument("--batch", type=Whole(1), default=8, help="videos per batch of the loader")
    p.add_argument("--repetitions", type=Whole(1), default=7, help="turns of each batch; the best counts")
    p.add_argument(
        "--rate",
        type=Number(0),
        nargs="+",
        default=[],
        help=f"videos/s that a GPU trains on in the stages {', '.join(TRAINED_STAGES)}; by default measured on a GPU",
    )


def _train(p: argparse.ArgumentParser) -> None:
    p.add_argument("--preset", type=PRESET, default="tiny", help="%(type)s")
    add_device(p)
    p.add_argument(
        "--videos", type=Whole(16, step=16), default=128, help="embedded videos to prepare, a multiple of 16"
    )
    p.add_argument("--batch", type=Whole(1), help="videos per step; by default the preset's")
    p.add_argument("--steps", type=Whole(1), default=8, help="steps of each repetition")
    p.add_argument("--repetitions", type=Whole(1), default=3, help="repetitions of each side; the median counts")
    p.add_argument("--folder", type=folder, help="folder for videos and store; by default a temporary one")
    p.add_argument("--micro-batch", type=Whole(1), help="videos at once on a device")
    p.add_argument("--workers", type=Whole(0), help="processes that load batches")
    p.add_argument("--cores", type=Whole(1), help="use so many cores, as a smaller machine has (Linux)")
    p.add_argument("--compile", action="store_true", help="use torch.compile")
    p.add_argument("--recompute", action="store_true", help="use activation checkpointing")
    p.add_argument("--stages", nargs="+", choices=list(TRAINED_STAGES), default=list(TRAINED_STAGES), help="the stages")
    p.add_argument(
        "--from-memory", action="store_true", help="train on random bytes, compared with torchvision's network"
    )
    p.add_argument(
        "--largest-batch", action="store_true", help="find the largest batch of the joint stage, also with --recompute"
    )


def _insight(p: argparse.ArgumentParser) -> None:
    add_device(p)
    p.add_argument("--presets", nargs="+", default=["tiny"], choices=list(DRAWN_BACKBONES), help="presets of drawing")
    p.add_argument("--batch", nargs="+", type=Whole(1), default=[1, 8], help="drawings at once")
    p.add_argument("--repeat", type=Whole(1), default=3, help="turns of each side; the best counts")


def _drawing(p: argparse.ArgumentParser) -> None:
    p.add_argument("--results", type=existing_folder, default=Path("results"), help="folder of `ifttn reproduce`")
    p.add_argument("--seeds", type=Whole(0), nargs="+", default=[0, 1], help="seeds of each action's drawings")
    p.add_argument(
        "--ways", nargs="+", default=list(DRAWING_WAYS), choices=DRAWING_WAYS, metavar="WAY", help="%(choices)s"
    )
    p.add_argument("--csv", type=new_file, help="also write the report of each pair to this file")


def _gpu(p: argparse.ArgumentParser) -> None:
    p.add_argument("--parts", nargs="+", default=list(GPU_PARTS), choices=GPU_PARTS, metavar="PART", help="%(choices)s")
    p.add_argument("--minutes", type=Number(0), default=8.0, help="time for all parts; a part cut off keeps its rows")
    p.add_argument("--docs", action="store_true", help="only write the tables of docs/gpu-*.json into docs/speed.md")
    add_device(p)


JSON_HELP: Mapping[str, str] = {"gpu": "the file to write, with a .md beside it; by default results/gpu.json"}
"""The help of --json for a part that writes a new file. The other parts add a JSON object per line."""
PARTS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "flow": ("our TV-L1 against OpenCV's DualTVL1: speed on one core, and error on known motions", _flow),
    "mv": ("frames and motion vectors in one pass, against decoding the same files alone", _mv),
    "speed": ("the systems of Table 5: snippets/s, videos/s, and end to end from a file to class scores", _speed),
    "store": ("the loader alone, against a bare loop that decodes the same JPEGs", _store),
    "train": ("each stage of training with its data, against the same network with data in memory", _train),
    "insight": ("class activation maps, against the package grad-cam, and the steps of DeepDraw", _insight),
    "drawing": ("ways to draw an ordered pair, by networks and judges that did not draw it", _drawing),
    "gpu": ("everything that needs a GPU, in one JSON and one Markdown file; on a CPU at a tiny size", _gpu),
}
