"""Which videos a data set has, and which of them a split trains on and tests on.

Three layouts: UCF101 (`<Class>/*.avi`, lists in `ucfTrainTestlist/`), HMDB51 (`<class>/*.avi`, a
`<class>_test_split<n>.txt` for every class and split) and class folders without lists. The folders of the classes, and
that of the lists, stand in the root or one folder further down (`UCF-101/`, `testTrainMulti_7030_splits/`).
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from ifttn.vocabulary import IfttnError, Split, Video

SUFFIXES = ("avi", "mp4", "mkv", "mov", "webm", "mpg")
"""What a video's file name may end in, in upper or lower case."""

_FILE = rf"[^/]+\.(?:{'|'.join(SUFFIXES)})"
_CLASS_LINE = re.compile(r"(?P<label>\d+)\s+(?P<action>[^/]+)")
# UCF101's test lists carry no label; the folder says it in both.
_UCF_LINE = re.compile(rf"(?P<action>[^/]+)/(?P<file>{_FILE})(?:\s+(?P<label>\d+))?", re.IGNORECASE)
_HMDB_LINE = re.compile(rf"(?P<file>{_FILE})\s+(?P<side>[012])", re.IGNORECASE)
_HMDB_LIST = re.compile(r"(?P<action>.+)_test_split(?P<number>[123])\.txt")


@dataclass(frozen=True)
class Lists:
    """The official lists of one split, as they stand: every row is "<action>/<file>"."""

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

    Raises IfttnError for another number, a list that is not there, a line that cannot be read and a video that is
    listed twice.
    """
    _check(number)
    lists = (_parse_ucf if (folder / "classInd.txt").is_file() else _parse_hmdb)(folder, number)
    row, times = Counter(lists.rows).most_common(1)[0] if lists.rows else ("", 0)
    if times > 1:
        raise IfttnError(f"the lists of split {number} in {folder} hold {row} {times} times")
    return lists


def read_split(root: Path, number: int = 1) -> Split:
    """Split `number` (1, 2 or 3) of the data set in `root`, which gives it its name; labels from 0.

    Class folders without lists are divided by group ("_g07_" in a file's name, else every video is its own): group i of
    a class, in the order of the names, is tested in the split number i % 3 + 1 and trained on in the others.

    Raises IfttnError for a folder of another layout, a list that cannot be read, lists of which no video is there, and
    a class with too few groups to be divided.
    """
    _check(number)
    root = root.resolve()
    files, folder = _video_files(root), _list_folder(root)
    if folder is None:
        return _divide(root, number)
    lists = parse_lists(folder, number)
    listed = {_key(row) for listed_in in _numbers(folder) for row in parse_lists(folder, listed_in).rows}
    train, test = _present(lists, lists.train, files), _present(lists, lists.test, files)
    if not train and not test:
        raise IfttnError(
            f"{root} holds none of the {len(lists.train + lists.test)} videos of split {number} in {folder}"
        )
    return Split(
        dataset=root.name,
        number=number,
        actions=lists.actions,
        train=train,
        test=test,
        missing=tuple(_stem(row) for row in lists.train + lists.test if _key(row) not in files),
        extra=tuple(f"{path.parent.name}/{path.stem}" for key, path in files.items() if key not in listed),
    )


@dataclass(frozen=True)
class Contents:
    """What the folder of a data set holds, beside what its lists name."""

    videos: tuple[Video, ...]
    """Those that some split lists and that are there, in the order of the names."""
    missing: tuple[str, ...] = ()
    """Names that some list holds and the folder does not."""
    extra: tuple[str, ...] = ()
    """Names that the folder holds and no list does."""


def contents(root: Path) -> Contents:
    """All of the data set in `root`; class folders without lists lack nothing.

    Raises IfttnError as `read_split` does.
    """
    root = root.resolve()
    folder = _list_folder(root)
    if folder is None:
        return Contents(tuple(sorted(_plain_videos(root), key=lambda video: video.name)))
    files, videos, listed = _video_files(root), dict[str, Video](), dict[str, str]()
    for number in _numbers(folder) or (1,):
        lists = parse_lists(folder, number)
        videos |= {video.name: video for video in _present(lists, lists.rows, files)}
        listed |= {_key(row): _stem(row) for row in lists.rows}
    if not videos:
        raise IfttnError(f"{root} holds none of the videos that the lists in {folder} name")
    return Contents(
        videos=tuple(videos[name] for name in sorted(videos)),
        missing=tuple(sorted(name for key, name in listed.items() if key not in files)),
        extra=tuple(f"{path.parent.name}/{path.stem}" for key, path in files.items() if key not in listed),
    )


def all_videos(root: Path) -> tuple[Video, ...]:
    """Every video of the data set in `root` that some split lists and that exists, in the order of the names.

    Raises IfttnError as `read_split` does.
    """
    return contents(root).videos


def _check(number: int) -> None:
    if number not in (1, 2, 3):
        raise IfttnError(f"there is no split {number}: choose 1, 2 or 3")


def _lines(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    """("<file>, line <n>", match) of every line that is not blank."""
    if not path.is_file():
        raise IfttnError(f"the list {path} is not there")
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        text = os.fsdecode(line).strip()  # as the names of the files are, so that they meet
        where = f"{path}, line {number}"
        match = pattern.fullmatch(text)
        if match:
            yield where, match
        elif text:
            raise IfttnError(f"{where} cannot be read: {text!r}")


def _parse_ucf(folder: Path, number: int) -> Lists:
    classes = [(int(line["label"]), line["action"]) for _, line in _lines(folder / "classInd.txt", _CLASS_LINE)]
    if sorted(label for label, _ in classes) != list(range(1, len(classes) + 1)):
        raise IfttnError(f"the labels in {folder / 'classInd.txt'} do not run from 1 to {len(classes)}")
    actions = tuple(action for _, action in sorted(classes))
    train, test = (_ucf_rows(path, actions) for path in _ucf_lists(folder, number))
    return Lists(actions, train, test)


def _ucf_lists(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"trainlist0{number}.txt", folder / f"testlist0{number}.txt"


def _ucf_rows(path: Path, actions: tuple[str, ...]) -> tuple[str, ...]:
    # Copies of the lists disagree on the S of HandstandPushups, whose files are all v_HandStandPushups_*.
    labels = {action.casefold(): label for label, action in enumerate(actions)}
    rows = []
    for where, line in _lines(path, _UCF_LINE):
        label = labels.get(line["action"].casefold())
        if label is None:
            raise IfttnError(f"{where} names the class {line['action']!r}, which classInd.txt does not")
        if line["label"] and int(line["label"]) != label + 1:
            raise IfttnError(f"{where} gives {line['file']} the label {line['label']}; its class has {label + 1}")
        rows.append(f"{actions[label]}/{line['file']}")
    return tuple(rows)


def _parse_hmdb(folder: Path, number: int) -> Lists:
    # Other repositories number HMDB51's classes otherwise: never exchange weights without their list of actions.
    actions = sorted({match["action"] for match in _hmdb_lists(folder)})
    sides: dict[str, list[str]] = {"0": [], "1": [], "2": []}
    for action in actions:
        for _, line in _lines(folder / f"{action}_test_split{number}.txt", _HMDB_LINE):
            sides[line["side"]].append(f"{action}/{line['file']}")
    return Lists(tuple(actions), train=tuple(sides["1"]), test=tuple(sides["2"]), unused=tuple(sides["0"]))


def _hmdb_lists(folder: Path) -> list[re.Match[str]]:
    matches = (_HMDB_LIST.fullmatch(path.name) for path in folder.glob("*_test_split*.txt"))
    return [match for match in matches if match]


def _list_folder(root: Path) -> Path | None:
    if not root.is_dir():
        raise IfttnError(f"there is no folder {root}")
    folders = (root, *sorted(path for path in root.iterdir() if path.is_dir()))
    return next((folder for folder in folders if (folder / "classInd.txt").is_file() or _hmdb_lists(folder)), None)


def _numbers(folder: Path) -> list[int]:
    """The splits that the lists in `folder` give."""
    if (folder / "classInd.txt").is_file():
        return [number for number in (1, 2, 3) if all(path.is_file() for path in _ucf_lists(folder, number))]
    return sorted({int(match["number"]) for match in _hmdb_lists(folder)})


def _stem(row: str) -> str:
    return row.rpartition(".")[0]


def _key(row: str) -> str:
    """What finds a row's file in any case and with any suffix (a data set may have been re-encoded)."""
    return _stem(row).casefold()


def _is_video(path: Path) -> bool:
    return path.suffix[1:].lower() in SUFFIXES and not path.name.startswith(".")


def _video_files(root: Path) -> dict[str, Path]:
    """The videos of all class folders in `root` or one folder further down, by key."""
    paths = sorted(path for path in chain(root.glob("*/*"), root.glob("*/*/*")) if _is_video(path))
    files: dict[str, Path] = {}
    for path in paths:
        files.setdefault(_key(f"{path.parent.name}/{path.name}"), path)
    return files


def _present(lists: Lists, rows: tuple[str, ...], files: dict[str, Path]) -> tuple[Video, ...]:
    labels = {action: label for label, action in enumerate(lists.actions)}
    videos = []
    for row in rows:
        action = row.partition("/")[0]
        if path := files.get(_key(row)):
            videos.append(_video(path, _stem(row), action, labels[action]))
    return tuple(videos)


def _video(path: Path, name: str, action: str, label: int) -> Video:
    recording = re.match(r".*/.*_g\d+(?=_)", name)
    return Video(name, path, action, label, group=recording[0] if recording else name)


def _plain_videos(root: Path) -> tuple[Video, ...]:
    paths = sorted(path for path in root.glob("*/*") if _is_video(path) and not path.parent.name.startswith("."))
    if not paths:
        raise IfttnError(
            f"{root} is no data set: it needs UCF101's lists (ucfTrainTestlist/classInd.txt), HMDB51's "
            f"(<class>_test_split1.txt) or a folder of videos ({', '.join(SUFFIXES)}) for every class"
        )
    labels = {action: label for label, action in enumerate(sorted({path.parent.name for path in paths}))}
    videos = {}
    for path in paths:
        action = path.parent.name
        name = f"{action}/{path.stem}"
        if name in videos:
            raise IfttnError(f"{path} and {videos[name].path.name} would be one video: give them different names")
        videos[name] = _video(path, name, action, labels[action])
    return tuple(videos.values())


def _divide(root: Path, number: int) -> Split:
    videos = _plain_videos(root)
    tested = set()
    actions = tuple(sorted({video.action for video in videos}))
    for action in actions:
        groups = sorted({video.group for video in videos if video.action == action})
        if len(groups) < max(2, number):
            raise IfttnError(
                f"class {action!r} of {root} is too small to be divided: it has {len(groups)} group(s) of videos and "
                f"split {number} needs {max(2, number)} (videos with the same _g<nn>_ in their names are one group)"
            )
        tested |= set(groups[number - 1 :: 3])
    return Split(
        dataset=root.name,
        number=number,
        actions=actions,
        train=tuple(video for video in videos if video.group not in tested),
        test=tuple(video for video in videos if video.group in tested),
    )
