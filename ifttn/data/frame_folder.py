"""A folder of numbered images, which is a video without a codec.

The images are `000001.jpg`, `img_00001.jpg`, `frame_000001.png` and the like, in the order of their numbers. Images of
flow that stand beside them (`flow_x_00001.jpg`) do not count.
"""

import os
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from ifttn.data.lists import SUFFIXES
from ifttn.vocabulary import IfttnError

_IMAGE = re.compile(r"(?!flow_)(?P<before>.*?)(?P<number>\d+)\.(?:jpe?g|png)", re.IGNORECASE)


def is_frame_folder(folder: Path) -> bool:
    """Whether a folder holds numbered images, and neither videos nor folders."""
    has_images = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if _IMAGE.fullmatch(entry.name):
                    has_images = True
                elif not entry.name.startswith(".") and (
                    entry.is_dir() or entry.name.rpartition(".")[2].lower() in SUFFIXES
                ):
                    return False
    except OSError:
        return False
    return has_images


def _numbered(folder: Path) -> dict[str, list[tuple[int, os.DirEntry[str]]]]:
    """The images of a folder by what stands before their number."""
    found: dict[str, list[tuple[int, os.DirEntry[str]]]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if match := _IMAGE.fullmatch(entry.name):
                found.setdefault(match["before"], []).append((int(match["number"]), entry))
    return found


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes of a file, and when it was last changed in nanoseconds since 1970; those of all images of a folder."""
    facts = [path.stat()]
    if path.is_dir():
        facts = [entry.stat() for images in _numbered(path).values() for _, entry in images]
    return sum(each.st_size for each in facts), max((each.st_mtime_ns for each in facts), default=0)


def images_of(folder: Path) -> list[Path]:
    """The images of a folder in the order of their numbers.

    Raises:
        IfttnError: there is none, there are two of one number, or there are images of several names.
    """
    found = _numbered(folder)
    if not found:
        raise IfttnError(f"{folder}: holds no numbered images (000001.jpg, img_00001.png and the like)")
    if len(found) > 1:
        names = ", ".join(sorted(min(entry.name for _, entry in images) for images in found.values()))
        raise IfttnError(f"{folder}: holds images of several names ({names}): leave those of one video in it")
    (images,) = found.values()
    images.sort(key=lambda image: (image[0], image[1].name))
    for (number, first), (other, second) in pairwise(images):
        if number == other:
            raise IfttnError(f"{folder}: holds two images of one number, {first.name} and {second.name}")
    return [folder / entry.name for _, entry in images]


def first_number(folder: Path) -> int:
    """The number of the first image of a folder."""
    return min(number for images in _numbered(folder).values() for number, _ in images)


def gaps(images: Sequence[Path]) -> tuple[str, ...]:
    """A note where numbers between those of the images are missing, unless it is the same number of them each time."""
    numbers = [int(match["number"]) for path in images if (match := _IMAGE.fullmatch(path.name))]
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    if len(steps) < 2:
        return ()
    missing = (numbers[-1] - numbers[0]) // min(steps) + 1 - len(numbers)
    return (f"gaps ({missing} of the numbers from {numbers[0]} to {numbers[-1]} have no image)",)
