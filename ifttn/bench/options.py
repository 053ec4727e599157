"""The options of each part of `ifttn bench`; the module `ifttn.bench.PART` measures it.

Nothing heavy is imported here, so that help and mistyped options do not wait for torch.
"""

import argparse
from collections.abc import Callable, Mapping

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
"""Width and height of frames: TSN's, and UCF101's own."""
SPEED_ROWS = (
    *("two-stream-i3d", "tsn-rgb-flow", "din", "c3d", "tsn-rgb", "tsn-rgb-rgbdiff"),
    *("emv-cnn", "coviar", "off", "mv-if-ttn", "if-ttn"),
)
"""The rows of Table 5, and IF-TTN on flow, which the claim about motion vectors compares with."""
SPEED_FRAMES = 186
"""Frames of the video that `bench speed` makes: the mean of UCF101."""
SPEED_RATE = 25.0
"""Frames per second of that video."""
TRAINED_STAGES = {
    "spatial": ("spatial", 0),
    "temporal": ("temporal", 0),
    "ttn": ("if-ttn", 0),
    "joint": ("if-ttn", 1),
}
"""Name of a stage of training -> the recipe that has it, and the stage's number in that recipe."""
DRAWN_BACKBONES = {"tiny": "tiny", "small": "resnet18", "paper": "resnet50"}
"""Preset of drawing -> the backbone that draws."""

GPU_PARTS = (
    *("tests", "resume", "flow", "train", "memory", "loader", "study", "largest"),
    *("jpeg", "speed", "compile", "insight", "peers"),
)
"""The parts of `bench gpu`. The most useful run first, because a run may be cut off."""


def _flow(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "videos", type=existing_file, nargs="*", help="video files; by default some of the embedded data set"
    )
    p.add_argument("--pairs", type=Whole(1), default=3, help="pairs a video, evenly spread")
    p.add_argument("--repetitions", type=Whole(1), default=2, help="turns, of which the best counts")
    p.add_argument("--sizes", type=size, nargs="+", default=list(FRAME_SIZES), help="such as 340x256")
    p.add_argument("--fast", action="store_true", help="ours is tvl1-fast, as in the preset tiny: --sizes 96x72")
    p.add_argument("--gpu", action="store_true", help="what a GPU does alone, on known motions, without OpenCV's")


def _mv(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "videos",
        type=existing_file,
        nargs="*",
        help="by default made and removed: MPEG-4, and H.264 with one reference",
    )
    p.add_argument("--frames", type=Whole(2), default=300, help="of a video that is made")
    p.add_argument("--repetitions", type=Whole(1), default=15, help="turns, of which the best counts")
    p.add_argument("--no-extractor", action="store_true", help="leave out motion-vector-extractor (a download)")


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
        help=f"which: {', '.join(SPEED_ROWS)}",
    )
    p.add_argument(
        "--video", type=existing_file, help=f"by default made and removed: {SPEED_FRAMES} frames of 320x240, MPEG-4"
    )
    p.add_argument("--segments", type=Whole(2), default=7, help="K of a video")
    p.add_argument("--batch", type=Whole(1), help="videos at once in the first definition; by default 1, on a GPU 8")
    add_device(p)
    p.add_argument("--precision", type=PRECISION, default="auto", help="%(type)s; auto is fp32 on a CPU")
    p.add_argument("--compile", action="store_true", help="torch.compile every network: a minute each first")
    p.add_argument("--repetitions", type=Whole(1), default=7, help="of a figure, at most")
    p.add_argument(
        "--minutes", type=Number(0), default=4.0, help="after which what takes long is not repeated any more"
    )
    p.add_argument("--csv", type=new_file, help="write every figure to this file as well")


def _store(p: argparse.ArgumentParser) -> None:
    p.add_argument(
        "--store", type=existing_folder, help="a prepared data set; by default a small one is made and removed"
    )
    p.add_argument("--preset", type=PRESET, default="paper", help="decides snippets and crops: %(type)s")
    p.add_argument("--videos", type=Whole(1), default=32, help="videos a turn")
    p.add_argument("--batch", type=Whole(1), default=8, help="videos a batch of the loader")
    p.add_argument("--repetitions", type=Whole(1), default=7, help="turns of a batch, of which the best counts")
    p.add_argument(
        "--rate",
        type=Number(0),
        nargs="+",
        default=[],
        help=f"videos/s that a device trains on in the stages {', '.join(TRAINED_STAGES)}; measured where there is a "
        "GPU",
    )


def _train(p: argparse.ArgumentParser) -> None:
    p.add_argument("--preset", type=PRESET, default="tiny", help="%(type)s")
    add_device(p)
    p.add_argument(
        "--videos", type=Whole(16, step=16), default=128, help="embedded videos to prepare, a multiple of 16"
    )
    p.add_argument("--batch", type=Whole(1), help="videos a step; by default the preset's")
    p.add_argument("--steps", type=Whole(1), default=8, help="steps of each repetition")
    p.add_argument("--repetitions", type=Whole(1), default=3, help="of each side, in turn; the median counts")
    p.add_argument("--folder", type=folder, help="keeps videos and store between runs; by default a temporary one")
    p.add_argument("--micro-batch", type=Whole(1), help="videos at once on a device")
    p.add_argument("--workers", type=Whole(0), help="processes that load batches")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--recompute", action="store_true")
    p.add_argument(
        "--stages", nargs="+", choices=list(TRAINED_STAGES), default=list(TRAINED_STAGES), help="which, by default all"
    )
    p.add_argument(
        "--from-memory", action="store_true", help="without data, beside torchvision's network on as many images"
    )
    p.add_argument("--largest-batch", action="store_true", help="of the joint stage, with and without --recompute")


def _insight(p: argparse.ArgumentParser) -> None:
    add_device(p)
    p.add_argument("--presets", nargs="+", default=["tiny"], choices=list(DRAWN_BACKBONES), help="of drawing")
    p.add_argument("--batch", nargs="+", type=Whole(1), default=[1, 8], help="drawings at once")
    p.add_argument("--repeat", type=Whole(1), default=3, help="turns of each side, of which the best counts")


def _gpu(p: argparse.ArgumentParser) -> None:
    p.add_argument("--parts", nargs="+", default=list(GPU_PARTS), choices=GPU_PARTS, metavar="PART", help="%(choices)s")
    p.add_argument("--minutes", type=Number(0), default=8.0, help="for all parts; one that is cut off keeps its rows")
    p.add_argument(
        "--docs", action="store_true", help="measure nothing: write docs/gpu-*.json into docs/speed.md of this checkout"
    )
    add_device(p)


JSON_HELP: Mapping[str, str] = {"gpu": "the file to write, with a .md beside it; by default results/gpu.json"}
"""The help of --json for a part that writes a whole file. The other parts add a JSON object a line."""
PARTS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "flow": ("our TV-L1 beside OpenCV's DualTVL1: how fast on one core, and how far from known motions", _flow),
    "mv": ("frames and motion vectors in one pass, beside the same files decoded with nothing else done", _mv),
    "speed": ("the systems of Table 5: snippets/s, videos/s, and end to end from a file to class scores", _speed),
    "store": ("the loader alone beside a bare loop that decodes the same JPEGs", _store),
    "train": ("each stage of training with its data, beside the same network fed from memory", _train),
    "insight": ("class activation maps beside the package grad-cam, and the steps of DeepDraw", _insight),
    "gpu": ("all that only a GPU can tell, part by part, in one JSON and one Markdown file; tiny on a CPU", _gpu),
}
