"""The prepared data set on disk: RGB, optical flow and motion vectors of every video.

    <folder>/manifest.json                 settings, rounding, library versions, folder of the data set, and the device
    <folder>/index.parquet                 one row per video
    <folder>/videos/<name>.safetensors     per modality: all JPEGs, one after another, and their offsets

A colour JPEG holds a frame. A grey JPEG holds a motion field, with its y plane below its x plane. The same video file
always gives the same bytes. `entry` reads a video, and `writing` writes one.

Shapes: T frames, T - 1 fields, C channels (3 of a frame, 2 of a field), H x W pixels.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Integer, UInt8

from ifttn.data.entry import Entry, Origin
from ifttn.data.frame_source import StoreSettings
from ifttn.data.writing import EntryWriter, entry_writer
from ifttn.files import remove_leftovers, write_whole
from ifttn.vocabulary import IfttnError, Video

SUFFIX = ".safetensors"
STORED = ("rgb", "flow", "mv")
"""The modalities in a store. All others are made from them."""
ORIGIN = ("origin", "origin_bytes", "origin_mtime_ns", "origin_sha256")
INDEX_COLUMNS = ("video", "frames", "fps", "bytes", *(f"{modality}_bytes" for modality in STORED), *ORIGIN)
LIBRARIES = ("av", "numba", "numpy", "opencv-python-headless", "torch")
"""Libraries whose version can change the rounding, in decoding, scaling, flow or encoding."""
ROUNDING = "byte = round(128 + 127 displacement / bound), kept within 1..255"
PART = 60
"""A name that is too long for a file is cut into folders of this many letters and a "~". A letter has up to 4 bytes."""


class Store:
    """A folder of prepared videos. They have the names of the catalogue: "<class>/<file without suffix>"."""

    def __init__(self, folder: Path) -> None:
        """Open a store that `create` made. Raises IfttnError if the folder has no store."""
        self.folder = folder
        self._same_since: dict[str, int] = {}
        try:
            self.manifest = json.loads((folder / "manifest.json").read_text())
            self.settings = StoreSettings(**self.manifest["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IfttnError(f"{folder}: no prepared data set (manifest.json is missing or damaged)") from error

    @classmethod
    def create(cls, folder: Path, settings: StoreSettings) -> "Store":
        """Make a store, or open the existing one. Raises IfttnError if it has other settings or another rounding."""
        manifest = {"settings": asdict(settings), "rounding": ROUNDING, "libraries": _versions()}
        if not (folder / "manifest.json").exists():
            write_whole(folder / "manifest.json", json.dumps(manifest, indent=2).encode())
        store = cls(folder)
        there, here = ({**each["settings"], "rounding": each.get("rounding")} for each in (store.manifest, manifest))
        differing = [f"{key} {there.get(key)} there, {here[key]} here" for key in here if there.get(key) != here[key]]
        if differing:
            raise IfttnError(f"{folder} has other settings: {'; '.join(differing)}; use another folder")
        return store

    @property
    def data(self) -> Path | None:
        """Folder of the data set of the last preparation. None if there was no preparation."""
        return Path(self.manifest["data"]) if "data" in self.manifest else None

    @property
    def device(self) -> str | None:
        """Kind of device that computed the flow, such as "cpu". None before the first preparation."""
        return self.manifest.get("device")

    def begin(self, data: Path, device: str) -> str:
        """Record the data set and device of a preparation. Returns a note on libraries whose version has changed.

        Args:
            data: folder of the data set.
            device: kind of device that computes the flow.

        Raises:
            IfttnError: another kind of device computed the flow so far. It rounds in another way.
        """
        if self.device not in (None, device):
            raise IfttnError(
                f"{self.folder}: its flow was computed on {self.device}, and {device} rounds in another way: use "
                f"--device {self.device}, or another folder"
            )
        self.manifest |= {"data": str(data), "device": device}
        write_whole(self.folder / "manifest.json", json.dumps(self.manifest, indent=2).encode())
        begun, idle = self.manifest.get("libraries", {}), "torch" if device == "cpu" else "numba"
        newer = {name: now for name, now in _versions().items() if begun.get(name) != now and name != idle}
        changes = ", ".join(f"{name} {now} instead of {begun.get(name, 'none')}" for name, now in newer.items())
        return f"prepared with {changes}" if changes else ""

    # Write and read

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    @contextlib.contextmanager
    def writing(self, name: str, origin: Origin | None = None) -> Iterator[EntryWriter]:
        """Add a video, a few frames at a time. It is in the store only if the block ends without an error.

        Args:
            name: name in the catalogue.
            origin: the file of the frames. None for frames that come from no file.

        Raises:
            DiskFullError: the disk is full.
            IfttnError: shapes do not fit.
        """
        size = (self.settings.height, self.settings.width)
        with entry_writer(name, self.folder, size, self.settings.quality) as writer:
            yield writer
            writer.write(self._path(name), {"origin": json.dumps(asdict(origin))} if origin else {})

    def write(
        self,
        name: str,
        frames: UInt8[np.ndarray, "T H W 3"],
        flow: UInt8[np.ndarray, "M 2 H W"],
        mv: UInt8[np.ndarray, "M 2 H W"],
        fps: float,
    ) -> None:
        """Add a video that is in memory: T frames in RGB and M = T - 1 fields each, as bytes of `flow.to_bytes`."""
        with self.writing(name) as writer:
            writer.fps = fps
            writer.add(frames, flow, mv)

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Entry]:
        """The entry of a video. Raises IfttnError if it is not in the store, or is damaged."""
        try:
            file = io.FileIO(self._path(name))
        except OSError as error:
            raise IfttnError(f"{name}: is not in the store {self.folder} ({error.strerror})") from error
        with file:
            yield Entry(file, name, self.settings)

    def read(self, name: str, modality: str, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n C H W"]:
        """Frames ("rgb", C = 3) or motion fields ("flow", "mv", C = 2) by number (`FrameSource.read`)."""
        with self.open(name) as entry:
            return entry.read(modality, indices)

    def num_frames(self, name: str) -> int:
        """T, the number of frames. Each motion modality has T - 1 fields."""
        with self.open(name) as entry:
            return entry.frames

    def remove(self, name: str) -> None:
        """Remove a video."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        folder, _, stem = name.rpartition("/")
        path = self.folder / "videos" / folder
        while len(f"{stem}{SUFFIX}".encode()) > 255:  # the longest name that a file may have
            path, stem = path / f"{stem[:PART]}~", stem[PART:]
        return path / f"{stem}{SUFFIX}"

    # The index

    def index(self) -> pd.DataFrame:
        """A row for each video, sorted by name: video, frames, fps, bytes, bytes of each modality, and its `Origin`.

        Only entries that are new since the last `tidy` are opened: they are not in index.parquet, have another size
        there, or are not older than it. A damaged entry has no row; `damaged` names it.
        """
        return pd.DataFrame(self._survey()[0], columns=list(INDEX_COLUMNS))

    def damaged(self) -> list[str]:
        """Sorted names of the entries that cannot be read. They count as not prepared."""
        return self._survey()[1]

    def tidy(self) -> None:
        """Remove incomplete files of interrupted writes, and update index.parquet. No process may write meanwhile.

        The index keeps the times of files that `changed` found to be the same, so that they are not read again.
        """
        remove_leftovers(self.folder)
        index = self.index()
        times = zip(index.video, index.origin_mtime_ns, strict=True)
        index["origin_mtime_ns"] = [self._same_since.get(name, mtime_ns) for name, mtime_ns in times]
        write_whole(self.folder / "index.parquet", index.to_parquet(index=False))

    def _survey(self) -> tuple[list[tuple], list[str]]:
        """A row of the index for each entry, and the names of the damaged entries."""
        known, written = self._written_index()
        rows, damaged = [], []
        for name, facts in sorted(self._entries()):
            row = known.get(name)
            if row is None or row[3] != facts.st_size or facts.st_mtime_ns >= written:
                try:
                    with self.open(name) as entry:
                        sizes = map(entry.num_bytes, STORED)
                        row = (name, entry.frames, entry.fps, facts.st_size, *sizes, *astuple(entry.origin))
                except IfttnError:
                    damaged.append(name)
                    continue
            rows.append(row)
        return rows, damaged

    def _written_index(self) -> tuple[Mapping[str, tuple], int]:
        """The rows of index.parquet by name, and the time when it was written."""
        path = self.folder / "index.parquet"
        try:
            table, written = pd.read_parquet(path), path.stat().st_mtime_ns
        except (OSError, ValueError):  # it does not exist or is damaged: the entries have all of its content
            return {}, 0
        if tuple(table.columns) != INDEX_COLUMNS:
            return {}, 0
        return dict(zip(table.video, table.itertuples(index=False, name=None), strict=True)), written

    def _entries(self) -> Iterator[tuple[str, os.stat_result]]:
        """Name and `os.stat` of each entry's file. Each folder is listed once."""
        pending = [("", str(self.folder / "videos"))]
        while pending:
            prefix, folder = pending.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as listing:
                for file in listing:
                    if file.is_dir():
                        is_part = len(file.name) == PART + 1 and file.name.endswith("~")
                        pending.append((prefix + (file.name[:-1] if is_part else f"{file.name}/"), file.path))
                    elif file.name.endswith(SUFFIX):
                        yield prefix + file.name.removesuffix(SUFFIX), file.stat()

    # Identify

    def origins(self) -> dict[str, Origin]:
        """The file of each prepared video, by name."""
        index = self.index()
        facts = zip(*(index[column] for column in ORIGIN), strict=True)
        return {name: Origin(*each) for name, each in zip(index.video, facts, strict=True)}

    def changed(self, videos: Iterable[Video]) -> list[str]:
        """Names of the videos whose file is no longer the file of their entry, in the order of `videos`.

        A copy of a file counts as the same file. Videos without a file, or without an entry, are not returned.
        """
        origins, changed = self.origins(), []
        for video in videos:
            origin = origins.get(video.name)
            if origin and origin.sha256:
                with contextlib.suppress(OSError):
                    mtime_ns = origin.mtime_if_same(video.path)
                    if mtime_ns is None:
                        changed.append(video.name)
                    else:
                        self._same_since[video.name] = mtime_ns
        return changed

    def identity(self, names: Iterable[str]) -> str:
        """A hash of everything that decides the pixels of these videos, in their order: settings, rounding, content."""
        origins = self.origins()
        facts = [(name, origins[name].sha256 if name in origins else "") for name in names]
        return hashlib.sha256(json.dumps([asdict(self.settings), ROUNDING, facts]).encode()).hexdigest()

    def refuse_unprepared(self, videos: Sequence[Video]) -> None:
        """Check the entries of some videos before long work with them.

        Raises:
            IfttnError: a video is not prepared, its entry is damaged, or its file has changed. The message names the
                first such video.
        """
        prepared = self.origins()
        if absent := [video.name for video in videos if video.name not in prepared]:
            raise IfttnError(
                f"{self.folder}: {len(absent)} of {len(videos)} videos are not prepared, or their entries are damaged "
                f"(the first is {absent[0]}): `ifttn prepare` prepares them"
            )
        if changed := self.changed(videos):
            raise IfttnError(
                f"{self.folder}: {len(changed)} of {len(videos)} videos differ from those that were prepared from "
                f"{self.data} (the first is {changed[0]}): `ifttn prepare` prepares them again; another data set needs "
                "another store"
            )


@functools.cache
def _versions() -> Mapping[str, str]:
    found = {}
    for name in LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):  # a store of drawn frames needs no decoder
            found[name] = version(name)
    return found
