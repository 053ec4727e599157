"""What the lists of data sets have in common: rows that name videos, and names that they share with files.

Case, suffix, Unicode's two forms of an accent, byte order marks and line ends make no difference to which video a row
names.
"""

import codecs
import functools
import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ifttn.vocabulary import IfttnError

SUFFIXES = (
    "3g2", "3gp", "amv", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "gxf", "h264", "hevc", "ivf", "m1v", "m2t",
    "m2ts", "m2v", "m4v", "mj2", "mjpeg", "mjpg", "mk3d", "mkv", "mod", "mov", "mp4", "mpe", "mpeg", "mpg", "mts",
    "mxf", "nut", "ogm", "ogv", "qt", "rm", "rmvb", "tod", "ts", "vob", "webm", "wmv", "wtv", "y4m",
)  # fmt: skip
"""Suffixes of video files, in upper or lower case: the containers and plain streams that FFmpeg reads."""

_SUFFIXES = frozenset(SUFFIXES)
# What Windows refuses in the name of a folder, which is the strictest.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
LONGEST = 60
"""Letters of a folder's name, of up to 4 bytes each: no file system takes more than 255 bytes."""


def readable(name: str) -> str:
    """A file's name in writing: accents in Unicode's composed form, bytes that are not UTF-8 as "\\xe9"."""
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def row_name(row: str) -> str:
    """The name of a video: its row without the suffix of a video file."""
    stem, _, suffix = row.rpartition(".")
    return readable(stem if suffix.lower() in _SUFFIXES else row)


def spelling_key(name: str) -> str:
    """A key that is equal for all spellings of one name."""
    return readable(readable(name).casefold())


def row_key(row: str) -> str:
    """A key that finds the file of a row in any spelling and with any suffix (a data set may be encoded anew)."""
    return spelling_key(row_name(row))


@functools.cache
def folder_name(action: str) -> str:
    """The name of an action's folder: its own name, unless a file system of Linux, macOS or Windows refuses that."""
    name = _FORBIDDEN.sub("_", action).rstrip(" .")
    if _DEVICE.fullmatch(name) or not name:
        name = f"_{name}"
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}-{hashlib.sha256(action.encode()).hexdigest()[:8]}"
    return name


class Row(NamedTuple):
    """A video of a list."""

    path: str
    """Of its file or folder, relative to the folder of the data set or to one in it; a suffix makes no difference."""
    label: int


@dataclass(frozen=True)
class Lists:
    """The lists of one split."""

    actions: tuple[str, ...]
    """In the order of the labels, from 0."""
    train: tuple[Row, ...]
    test: tuple[Row, ...]
    unused: tuple[Row, ...] = ()
    """On neither side of this split (HMDB51's 0)."""
    unlabelled: tuple[str, ...] = ()
    """Names of the test videos that an official list names without labels."""
    notes: tuple[str, ...] = ()
    """A line for each thing in the lists that is left out: "<what>: <reason>"."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every listed row."""
        return self.train + self.test + self.unused

    def name(self, row: Row) -> str:
        """The name of a row's video, which is unique: its path, below the folder of its action where it has none."""
        return row_name(row.path if "/" in row.path else f"{folder_name(self.actions[row.label])}/{row.path}")


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """("<file>, line <n>", text) of every line of a list that is not blank; IfttnError where the list is not there."""
    if not path.is_file():
        raise IfttnError(f"the list {path} is not there")
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as Windows saves "Unicode"
        content = content.decode("utf-16", "replace").encode()
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if text := os.fsdecode(line).strip():  # as the names of the files are, so that they meet
            yield f"{path}, line {number}", text
