"""Folders that are listed once: their videos, their folders and their other files."""

import os
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

from ifttn.data.frame_folder import is_frame_folder
from ifttn.data.lists import SUFFIXES, readable

_SYSTEM = ("lost+found", "__macosx", "$recycle.bin", "system volume information", "@eadir")
"""Folders of file systems and archives, in lower case. They are not classes."""


class Folder:
    """A folder that is listed once, without hidden files and files of the system."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def listed(self) -> tuple[list["Folder"], list[Path]] | None:
        """The folders and files in this folder, sorted by name. None if this process may not read it."""
        folders, files = [], []
        try:
            with os.scandir(self.path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith(".") or entry.name.casefold() in _SYSTEM:
                        continue
                    path = self.path / entry.name
                    if entry.is_dir():
                        folders.append(Folder(path))
                    else:
                        files.append(path)
        except PermissionError:
            return None
        return folders, files

    @property
    def folders(self) -> list["Folder"]:
        """The folders in this folder, sorted by name."""
        return self.listed[0] if self.listed else []

    @property
    def files(self) -> list[Path]:
        """The files in this folder, sorted by name."""
        return self.listed[1] if self.listed else []

    @cached_property
    def is_frames(self) -> bool:
        """Whether this folder is a video: a folder of numbered images."""
        return is_frame_folder(self.path)

    @property
    def videos(self) -> list[Path]:
        """The video files and folders of frames in this folder."""
        return [path for path in self.files if is_video(path)] + [each.path for each in self.folders if each.is_frames]

    @property
    def classes(self) -> list["Folder"]:
        """The folders in this folder that hold videos."""
        return [folder for folder in self.folders if folder.videos]


def is_video(path: Path) -> bool:
    """Whether a file has the suffix of a video."""
    return path.suffix[1:].lower() in SUFFIXES


def gather(
    root: Path, videos: Iterable[Path], others: Iterable[Path], key: Callable[[Path], str]
) -> tuple[dict[str, Path], list[str]]:
    """The videos by key. Also a note for each video that has the key of another, and for each type of other files."""
    files, notes, types = dict[str, Path](), list[str](), dict[str, list[Path]]()
    for path in videos:
        first = files.setdefault(key(path), path)
        if first is not path:
            notes.append(f"{below_root(root, path)}: {below_root(root, first)} has the same name")
    for path in others:
        types.setdefault(path.suffix, []).append(path)
    for suffix, paths in types.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        kind = f"{suffix} is not a type of video" if suffix else "a name without a suffix has no type of video"
        notes.append(f"{below_root(root, paths[0])}{more}: {kind}")
    return files, notes


def below_root(root: Path, path: Path) -> str:
    """A path relative to the data set, as text for a message."""
    return readable(str(path.relative_to(root)))
