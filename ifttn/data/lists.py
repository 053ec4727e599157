"""The common parts of the lists of data sets: rows that name videos, and the names by which rows find files.

A row finds its video whatever the case, the suffix, the Unicode form of an accent, the byte order mark and the line
ends are.
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
# Characters that Windows forbids in the name of a folder. Linux and macOS forbid fewer.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
LONGEST = 60
"""Largest number of letters in a folder's name. A letter has up to 4 bytes, and file systems allow 255 bytes."""


def readable(name: str) -> str:
    """A file's name as text: accents in Unicode's composed form, and bytes that are not UTF-8 as "\\xe9"."""
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
    """A key that finds the file of a row in any spelling and with any suffix (the data set may be re-encoded)."""
    return spelling_key(row_name(row))


@functools.cache
def folder_name(action: str) -> str:
    """The name of an action's folder: the action's name, changed if Linux, macOS or Windows does not allow it."""
    name = _FORBIDDEN.sub("_", action).rstrip(" .")
    if _DEVICE.fullmatch(name) or not name:
        name = f"_{name}"
    if len(name) > LONGEST:
        name = f"{name[: LONGEST - 9]}-{hashlib.sha256(action.encode()).hexdigest()[:8]}"
    return name


class Row(NamedTuple):
    """A video of a list."""

    path: str
    """The path of its file or folder, relative to the data set or to a folder in it. The suffix does not matter."""
    label: int


@dataclass(frozen=True)
class Lists:
    """The lists of one split."""

    actions: tuple[str, ...]
    """The actions in the order of their labels, from 0."""
    train: tuple[Row, ...]
    test: tuple[Row, ...]
    unused: tuple[Row, ...] = ()
    """Rows on neither side of this split (HMDB51's 0)."""
    unlabelled: tuple[str, ...] = ()
    """Names of the test videos in an official list without labels."""
    notes: tuple[str, ...] = ()
    """A line for each part of the lists that is not used: "<part>: <reason>"."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows of the lists."""
        return self.train + self.test + self.unused

    def name(self, row: Row) -> str:
        """The unique name of a row's video: its path. A path without a folder gets the folder of its action."""
        return row_name(row.path if "/" in row.path else f"{folder_name(self.actions[row.label])}/{row.path}")


def text_lines(path: Path) -> Iterator[tuple[str, str]]:
    """("<file>, line <n>", text) of every line of a list that is not blank. Raises IfttnError if there is no list."""
    if not path.is_file():
        raise IfttnError(f"the list {path} does not exist")
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as Windows saves "Unicode"
        content = content.decode("utf-16", "replace").encode()
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        if text := os.fsdecode(line).strip():  # decoded like the names of files, so that they are equal
            yield f"{path}, line {number}", text
