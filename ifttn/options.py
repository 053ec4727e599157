"""The types of option values, and the parser, which all verbs share.

Values are checked when the command line is read, before the verb starts. This module does not import torch, so that a
mistyped option gives an error message at once.
"""

import argparse
import math
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose error message is one line that says where to find help, without a list of all options."""

    def error(self, message: str) -> NoReturn:
        """Print the line to stderr and end with exit code 2."""
        self.exit(2, f"{self.prog}: {' '.join(message.split())} (`{self.prog} --help` explains the options)\n")


class OneOf:
    """A name in a table, or one of `more`. The module of the table is imported when a name is checked or help is shown.

    Args:
        table: the table as "<module>.<name>".
        more: additional names.
    """

    def __init__(self, table: str, *more: str) -> None:
        self.module, _, self.name = table.rpartition(".")
        self.more = more

    @property
    def names(self) -> Collection[str]:
        """All valid names."""
        return (*self.more, *getattr(import_module(self.module), self.name))

    def __call__(self, text: str) -> str:
        """The name. Raises ArgumentTypeError if it is unknown."""
        if text not in self.names:
            raise argparse.ArgumentTypeError(f"unknown name {text!r}: choose from {self}")
        return text

    def __str__(self) -> str:
        return ", ".join(self.names)


class OneOrOwn(OneOf):
    """A name in a table, or "FILE.py:NAME" of the user's network. The file is imported only when the verb runs."""

    def __call__(self, text: str) -> str:
        """The name. Raises ArgumentTypeError if it is unknown, or if the file does not exist."""
        file, colon, _ = text.rpartition(":")
        return f"{existing_file(file)}{text[len(file) :]}" if colon else super().__call__(text)

    def __str__(self) -> str:
        return f"{super().__str__()}, or FILE.py:NAME of your own network"


PRESET = OneOf("ifttn.experiment.presets.PRESETS")
RECIPE = OneOrOwn("ifttn.experiment.recipes.RECIPES")
FLOW = OneOf("ifttn.vocabulary.FLOW_NAMES")
PRECISION = OneOf("ifttn.vocabulary.PRECISIONS", "auto")


@dataclass(frozen=True)
class Whole:
    """A whole number of at least `low`, at most `high` if given, and a multiple of `step`."""

    low: int
    high: int | None = None
    step: int = 1

    def __call__(self, text: str) -> int:
        """The number."""
        try:
            value = int(text)
        except ValueError:
            value = self.low - 1
        if value < self.low or (self.high is not None and value > self.high) or value % self.step:
            raise argparse.ArgumentTypeError(f"{text!r} is not {self}")
        return value

    def __str__(self) -> str:
        until = f"of at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"
        return f"a whole number {until}" + (f" and a multiple of {self.step}" if self.step > 1 else "")


@dataclass(frozen=True)
class Number:
    """A finite number between `low` and `high`. If `closed`, both ends are included."""

    low: float | int
    high: float | int = math.inf
    closed: bool = False

    def __call__(self, text: str) -> float:
        """The number."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (self.low < value < self.high or (self.closed and value in (self.low, self.high))):
            raise argparse.ArgumentTypeError(f"{text!r} is not {self}")
        return value

    def __str__(self) -> str:
        if self.closed:
            return f"a number from {self.low:g} to {self.high:g}"
        return f"a number above {self.low:g}" + (f" and below {self.high:g}" if self.high < math.inf else "")


def device(text: str) -> str:
    """The name of a device. `ifttn.cli.choose_device` checks whether this machine has it."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"unknown device {text!r}: choose from cpu, cuda, cuda:0, cuda:1, ...")
    return text


def address(text: str) -> str:
    """The address of a Dask scheduler."""
    if not re.fullmatch(r"\w+://\S+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as tcp://10.0.0.1:8786")
    return text


def table(text: str) -> int | str:
    """The number of a table, or "order": the table of actions that are played backwards."""
    return text if text == "order" else Whole(1)(text)


def stage_epochs(text: str) -> tuple[str, int]:
    """A stage and its number of epochs."""
    stage, equals, epochs = text.partition("=")
    if not (stage and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not STAGE=N, such as ttn=32")
    return stage, Whole(1)(epochs)


def crops(text: str) -> int:
    """The number of views of a frame."""
    if text not in ("1", "3", "10"):
        raise argparse.ArgumentTypeError(f"{text!r} is not 1, 3 or 10")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """Width and height of a picture in pixels."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match or min(map(int, match.groups())) < 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 340x256, of at least 16x16 pixels")
    return int(match[1]), int(match[2])


def folder(text: str) -> Path:
    """A folder, which need not exist."""
    path = _path(text)
    above = next((each for each in (path, *path.parents) if os.path.exists(each)), None)
    if above and not os.path.isdir(above):
        raise argparse.ArgumentTypeError(f"{above} is a file, not a folder")
    return path


def existing_folder(text: str) -> Path:
    """A folder that exists."""
    path = folder(text)
    if not os.path.exists(path):
        raise argparse.ArgumentTypeError(f"there is no folder {path}")
    return path


def existing_video(text: str) -> Path:
    """A video that exists: a file, or a folder of images."""
    path = _path(text)
    if not os.path.exists(path):
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path


def existing_file(text: str) -> Path:
    """A file that exists."""
    return _no_folder(existing_video(text))


def new_file(text: str) -> Path:
    """A file to write. It may exist."""
    path = _no_folder(_path(text))
    folder(str(path.parent))
    return path


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a path")
    return Path(text)


def _no_folder(path: Path) -> Path:
    if os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"{path} is a folder, not a file")
    return path


def add_device(p: argparse.ArgumentParser) -> None:
    """Add the option for the device."""
    p.add_argument("--device", type=device, help="cpu, cuda, cuda:1, ...; by default a GPU if there is one")


def add_memory(p: argparse.ArgumentParser) -> None:
    """Add the options for the machine that training and testing share."""
    p.add_argument("--micro-batch", type=Whole(1), help="videos at once on a device; a batch has several micro-batches")
    p.add_argument("--workers", type=Whole(0), help="processes that load batches; by default the number of the preset")
    p.add_argument(
        "--precision", type=PRECISION, default="auto", help="%(type)s; auto is fp32 on a CPU and 16 bits on a GPU"
    )
