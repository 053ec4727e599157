"""Readers for the lists of UCF101, HMDB51, Something-Something, Jester, Diving48, Kinetics, and for lists as in TSN.

The first reader that finds its files in a folder reads the folder. UCF101 and HMDB51 have three splits. The other data
sets have one split, which is tested on the official validation set, because its labels are published.
"""

import csv
import difflib
import json
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ifttn.data.frame_folder import first_number, is_frame_folder
from ifttn.data.lists import SUFFIXES, Lists, Row, readable, spelling_key, text_lines
from ifttn.vocabulary import IfttnError

_FILE = rf"[^/]+\.(?:{'|'.join(SUFFIXES)})"
_CLASS_LINE = re.compile(r"(?P<label>\d+)\s+(?P<action>[^/]+)")
# UCF101's test lists have no labels. The folder of a file gives the action in both lists.
_UCF_LINE = re.compile(rf"(?P<action>[^/]+)/(?P<file>{_FILE})(?:\s+(?P<label>\d+))?", re.IGNORECASE)
_HMDB_LINE = re.compile(rf"(?P<file>{_FILE})\s+(?P<side>[012])", re.IGNORECASE)
_HMDB_LIST = re.compile(r"(?P<action>.+)_test_split(?P<number>[123])\.txt")
_SOMETHING_LIST = re.compile(r"(?P<set>something-something-v2-|)train\.json")
_JESTER_LIST = re.compile(r"(?P<set>(?:jester|something-something)-v1-)train\.csv")
_DIVING_LIST = re.compile(r"(?P<set>Diving48(?:_V\d)?_)train\.json")
_PLAIN_LIST = re.compile(r"(?P<before>.*?)(?:training|train)(?P<after>.*\.(?:csv|list|txt))")
_TESTED = ("val", "validate", "validation", "valid", "test", "testing")
"""Words that replace "train" in the name of a test list. The first word that exists counts."""
_LABEL_LIST = re.compile(r"(?:categor(?:y|ies)|class(?:es)?|labels?)(?:[_-].*)?\.txt", re.IGNORECASE)
_KINETICS_COLUMNS = ("label", "youtube_id", "time_start", "time_end")
MOST_CLASSES = 100_000
"""Limit of a label if no list names the classes. A larger label is a mistake."""
_FILE_ROW = re.compile(rf"(?P<path>.+\.(?:{'|'.join(SUFFIXES)}))(?:\s*,\s*|\s+)(?P<label>\d+)", re.IGNORECASE)


def parse_lists(folder: Path, number: int) -> Lists:
    """Read the lists of split `number` (1, 2 or 3) in `folder`, in the first format that fits.

    Raises:
        IfttnError: there is no such split, a list does not exist, a line cannot be read, or a video is listed twice.
    """
    check_number(number)
    names = os.listdir(folder)
    train, read = _single_split(names)
    if "classInd.txt" in names or not (train and read):
        lists = (_parse_ucf if "classInd.txt" in names else _parse_hmdb)(folder, number)
    elif number == 1:
        lists = read(folder, train)
    else:
        raise IfttnError(f"the lists in {folder} are split 1, and there is no split {number}")
    same_video: dict[str, list[str]] = {}
    for row in lists.rows:
        same_video.setdefault(spelling_key(lists.name(row)), []).append(row.path)
    for same in same_video.values():
        if len(same) > 1:
            raise IfttnError(
                f"the lists of split {number} in {folder} name one video {len(same)} times: {', '.join(same)}"
            )
    return lists


def has_lists(names: Collection[str]) -> bool:
    """Whether these names of files include the lists of a data set."""
    return "classInd.txt" in names or any(map(_HMDB_LIST.fullmatch, names)) or bool(_single_split(names)[0])


def numbers(folder: Path) -> list[int]:
    """The splits that the lists in `folder` define."""
    if (folder / "classInd.txt").is_file():
        return [number for number in (1, 2, 3) if all(path.is_file() for path in _ucf_lists(folder, number))]
    return sorted({int(match["number"]) for match in _hmdb_lists(folder)}) or [1]


def check_number(number: int) -> None:
    """Raise IfttnError if no data set has a split with this number."""
    if number not in (1, 2, 3):
        raise IfttnError(f"there is no split {number}: choose 1, 2 or 3")


def _matches(path: Path, pattern: re.Pattern[str]) -> Iterator[tuple[str, re.Match[str]]]:
    """("<file>, line <n>", match) of every line that is not blank. Raises IfttnError for a line that does not match."""
    for where, text in text_lines(path):
        match = pattern.fullmatch(text)
        if not match:
            raise IfttnError(f"{where} cannot be read: {text!r}")
        yield where, match


def _label(where: str, action: str, labels: Mapping[str, int], source: str) -> int:
    """The label of an action in any spelling. Raises IfttnError if `source` does not name the action."""
    label = labels.get(spelling_key(action))
    if label is None:
        close = difflib.get_close_matches(spelling_key(action), labels, 3)
        choices = f"; similar names: {', '.join(close)}" if close else ""
        raise IfttnError(f"{where} names the class {action!r}, but {source} does not{choices}")
    return label


def _labels(actions: Sequence[str], path: Path) -> dict[str, int]:
    """Spelling key -> label of each action. Raises IfttnError if the list at `path` names an action twice."""
    labels = {spelling_key(action): label for label, action in enumerate(actions)}
    if len(labels) < len(actions):
        twice = next(action for label, action in enumerate(actions) if labels[spelling_key(action)] != label)
        raise IfttnError(f"{path} names the class {twice!r} twice")
    return labels


# UCF101 and HMDB51


def _parse_ucf(folder: Path, number: int) -> Lists:
    classes = [(int(line["label"]), line["action"]) for _, line in _matches(folder / "classInd.txt", _CLASS_LINE)]
    if sorted(label for label, _ in classes) != list(range(1, len(classes) + 1)):
        raise IfttnError(f"the labels in {folder / 'classInd.txt'} are not the numbers from 1 to {len(classes)}")
    actions = tuple(readable(action) for _, action in sorted(classes))
    train, test = (_ucf_rows(path, actions) for path in _ucf_lists(folder, number))
    return Lists(actions, train, test)


def _ucf_lists(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"trainlist0{number}.txt", folder / f"testlist0{number}.txt"


def _ucf_rows(path: Path, actions: tuple[str, ...]) -> tuple[Row, ...]:
    # Copies of the lists spell HandstandPushups in two ways. Its files are all named v_HandStandPushups_*.
    labels = {spelling_key(action): label for label, action in enumerate(actions)}
    rows = []
    for where, line in _matches(path, _UCF_LINE):
        label = _label(where, line["action"], labels, "classInd.txt")
        if line["label"] and int(line["label"]) != label + 1:
            raise IfttnError(
                f"{where} gives {line['file']} the label {line['label']}, but its class has the label {label + 1}"
            )
        rows.append(Row(f"{actions[label]}/{line['file']}", label))
    return tuple(rows)


def _parse_hmdb(folder: Path, number: int) -> Lists:
    # Other repositories number HMDB51's classes in another order. Weights need their list of actions.
    names = {readable(name): name for name in sorted({match["action"] for match in _hmdb_lists(folder)})}
    sides: dict[str, list[Row]] = {"0": [], "1": [], "2": []}
    for label, (action, name) in enumerate(names.items()):
        for _, line in _matches(folder / f"{name}_test_split{number}.txt", _HMDB_LINE):
            sides[line["side"]].append(Row(f"{action}/{line['file']}", label))
    return Lists(tuple(names), train=tuple(sides["1"]), test=tuple(sides["2"]), unused=tuple(sides["0"]))


def _hmdb_lists(folder: Path) -> list[re.Match[str]]:
    matches = (_HMDB_LIST.fullmatch(path.name) for path in folder.glob("*_test_split*.txt"))
    return [match for match in matches if match]


# Data sets of one split


def _single_split(names: Collection[str]) -> tuple[str, Callable[[Path, str], Lists] | None]:
    """The training list among the files of a folder, and its reader; ("", None) if there is no training list."""
    if any(map(_HMDB_LIST.fullmatch, names)):
        return "", None
    for pattern, other, read in (
        (_SOMETHING_LIST, "{}labels.json", _parse_something),
        (_JESTER_LIST, "{}labels.csv", _parse_jester),
        (_DIVING_LIST, "{}test.json", _parse_diving),
    ):
        for name in sorted(names):
            if (match := pattern.fullmatch(name)) and other.format(match["set"]) in names:
                return name, read
    plain = sorted(name for name in names if _tested_beside(name, names))
    return (plain[0], _parse_plain) if plain else ("", None)


def _parse_something(folder: Path, train: str) -> Lists:
    """Something-Something V2: JSON. The class is the template without brackets."""
    prefix = train.removesuffix("train.json")
    path = folder / f"{prefix}labels.json"
    classes = _json(path)
    try:
        actions = [readable(action) for action in sorted(classes, key=lambda action: int(classes[action]))]
        are_counted = sorted(map(int, classes.values())) == list(range(len(actions)))
    except (AttributeError, TypeError, ValueError):
        raise IfttnError(f'{path} is not a list of classes: it needs {{"<class>": "<label>", ...}}') from None
    if not are_counted:
        raise IfttnError(f"the labels in {path} are not the numbers from 0 to {len(actions) - 1}")
    labels, sides = _labels(actions, path), []
    for side in ("train", "validation"):
        rows = []
        for where, (name, template) in _entries(folder / f"{prefix}{side}.json", "id", "template"):
            action = str(template).replace("[", "").replace("]", "")
            rows.append(Row(_single_name(name, where), _label(where, action, labels, path.name)))
        sides.append(tuple(rows))
    tested = folder / f"{prefix}test.json"
    names = [str(name) for (name,) in _json(tested, "id")] if tested.is_file() else []
    return _with_unlabelled(Lists(tuple(actions), *sides), tested, names)


def _parse_jester(folder: Path, train: str) -> Lists:
    """Jester and Something-Something V1: `<id>;<class>`."""
    prefix = train.removesuffix("train.csv")
    path = folder / f"{prefix}labels.csv"
    actions = [readable(text) for _, text in text_lines(path)]
    labels, sides = _labels(actions, path), []
    for side in ("train", "validation"):
        rows = []
        for where, text in text_lines(folder / f"{prefix}{side}.csv"):
            name, separator, action = text.partition(";")
            if not separator:
                raise IfttnError(f"{where} cannot be read: {text!r}; it needs <id>;<class>")
            rows.append(Row(_single_name(name, where), _label(where, action.strip(), labels, path.name)))
        sides.append(tuple(rows))
    tested = folder / f"{prefix}test.csv"
    names = [text.partition(";")[0] for _, text in text_lines(tested)] if tested.is_file() else []
    return _with_unlabelled(Lists(tuple(actions), *sides), tested, names)


def _with_unlabelled(lists: Lists, path: Path, names: Sequence[str]) -> Lists:
    """The lists, with the videos of an official test list without labels."""
    note = f"{path.name}: its {len(names)} videos have no published labels; train and validation are used"
    return replace(lists, unlabelled=tuple(names), notes=(note,)) if names else lists


def _parse_diving(folder: Path, train: str) -> Lists:
    """Diving48: JSON. The class is the entry of the vocabulary, or the label if there is no vocabulary."""
    vocabulary = next(iter(sorted(folder.glob("Diving48*vocab*.json"))), None)
    actions = [" ".join(map(str, words)) for words in _json(vocabulary)] if vocabulary else []
    sides, later = [], 0
    for name in (train, train.replace("train", "test")):
        rows = []
        for where, (video, label, first) in _entries(folder / name, "vid_name", "label", "start_frame"):
            rows.append(Row(_single_name(video, where), _number(where, label, actions, vocabulary)))
            later += bool(first)
        sides.append(tuple(rows))
    notes = (f"start_frame of {later} videos: the whole file is read",) if later else ()
    return Lists(tuple(actions) or _numbered(sides), *sides, notes=notes)


def _number(where: str, label: object, actions: Sequence[str], source: Path | None) -> int:
    """A label as a number from 0. Raises IfttnError for any other label."""
    count = len(actions) or MOST_CLASSES
    if str(label).isdecimal() and int(str(label)) < count:
        return int(str(label))
    raise IfttnError(
        f"{where} has the label {label!r}: choose 0 to {count - 1}"
        + (f", because {source.name} has {count} classes" if source else "")
    )


def _numbered(sides: Iterable[Iterable[Row]]) -> tuple[str, ...]:
    """The labels from 0 to the largest label, as names of actions."""
    return tuple(map(str, range(1 + max((row.label for side in sides for row in side), default=-1))))


def _json(path: Path, *keys: str) -> Any:
    """The content of a JSON file. If `keys` are given, each JSON object becomes a tuple of their values."""
    if not path.is_file():
        raise IfttnError(f"the list {path} does not exist")
    compact = (lambda entry: tuple(entry.get(key) for key in keys)) if keys else None
    try:
        return json.loads(path.read_bytes(), object_hook=compact)
    except json.JSONDecodeError as error:
        raise IfttnError(f"{path}, line {error.lineno} cannot be read: it is not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise IfttnError(f"{path} cannot be read: byte {error.start} is not {error.encoding}") from error


def _entries(path: Path, *keys: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """("<file>, entry <n>", values of `keys`) of every video of a JSON list."""
    entries = _json(path, *keys)
    if not isinstance(entries, list):
        raise IfttnError(f"{path} is not a list of videos: it needs [{{{', '.join(map(repr, keys))}}}, ...]")
    for number, entry in enumerate(entries, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(entry, tuple) or None in entry[:2]:
            raise IfttnError(f"{where} cannot be read: it needs {' and '.join(keys[:2])}")
        yield where, entry


def _single_name(name: object, where: str) -> str:
    """The name of a video. Raises IfttnError if it is a path and not a name."""
    if not isinstance(name, str | int) or str(name) in ("", ".", "..") or re.search(r"[/\\\0]", str(name)):
        raise IfttnError(f"{where} names the video {name!r}, which is not the name of a file")
    return str(name)


# Kinetics, and lists of paths


def _tested_beside(train: str, names: Collection[str]) -> str | None:
    """The test list that belongs to a training list; None if `names` has no such list."""
    match = _PLAIN_LIST.fullmatch(train)
    beside = (f"{match['before']}{word}{match['after']}" for word in _TESTED) if match else ()
    return next((name for name in beside if name in names), None)


def _parse_plain(folder: Path, train: str) -> Lists:
    names = os.listdir(folder)
    lists = sorted(name for name in names if _tested_beside(name, names))
    if len(lists) > 1:
        raise IfttnError(f"{folder} has lists of several splits: {', '.join(lists)}; keep only the lists of one split")
    paths = folder / train, folder / str(_tested_beside(train, names))
    _, first = next(text_lines(paths[0]), ("", ""))
    if set(_KINETICS_COLUMNS) <= set(first.replace('"', "").split(",")):
        return _kinetics(*paths)
    source = next((folder / name for name in sorted(names) if _LABEL_LIST.fullmatch(name)), None)
    actions = [readable(text) for _, text in text_lines(source)] if source else []
    if source:
        _labels(actions, source)
    sides = []
    for path in paths:
        rows = []
        for where, text in text_lines(path):
            name, label, first = _plain_row(where, text)
            if first > 1 and not _begins_at(first, _inside(name, where, folder), folder):
                raise IfttnError(f"{where} begins at frame {first} of {name}: give each video its own folder")
            rows.append(Row(_inside(name, where, folder), _number(where, label, actions, source)))
        sides.append(tuple(rows))
    return Lists(tuple(actions) or _folders_of_labels(sides) or _numbered(sides), *sides)


def _kinetics(train: Path, test: Path) -> Lists:
    """`label,youtube_id,time_start,time_end,split`. The classes are those of the training list, sorted."""
    sides = [list(_kinetics_rows(path)) for path in (train, test)]
    actions = sorted({action for _, _, action in sides[0]})
    labels = _labels(actions, train)
    rows = [[Row(name, _label(where, action, labels, train.name)) for where, name, action in side] for side in sides]
    return Lists(tuple(actions), tuple(rows[0]), tuple(rows[1]))


def _kinetics_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    """The place of each row, its file without the suffix, and its action."""
    header: list[str] = []
    for where, text in text_lines(path):
        fields = next(csv.reader([text]))
        if not header:
            header = fields
            if absent := [column for column in _KINETICS_COLUMNS if column not in header]:
                raise IfttnError(f"{where} has no column {', '.join(absent)}")
            continue
        row = dict(zip(header, fields, strict=False))
        try:
            begin, end = (int(float(row[column])) for column in ("time_start", "time_end"))
        except (KeyError, ValueError):
            begin = end = -1
        if len(fields) != len(header) or begin < 0:
            raise IfttnError(f"{where} cannot be read: {text!r}; it needs {','.join(header)}")
        yield where, f"{_single_name(row['youtube_id'], where)}_{begin:06}_{end:06}", readable(row["label"])


def _begins_at(first: int, path: str, folder: Path) -> bool:
    """Whether the numbers of a folder's images begin at `first`. Then the row means the complete folder."""
    found = next((each / path for each in (folder, folder.parent) if is_frame_folder(each / path)), None)
    return found is not None and first_number(found) == first


def _plain_row(where: str, text: str) -> tuple[str, str, int]:
    """The path, the label and the first frame (1 if it is not given) of a row: `path label`, `folder frames label` or
    `folder first frames label`, separated by commas or blanks."""
    if match := _FILE_ROW.fullmatch(text):
        return match["path"], match["label"], 1
    path, *counts = re.split(r"\s*,\s*" if "," in text else r"\s+", text)
    if not 1 <= len(counts) <= 3 or not all(map(str.isdecimal, counts)):
        raise IfttnError(f"{where} cannot be read: {text!r}; it needs <path> <label> or <folder> <frames> <label>")
    return path, counts[-1], int(counts[0]) if len(counts) == 3 else 1


def _inside(path: str, where: str, folder: Path) -> str:
    """A path relative to the folder of the lists or to the folder above. Raises IfttnError for a path to elsewhere."""
    if Path(path).is_absolute():
        above = next((each for each in (folder, folder.parent) if Path(path).is_relative_to(each)), None)
        if above is None:
            raise IfttnError(f"{where} names {path}, outside the data set: write paths relative to its folder")
        path = Path(path).relative_to(above).as_posix()
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise IfttnError(f"{where} names {path}, which is outside the data set")
    return "/".join(parts)


def _folders_of_labels(sides: Iterable[Iterable[Row]]) -> tuple[str, ...]:
    """The name of the folder that holds the videos of each label; () if a label has no folder or several."""
    folders: dict[int, set[str]] = {}
    for path, label in (row for side in sides for row in side):
        folders.setdefault(label, set()).add(readable("".join(path.split("/")[-2:-1])))
    names = [name for label in sorted(folders) for name in folders[label]]
    are_clear = sorted(folders) == list(range(len(names))) and len(set(names)) == len(names) and all(names)
    return tuple(names) if are_clear else ()
