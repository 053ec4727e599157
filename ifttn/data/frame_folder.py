"""A folder of numbered images, which is a video without a codec.

The images have names such as `000001.jpg`, `img_00001.jpg` or `frame_000001.png`, and the order of their numbers.
Images of flow in the same folder (`flow_x_00001.jpg`) do not count.
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
    """The images of a folder, grouped by the part of the name before the number."""
    found: dict[str, list[tuple[int, os.DirEntry[str]]]] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if match := _IMAGE.fullmatch(entry.name):
                found.setdefault(match["before"], []).append((int(match["number"]), entry))
    return found


def size_and_time(path: Path) -> tuple[int, int]:
    """Bytes of a file, and the time of its last change in nanoseconds since 1970. For a folder: the sum over all images
    and the time of the newest image."""
    facts = [path.stat()]
    if path.is_dir():
        facts = [entry.stat() for images in _numbered(path).values() for _, entry in images]
    return sum(each.st_size for each in facts), max((each.st_mtime_ns for each in facts), default=0)


def images_of(folder: Path) -> list[Path]:
    """The images of a folder in the order of their numbers.

    Raises:
        IfttnError: the folder has no image, two images with one number, or images with several names.
    """
    found = _numbered(folder)
    if not found:
        raise IfttnError(f"{folder} holds no numbered images (such as 000001.jpg or img_00001.png)")
    if len(found) > 1:
        names = ", ".join(sorted(min(entry.name for _, entry in images) for images in found.values()))
        raise IfttnError(f"{folder} holds images with several names ({names}): keep only the images of one video")
    (images,) = found.values()
    images.sort(key=lambda image: (image[0], image[1].name))
    for (number, first), (other, second) in pairwise(images):
        if number == other:
            raise IfttnError(f"{folder} holds two images with one number, {first.name} and {second.name}")
    return [folder / entry.name for _, entry in images]


def first_number(folder: Path) -> int:
    """The number of the first image of a folder."""
    return min(number for images in _numbered(folder).values() for number, _ in images)


def gaps(images: Sequence[Path]) -> tuple[str, ...]:
    """A note if numbers are missing between the images. There is no note if all steps between numbers are equal."""
    numbers = [int(match["number"]) for path in images if (match := _IMAGE.fullmatch(path.name))]
    steps = {later - earlier for earlier, later in pairwise(numbers)}
    if len(steps) < 2:
        return ()
    missing = (numbers[-1] - numbers[0]) // min(steps) + 1 - len(numbers)
    return (f"gaps ({missing} of the numbers from {numbers[0]} to {numbers[-1]} have no image)",)
