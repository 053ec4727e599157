"""Which videos a data set has, and which of them a split trains on and tests on.

Layouts: UCF101 (`<Class>/*.avi`, lists in `ucfTrainTestlist/`), HMDB51 (`<class>/*.avi`, a
`<class>_test_split<n>.txt` for every class and split), and class folders without lists, either alone or below folders
of the sides (`train/<class>/`, `val/<class>/`, `test/<class>/`). The class folders and the folder of the lists are in
the root or one folder further down (`UCF-101/`, `testTrainMulti_7030_splits/`).
"""

import filecmp
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ifttn.data.lists import (
    SUFFIXES,
    Lists,
    check_number,
    has_lists,
    numbers,
    parse_lists,
    readable,
    row_key,
    row_name,
    spelling_key,
)
from ifttn.vocabulary import IfttnError, Split, Video

_SYSTEM = ("lost+found", "__macosx", "$recycle.bin", "system volume information", "@eadir")
"""Folders of file systems and archives, in lower case; they are no classes."""
_SIDES = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
_ALONE = "a class needs two videos to be trained and tested on (videos with one _g<nn>_ in their names count as one)"


@dataclass(frozen=True)
class Contents:
    """All videos of a data set, whatever split they are in."""

    videos: tuple[Video, ...]
    """Those that some split lists and that are there, in the order of the names."""
    missing: tuple[str, ...] = ()
    """Names that some list holds and the folder does not."""
    extra: tuple[str, ...] = ()
    """Names that the folder holds and no list does."""
    notes: tuple[str, ...] = ()
    """A line for each other thing in the folder that is left out: "<name>: <reason>"."""


def read_split(root: Path, number: int = 1) -> Split:
    """Split `number` (1, 2 or 3) of the data set in `root`, which gives it its name; labels from 0.

    Class folders without lists are divided by group ("_g07_" in a file's name, else every video is its own): group i of
    a class, in the order of the names, is tested in the split number i % 3 + 1 and trained on in the others. A class of
    one group is left out. Folders `train` and `test` (or `val`) are split 1, and the only one.

    Raises:
        IfttnError: a folder of another layout, a list that cannot be read, lists whose videos are all missing, or class
            folders that do not give this split.
    """
    check_number(number)
    top = _Folder(root.resolve())
    folder = _list_folder(top)
    if folder:
        return _listed(top, folder, number)
    sides, notes = _class_folders(top)
    if "" in sides:
        return _divided(top.path, sides[""], number, notes)
    return _sided(top.path, sides, number, notes)


def split_numbers(root: Path) -> tuple[int, ...]:
    """Those of the splits 1, 2 and 3 that the data set in `root` has: lists of both sides, or a class of enough groups.

    Raises:
        IfttnError: a folder of another layout.
    """
    top = _Folder(root.resolve())
    folder = _list_folder(top)
    if folder:
        return tuple(n for n, lists in _read_lists(folder).items() if lists.train and lists.test)
    groups = _groups(_class_folders(top)[0].get("", ()))
    return tuple(range(1, 1 + min(3, max(map(len, groups.values()), default=1))))


def contents(root: Path) -> Contents:
    """All of the data set in `root`; class folders without lists lack nothing.

    Raises:
        IfttnError: as of `read_split`.
    """
    top = _Folder(root.resolve())
    folder = _list_folder(top)
    if not folder:
        sides, notes = _class_folders(top)
        found = sorted((video for videos in sides.values() for video in videos), key=lambda video: video.name)
        return Contents(tuple(found), notes=tuple(notes))
    files, notes = _listed_files(top, folder)
    videos, names = dict[str, Video](), dict[str, str]()
    for lists in (_read_lists(folder) or _read_lists(folder, 1)).values():
        videos |= {video.name: video for video in _present(lists, lists.rows, files)}
        names |= {row_key(row): row_name(row) for row in lists.rows}
    if not videos:
        raise IfttnError(f"{top.path} holds none of the videos that the lists in {folder} name")
    return Contents(
        videos=tuple(videos[name] for name in sorted(videos)),
        missing=tuple(sorted(name for each, name in names.items() if each not in files)),
        extra=_extra(files, names.keys()),
        notes=tuple(notes),
    )


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, tuple[Video, ...]]:
    """The split with fewer videos to train on, and those that were taken from it: whole groups, of every action.

    Args:
        split: an official one; its test videos stay as they are.
        share: of each action's training videos, about, in 0..1; an action keeps at least one group.
        seed: of the choice.

    Raises:
        IfttnError: the share is outside 0..1, or nothing can be taken.
    """
    if not 0 < share < 1:
        raise IfttnError(f"a hold-out of {share}: choose more than 0 and less than 1")
    rng = np.random.default_rng((seed, 3))
    held: set[str] = set()
    for label in range(len(split.actions)):
        videos = [video for video in split.train if video.label == label]
        groups = [str(group) for group in rng.permutation(sorted({video.group for video in videos}))]
        taken: set[str] = set()
        for group in groups[:-1]:
            if sum(video.group in taken for video in videos) < round(share * len(videos)):
                taken.add(group)
        held |= {video.name for video in videos if video.group in taken}
    if not held:
        raise IfttnError(f"a hold-out of {share} takes no group of any action: choose a larger share")
    rest = tuple(video for video in split.train if video.name not in held)
    return replace(split, train=rest), tuple(video for video in split.train if video.name in held)


class _Folder:
    """A folder, listed once, without hidden files and those of the system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def listed(self) -> tuple[list["_Folder"], list[Path]] | None:
        """The folders and the files in it, in the order of the names; None: it may not be read."""
        folders, files = [], []
        try:
            with os.scandir(self.path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM:
                        continue
                    path = self.path / entry.name
                    if entry.is_dir():
                        folders.append(_Folder(path))
                    else:
                        files.append(path)
        except PermissionError:
            return None
        return folders, files

    @property
    def folders(self) -> list["_Folder"]:
        return self.listed[0] if self.listed else []

    @property
    def files(self) -> list[Path]:
        return self.listed[1] if self.listed else []

    @property
    def videos(self) -> list[Path]:
        return [path for path in self.files if _is_video(path)]

    @property
    def classes(self) -> list["_Folder"]:
        """The folders in it that hold videos."""
        return [folder for folder in self.folders if folder.videos]


def _is_video(path: Path) -> bool:
    return path.suffix[1:].lower() in SUFFIXES


def _gather(root: Path, folders: Iterable[_Folder]) -> tuple[dict[str, Path], list[str]]:
    """The videos in class folders by key, and a line for each other thing that is there."""
    files, others, notes = dict[str, Path](), dict[str, list[Path]](), list[str]()
    for path in sorted(path for folder in folders for path in folder.files):
        if not _is_video(path):
            others.setdefault(path.suffix, []).append(path)
            continue
        first = files.setdefault(row_key(f"{path.parent.name}/{path.name}"), path)
        if first is not path:
            notes.append(f"{_below(root, path)}: {_below(root, first)} has the same name")
    for suffix, paths in others.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        kind = f"{suffix} is no type of video" if suffix else "a name without a suffix tells no type of video"
        notes.append(f"{_below(root, paths[0])}{more}: {kind}")
    return files, notes


def _below(root: Path, path: Path) -> str:
    return readable(str(path.relative_to(root)))


def _video(path: Path, name: str, action: str, label: int) -> Video:
    recording = re.match(r".*/.*_g\d+(?=_)", name)
    return Video(name, path, action, label, group=recording[0] if recording else name)


# Data sets with lists


def _list_folder(root: _Folder) -> Path | None:
    if not root.path.is_dir():
        raise IfttnError(f"there is no folder {root.path}")
    folders = (root, *root.folders)
    return next((each.path for each in folders if has_lists(path.name for path in each.files)), None)


def _read_lists(folder: Path, *also: int) -> dict[int, Lists]:
    """The lists of each split that the folder has, and of those numbers."""
    return {number: parse_lists(folder, number) for number in sorted({*numbers(folder), *also})}


def _listed_files(root: _Folder, lists: Path) -> tuple[dict[str, Path], list[str]]:
    """`_gather` of the class folders, in the root or one folder further down."""
    folders = (each for top in root.folders if top.path != lists for each in (top, *top.folders))
    return _gather(root.path, (folder for folder in folders if folder.videos))


def _listed(root: _Folder, folder: Path, number: int) -> Split:
    every = _read_lists(folder, number)
    lists, (files, notes) = every[number], _listed_files(root, folder)
    train, test = _present(lists, lists.train, files), _present(lists, lists.test, files)
    rows = lists.train + lists.test
    if not train and not test:
        raise IfttnError(f"{root.path} holds none of the {len(rows)} videos of split {number} in {folder}")
    return Split(
        dataset=root.path.name,
        number=number,
        actions=lists.actions,
        train=train,
        test=test,
        missing=tuple(row_name(row) for row in rows if row_key(row) not in files),
        extra=_extra(files, {row_key(row) for each in every.values() for row in each.rows}),
        notes=tuple(notes),
    )


def _present(lists: Lists, rows: Sequence[str], files: Mapping[str, Path]) -> tuple[Video, ...]:
    labels = {action: label for label, action in enumerate(lists.actions)}
    videos = []
    for row in rows:
        action = row.partition("/")[0]
        if path := files.get(row_key(row)):
            videos.append(_video(path, row_name(row), action, labels[action]))
    return tuple(videos)


def _extra(files: Mapping[str, Path], listed: Iterable[str]) -> tuple[str, ...]:
    return tuple(row_name("/".join(files[key].parts[-2:])) for key in files if key not in listed)


# Class folders without lists


def _class_folders(root: _Folder) -> tuple[dict[str, list[Video]], list[str]]:
    """The videos by side ("" where there are no sides), and a line for each thing that is left out.

    Raises IfttnError for a folder of another layout.
    """
    sides = _side_folders(root)
    notes = list(_left_out(root, list(sides.values())))
    train_last = sorted(sides, key=lambda side: side == "train")
    found = [folder.path.name for side in train_last for folder in reversed(sides[side].classes)]
    actions = {spelling_key(name): readable(name) for name in found}  # of two spellings, that of train and the first
    labels = {action: label for label, action in enumerate(sorted(actions.values()))}
    videos: dict[str, list[Video]] = {}
    for side, parent in sides.items():
        files, others = _gather(root.path, parent.classes)
        notes += others
        for path in files.values():
            action = actions[spelling_key(path.parent.name)]
            name = row_name("/".join(path.parts[-3 if side else -2 :]))
            videos.setdefault(side, []).append(_video(path, name, action, labels[action]))
    return videos, notes


def _side_folders(root: _Folder) -> dict[str, _Folder]:
    """The folder of the class folders of each side, or of all of them ("")."""
    base = root
    while not base.classes:
        inside = [folder for folder in base.folders if folder.classes]
        sides = {side: folder for folder in inside if (side := _SIDES.get(folder.path.name.casefold()))}
        if "train" in sides and len(sides) > 1:
            return sides
        if len(inside) > 1:
            names = ", ".join(folder.path.name for folder in inside)
            raise IfttnError(f"{root.path} holds class folders in each of {names}: name one of them")
        if len(inside or base.folders) != 1:
            raise IfttnError(
                f"{root.path} is no data set: it needs UCF101's lists (ucfTrainTestlist/classInd.txt), HMDB51's "
                "(<class>_test_split1.txt) or a folder of videos (.mp4, .avi and whatever else FFmpeg reads) for every "
                "class"
            )
        (base,) = inside or base.folders
    return {"": base}


def _left_out(root: _Folder, parents: Sequence[_Folder]) -> Iterator[str]:
    """A line for each folder that is no class, and for each video that is in no class folder."""
    loose = list(root.videos)
    for parent in parents:
        loose += parent.videos if parent is not root else []
        for folder in parent.folders:
            loose += [path for deeper in folder.folders for path in deeper.videos]
            if folder.listed is None:
                yield f"{_below(root.path, folder.path)}: it may not be read (permission denied)"
            elif not folder.videos:
                yield f"{_below(root.path, folder.path)}: it holds no video"
    for path in loose:
        yield f"{_below(root.path, path)}: it does not stand in the folder of a class"


def _groups(videos: Iterable[Video]) -> dict[str, list[str]]:
    """The groups of each action, sorted."""
    groups: dict[str, set[str]] = {}
    for video in videos:
        groups.setdefault(video.action, set()).add(video.group)
    return {action: sorted(own) for action, own in groups.items()}


def _divided(root: Path, videos: Sequence[Video], number: int, notes: Sequence[str]) -> Split:
    """Class folders by group. A class of one group cannot be tested on other recordings than it is trained on."""
    groups = _groups(videos)
    kept = {action: own for action, own in groups.items() if len(own) > 1}
    notes = [*notes, *(f"{action}: {_ALONE}" for action in groups if action not in kept)]
    if not kept:
        raise IfttnError(f"no class of {root} can be divided: {_ALONE}")
    tested = {group for own in kept.values() for group in own[number - 1 :: 3]}
    if not tested:
        raise IfttnError(f"split {number} of {root} tests the third group of each class, and no class has three")
    train = [video for video in videos if video.group not in tested]
    return _relabelled(root, number, kept, train, [video for video in videos if video.group in tested], notes)


def _sided(root: Path, sides: Mapping[str, list[Video]], number: int, notes: list[str]) -> Split:
    """Class folders below the folders of the sides; `val` is tested where there is no `test`, and else unused."""
    if number != 1:
        raise IfttnError(f"the folders {', '.join(sides)} of {root} are split 1, and there is no split {number}")
    if "test" in sides and "val" in sides:
        notes.append(f"val: its {len(sides['val'])} videos are not tested on, because there is a folder test")

    def name_below_side(video: Video) -> str:
        return spelling_key(video.name.partition("/")[2])

    train, test = sides["train"], []
    trained, twins = {video.action for video in train}, {name_below_side(video): video for video in train}
    for video in sides.get("test") or sides["val"]:
        twin = twins.get(name_below_side(video))
        if video.action not in trained:
            notes.append(f"{video.name}: no video of its class is trained on")
        elif twin and filecmp.cmp(twin.path, video.path, shallow=False):
            notes.append(f"{video.name}: it is the same file as {twin.name}")
        else:
            test.append(video)
    return _relabelled(root, number, trained, train, test, notes)


def _relabelled(
    root: Path, number: int, kept: Iterable[str], train: list[Video], test: list[Video], notes: Iterable[str]
) -> Split:
    """A split of the classes that are kept, labels from 0."""
    labels = {action: label for label, action in enumerate(sorted(kept))}

    def own(videos: list[Video]) -> tuple[Video, ...]:
        return tuple(replace(video, label=labels[video.action]) for video in videos if video.action in labels)

    return Split(root.name, number, tuple(labels), own(train), own(test), notes=tuple(notes))
