"""The videos of a data set, and the training and test videos of each split.

A data set has lists in a format of `list_formats`, or class folders without lists. Class folders are in one folder, or
in a folder for each side (`train/<class>/`, `val/<class>/`, `test/<class>/`). The class folders and the folder of the
lists are in the root or one folder below it (`UCF-101/`, `testTrainMulti_7030_splits/`). A video is a file, or a
folder of numbered images.
"""

import filecmp
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ifttn.data.folders import Folder, below_root, gather, is_video
from ifttn.data.list_formats import check_number, has_lists, numbers, parse_lists
from ifttn.data.lists import Lists, Row, readable, row_key, row_name, spelling_key
from ifttn.vocabulary import IfttnError, Split, Video

_SIDES = {
    "train": "train", "training": "train",
    "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val",
}  # fmt: skip
_ALONE = "a class needs two videos, for training and for testing (videos with the same _g<nn>_ in their names are one)"


@dataclass(frozen=True)
class Contents:
    """All videos of a data set, over all splits."""

    videos: tuple[Video, ...]
    """The videos that a list names and that exist, sorted by name."""
    missing: tuple[str, ...] = ()
    """Names in a list without a video in the folder."""
    extra: tuple[str, ...] = ()
    """Names of videos in the folder that are in no list."""
    notes: tuple[str, ...] = ()
    """A line for everything else in the folder that is not used: "<name>: <reason>"."""


def read_split(root: Path, number: int = 1) -> Split:
    """Split `number` (1, 2 or 3) of the data set in `root`. The folder gives its name; labels count from 0.

    Class folders without lists are divided by group: "_g07_" in a file's name, or each video by itself. Group i of a
    class, sorted by name, is tested in split number i % 3 + 1 and is trained on in the other splits. A class with one
    group is not used. Folders `train` and `test` (or `val`) form split 1, the only split.

    Raises:
        IfttnError: the folder has another layout, a list cannot be read, all listed videos are missing, or the class
            folders do not have this split.
    """
    check_number(number)
    top = Folder(root.resolve())
    folder = _list_folder(top)
    if folder:
        return _listed(top, folder, number)
    sides, notes = _class_folders(top)
    if "" in sides:
        return _divided(top.path, sides[""], number, notes)
    return _sided(top.path, sides, number, notes)


def split_numbers(root: Path) -> tuple[int, ...]:
    """The splits (of 1, 2 and 3) of the data set in `root` that have lists of both sides, or a class of enough groups.

    Raises:
        IfttnError: the folder has another layout.
    """
    top = Folder(root.resolve())
    folder = _list_folder(top)
    if folder:
        return tuple(n for n, lists in _read_lists(folder).items() if lists.train and lists.test)
    groups = _groups(_class_folders(top)[0].get("", ()))
    return tuple(range(1, 1 + min(3, max(map(len, groups.values()), default=1))))


def contents(root: Path) -> Contents:
    """All videos of the data set in `root`. Without lists, no video can be missing.

    Raises:
        IfttnError: see `read_split`.
    """
    top = Folder(root.resolve())
    folder = _list_folder(top)
    if not folder:
        sides, notes = _class_folders(top)
        found = sorted((video for videos in sides.values() for video in videos), key=lambda video: video.name)
        return Contents(tuple(found), notes=tuple(notes))
    every = (_read_lists(folder) or _read_lists(folder, 1)).values()
    found, videos = _Found(top, every), dict[str, Video]()
    for lists in every:
        videos |= {video.name: video for video in found.present(lists, lists.rows)}
    if not videos:
        raise IfttnError(f"{top.path} holds no video of the lists in {folder}")
    return Contents(
        videos=tuple(videos[name] for name in sorted(videos)),
        missing=tuple(sorted(name for key, name in found.names.items() if key not in found.files)),
        extra=found.extra,
        notes=found.notes,
    )


def hold_out(split: Split, share: float, seed: int) -> tuple[Split, tuple[Video, ...]]:
    """The split with fewer training videos, and the videos that are held out: complete groups of every action.

    Args:
        split: an official split. Its test videos do not change.
        share: approximate share of the training videos of each action, in 0..1. An action keeps at least one group.
        seed: seed of the random choice.

    Raises:
        IfttnError: the share is outside 0..1, or no group can be held out.
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


def _video(path: Path, name: str, action: str, label: int) -> Video:
    recording = re.match(r".*/.*_g\d+(?=_)", name)
    return Video(name, path, action, label, group=recording[0] if recording else name)


# Data sets with lists


def _list_folder(root: Folder) -> Path | None:
    if not root.path.is_dir():
        raise IfttnError(f"there is no folder {root.path}")
    folders = (root, *root.folders)
    return next((each.path for each in folders if has_lists([path.name for path in each.files])), None)


def _read_lists(folder: Path, *also: int) -> dict[int, Lists]:
    """The lists of each split in the folder, and of the splits in `also`."""
    return {number: parse_lists(folder, number) for number in sorted({*numbers(folder), *also})}


def _listed(root: Folder, folder: Path, number: int) -> Split:
    every = _read_lists(folder, number)
    lists, found = every[number], _Found(root, every.values())
    train, test = found.present(lists, lists.train), found.present(lists, lists.test)
    rows = lists.train + lists.test
    if not train and not test:
        raise IfttnError(f"{root.path} holds none of the {len(rows)} videos of split {number} in {folder}")
    return Split(
        dataset=root.path.name,
        number=number,
        actions=lists.actions,
        train=train,
        test=test,
        missing=tuple(lists.name(row) for row in rows if row_key(row.path) not in found.files),
        extra=found.extra,
        notes=found.notes,
    )


class _Found:
    """The videos below `root`, found for the rows of the lists.

    A row names a file or a folder by the end of its path. It may be in the root or a few folders below it.
    """

    def __init__(self, root: Folder, every: Collection[Lists]) -> None:
        self.names = {row_key(row.path): lists.name(row) for lists in every for row in lists.rows}
        """Key of a row -> name of its video."""
        lengths = {row.path.count("/") + 1 for lists in every for row in lists.rows}
        self._root, self._lengths = root, sorted(lengths, reverse=True) or [1]
        folders = list(self._folders(root, max(2, self._lengths[0])))
        videos, others = ([path for folder in folders for path in folder[kind]] for kind in (0, 1))
        self.files, notes = gather(root.path, videos, others, self._key)
        self.notes = (*notes, *dict.fromkeys(note for lists in every for note in lists.notes))
        known = self.names.keys() | {row_key(name) for lists in every for name in lists.unlabelled}
        unlisted = (self._parts(path) for key, path in self.files.items() if key not in known)
        self.extra = tuple(row_name("/".join(parts[-self._lengths[0] :])) for parts in unlisted)

    def present(self, lists: Lists, rows: Sequence[Row]) -> tuple[Video, ...]:
        """The videos of these rows that exist."""
        found = ((row, self.files.get(row_key(row.path))) for row in rows)
        return tuple(_video(path, lists.name(row), lists.actions[row.label], row.label) for row, path in found if path)

    def _folders(self, folder: Folder, levels: int) -> Iterator[tuple[list[Path], list[Path]]]:
        """The videos and the other files of each folder with videos, down to `levels` levels below `folder`."""
        frames, deeper = list[Path](), list[Folder]()
        for each in folder.folders:
            # A folder that a row names is not opened here: a data set may have hundreds of thousands.
            is_named = not is_video(each.path) and self._key(each.path) in self.names
            if is_named or each.is_frames:
                frames.append(each.path)
            else:
                deeper.append(each)
        videos = [path for path in folder.files if is_video(path)] + frames
        if videos:
            yield videos, [path for path in folder.files if not is_video(path) and folder is not self._root]
        for each in deeper if levels else ():
            yield from self._folders(each, levels - 1)

    def _parts(self, path: Path) -> tuple[str, ...]:
        return path.parts[len(self._root.path.parts) :]

    def _key(self, path: Path) -> str:
        """The key of the row that names a file, or of the path of the file if no row does."""
        parts = self._parts(path)
        lengths = [length for length in self._lengths if length <= len(parts)] or [len(parts)]
        keys = (row_key("/".join(parts[-length:])) for length in lengths)
        own = next(keys)
        return own if own in self.names else next((key for key in keys if key in self.names), own)


# Class folders without lists


def _class_folders(root: Folder) -> tuple[dict[str, list[Video]], list[str]]:
    """The videos by side ("" without sides), and a line for everything that is not used.

    Raises IfttnError if the folder has another layout.
    """
    sides = _side_folders(root)
    notes = list(_left_out(root, list(sides.values())))
    train_last = sorted(sides, key=lambda side: side == "train")
    found = [folder.path.name for side in train_last for folder in reversed(sides[side].classes)]
    actions = {spelling_key(name): readable(name) for name in found}  # of two spellings, the one in train, or the first
    labels = {action: label for label, action in enumerate(sorted(actions.values()))}
    videos: dict[str, list[Video]] = {}
    for side, parent in sides.items():
        found = (path for folder in parent.classes for path in folder.videos)
        others = (path for folder in parent.classes for path in folder.files if not is_video(path))
        files, left_out = gather(root.path, found, others, lambda path: row_key("/".join(path.parts[-2:])))
        notes += left_out
        for path in files.values():
            action = actions[spelling_key(path.parent.name)]
            name = row_name("/".join(path.parts[-3 if side else -2 :]))
            videos.setdefault(side, []).append(_video(path, name, action, labels[action]))
    return videos, notes


def _side_folders(root: Folder) -> dict[str, Folder]:
    """Side -> the folder of its class folders. Without sides, one folder under ""."""
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
                f"{root.path} is no data set: it needs UCF101's lists (ucfTrainTestlist/classInd.txt), HMDB51's lists "
                "(<class>_test_split1.txt), lists in another format of docs/data.md, or a folder of videos (.mp4, .avi "
                "or another format that FFmpeg reads) for every class"
            )
        (base,) = inside or base.folders
    return {"": base}


def _left_out(root: Folder, parents: Sequence[Folder]) -> Iterator[str]:
    """A line for each folder that is no class folder, and for each video outside the class folders."""
    loose = list(root.videos)
    for parent in parents:
        loose += parent.videos if parent is not root else []
        for folder in parent.folders:
            loose += [path for deeper in folder.folders for path in deeper.videos]
            if folder.listed is None:
                yield f"{below_root(root.path, folder.path)}: it cannot be read (permission denied)"
            elif not folder.videos:
                yield f"{below_root(root.path, folder.path)}: it holds no video"
    for path in loose:
        yield f"{below_root(root.path, path)}: it is not in the folder of a class"


def _groups(videos: Iterable[Video]) -> dict[str, list[str]]:
    """The groups of each action, sorted."""
    groups: dict[str, set[str]] = {}
    for video in videos:
        groups.setdefault(video.action, set()).add(video.group)
    return {action: sorted(own) for action, own in groups.items()}


def _divided(root: Path, videos: Sequence[Video], number: int, notes: Sequence[str]) -> Split:
    """Divide class folders by group. A class with one group has no second recording for the test."""
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
    """The split of class folders in a folder for each side. `val` is the test side only if `test` does not exist."""
    if number != 1:
        raise IfttnError(f"the folders {', '.join(sides)} of {root} are split 1, and there is no split {number}")
    if "test" in sides and "val" in sides:
        notes.append(f"val: its {len(sides['val'])} videos are not used, because there is a folder test")

    def name_below_side(video: Video) -> str:
        return spelling_key(video.name.partition("/")[2])

    train, test = sides["train"], []
    trained, twins = {video.action for video in train}, {name_below_side(video): video for video in train}
    for video in sides.get("test") or sides["val"]:
        twin = twins.get(name_below_side(video))
        if video.action not in trained:
            notes.append(f"{video.name}: its class has no training video")
        elif twin and filecmp.cmp(twin.path, video.path, shallow=False):
            notes.append(f"{video.name}: it is the same file as {twin.name}")
        else:
            test.append(video)
    return _relabelled(root, number, trained, train, test, notes)


def _relabelled(
    root: Path, number: int, kept: Iterable[str], train: list[Video], test: list[Video], notes: Iterable[str]
) -> Split:
    """A split of the kept classes, with labels from 0."""
    labels = {action: label for label, action in enumerate(sorted(kept))}

    def own(videos: list[Video]) -> tuple[Video, ...]:
        return tuple(replace(video, label=labels[video.action]) for video in videos if video.action in labels)

    return Split(root.name, number, tuple(labels), own(train), own(test), notes=tuple(notes))
