"""The official lists of UCF101 and HMDB51, and the names that they share with files.

A row is "<action>/<file>". Case, suffix, Unicode's two forms of an accent, byte order marks and line ends make no
difference to which video it names.
"""

import codecs
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ifttn.vocabulary import IfttnError

SUFFIXES = (
    "3g2", "3gp", "amv", "asf", "avi", "divx", "dv", "f4v", "flv", "gif", "gxf", "h264", "hevc", "ivf", "m1v", "m2t",
    "m2ts", "m2v", "m4v", "mj2", "mjpeg", "mjpg", "mk3d", "mkv", "mod", "mov", "mp4", "mpe", "mpeg", "mpg", "mts",
    "mxf", "nut", "ogm", "ogv", "qt", "rm", "rmvb", "tod", "ts", "vob", "webm", "wmv", "wtv", "y4m",
)  # fmt: skip
"""Suffixes of video files, in upper or lower case: the containers and plain streams that FFmpeg reads."""

_FILE = rf"[^/]+\.(?:{'|'.join(SUFFIXES)})"
_CLASS_LINE = re.compile(r"(?P<label>\d+)\s+(?P<action>[^/]+)")
# UCF101's test lists carry no label; the folder says it in both.
_UCF_LINE = re.compile(rf"(?P<action>[^/]+)/(?P<file>{_FILE})(?:\s+(?P<label>\d+))?", re.IGNORECASE)
_HMDB_LINE = re.compile(rf"(?P<file>{_FILE})\s+(?P<side>[012])", re.IGNORECASE)
_HMDB_LIST = re.compile(r"(?P<action>.+)_test_split(?P<number>[123])\.txt")


def readable(name: str) -> str:
    """A file's name in writing: accents in Unicode's composed form, bytes that are not UTF-8 as "\\xe9"."""
    return unicodedata.normalize("NFC", os.fsencode(name).decode("utf-8", "backslashreplace"))


def row_name(row: str) -> str:
    """The name of a video: its row without the suffix."""
    return readable(row.rpartition(".")[0])


def spelling_key(name: str) -> str:
    """A key that is equal for all spellings of one name."""
    return readable(readable(name).casefold())


def row_key(row: str) -> str:
    """A key that finds the file of a row in any spelling and with any suffix (a data set may be encoded anew)."""
    return spelling_key(row_name(row))


@dataclass(frozen=True)
class Lists:
    """The official lists of one split; every row is "<action>/<file>"."""

    actions: tuple[str, ...]
    """In the order of the labels, from 0."""
    train: tuple[str, ...]
    test: tuple[str, ...]
    unused: tuple[str, ...] = ()
    """On neither side of this split (HMDB51's 0)."""

    @property
    def rows(self) -> tuple[str, ...]:
        """Every listed row."""
        return self.train + self.test + self.unused


def parse_lists(folder: Path, number: int) -> Lists:
    """Read the lists of split `number` (1, 2 or 3) in `folder`, in UCF101's or HMDB51's format.

    Raises:
        IfttnError: another number, a list that is not there, a line that cannot be read, or a video that is listed
            twice.
    """
    check_number(number)
    lists = (_parse_ucf if (folder / "classInd.txt").is_file() else _parse_hmdb)(folder, number)
    same_video: dict[str, list[str]] = {}
    for row in lists.rows:
        same_video.setdefault(row_key(row), []).append(row)
    for same in same_video.values():
        if len(same) > 1:
            raise IfttnError(
                f"the lists of split {number} in {folder} hold one video {len(same)} times: {', '.join(same)}"
            )
    return lists


def has_lists(names: Iterable[str]) -> bool:
    """Whether these files of a folder are the lists of a data set."""
    return any(name == "classInd.txt" or _HMDB_LIST.fullmatch(name) for name in names)


def numbers(folder: Path) -> list[int]:
    """The splits that the lists in `folder` give."""
    if (folder / "classInd.txt").is_file():
        return [number for number in (1, 2, 3) if all(path.is_file() for path in _ucf_lists(folder, number))]
    return sorted({int(match["number"]) for match in _hmdb_lists(folder)})


def check_number(number: int) -> None:
    """Raise IfttnError unless there can be a split of that number."""
    if number not in (1, 2, 3):
        raise IfttnError(f"there is no split {number}: choose 1, 2 or 3")


def _lines(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    """("<file>, line <n>", match) of every line that is not blank."""
    if not path.is_file():
        raise IfttnError(f"the list {path} is not there")
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # as Windows saves "Unicode"
        content = content.decode("utf-16", "replace").encode()
    for number, line in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), start=1):
        line_text = os.fsdecode(line).strip()  # as the names of the files are, so that they meet
        where = f"{path}, line {number}"
        match = pattern.fullmatch(line_text)
        if match:
            yield where, match
        elif line_text:
            raise IfttnError(f"{where} cannot be read: {line_text!r}")


def _parse_ucf(folder: Path, number: int) -> Lists:
    classes = [(int(line["label"]), line["action"]) for _, line in _lines(folder / "classInd.txt", _CLASS_LINE)]
    if sorted(label for label, _ in classes) != list(range(1, len(classes) + 1)):
        raise IfttnError(f"the labels in {folder / 'classInd.txt'} do not run from 1 to {len(classes)}")
    actions = tuple(readable(action) for _, action in sorted(classes))
    train, test = (_ucf_rows(path, actions) for path in _ucf_lists(folder, number))
    return Lists(actions, train, test)


def _ucf_lists(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"trainlist0{number}.txt", folder / f"testlist0{number}.txt"


def _ucf_rows(path: Path, actions: tuple[str, ...]) -> tuple[str, ...]:
    # Copies of the lists disagree on the S of HandstandPushups, whose files are all v_HandStandPushups_*.
    labels = {spelling_key(action): label for label, action in enumerate(actions)}
    rows = []
    for where, line in _lines(path, _UCF_LINE):
        label = labels.get(spelling_key(line["action"]))
        if label is None:
            raise IfttnError(f"{where} names the class {line['action']!r}, which classInd.txt does not")
        if line["label"] and int(line["label"]) != label + 1:
            raise IfttnError(f"{where} gives {line['file']} the label {line['label']}; its class has {label + 1}")
        rows.append(f"{actions[label]}/{line['file']}")
    return tuple(rows)


def _parse_hmdb(folder: Path, number: int) -> Lists:
    # Other repositories number HMDB51's classes otherwise: never exchange weights without their list of actions.
    names = {readable(name): name for name in sorted({match["action"] for match in _hmdb_lists(folder)})}
    sides: dict[str, list[str]] = {"0": [], "1": [], "2": []}
    for action, name in names.items():
        for _, line in _lines(folder / f"{name}_test_split{number}.txt", _HMDB_LINE):
            sides[line["side"]].append(f"{action}/{line['file']}")
    return Lists(tuple(names), train=tuple(sides["1"]), test=tuple(sides["2"]), unused=tuple(sides["0"]))


def _hmdb_lists(folder: Path) -> list[re.Match[str]]:
    matches = (_HMDB_LIST.fullmatch(path.name) for path in folder.glob("*_test_split*.txt"))
    return [match for match in matches if match]
