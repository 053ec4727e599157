"""The prepared data set on disk: RGB, optical flow and motion vectors of every video, ready to be sampled.

    <folder>/manifest.json                 settings, rounding, library versions, where the data set is, and the device
    <folder>/index.parquet                 one row a video
    <folder>/videos/<name>.safetensors     per modality: all its JPEGs end to end, and where each begins

A colour JPEG holds a frame; a grey JPEG holds a motion field, its y plane below its x plane. A reader takes only the
JPEGs that it asks for, those that follow one another in one read. The same file always gives the same bytes.

Shapes: T frames, T - 1 fields, C channels (3 of a frame, 2 of a field), H x W pixels.
"""

import contextlib
import functools
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Float32, Integer, UInt8

from ifttn.data.flow import from_bytes, to_bytes
from ifttn.data.origin import Origin
from ifttn.data.writing import Draft, drafted, encoded
from ifttn.files import remove_leftovers, write_whole
from ifttn.vocabulary import IfttnError, Video

SUFFIX = ".safetensors"
MODALITIES = ("rgb", "flow", "mv")
ORIGIN = ("origin", "origin_bytes", "origin_mtime_ns", "origin_sha256")
COLUMNS = ("video", "frames", "fps", "bytes", *(f"{modality}_bytes" for modality in MODALITIES), *ORIGIN)
LIBRARIES = ("av", "numba", "numpy", "opencv-python-headless", "torch")
"""Their versions may round otherwise, when they decode, scale, compute flow or encode."""
ROUNDING = "byte = round(128 + 127 displacement / bound), kept within 1..255"
Part = tuple[slice, slice]
WHOLE: Part = (slice(None), slice(None))

PART = 60
"""Letters of a name that is too long for a file, which a folder of that name and a "~" stands for; of up to 4 bytes."""
HEAD = 1 << 15
"""Bytes of a first read: the header and the offsets of most videos."""
LARGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class StoreSettings:
    """How the videos of a store were prepared; one store holds one kind."""

    width: int
    height: int
    bound: float
    """Displacement in pixels of the stored size that byte 255 stands for."""
    flow: str = "tvl1"
    """Name of the optical flow, a key of flow.FLOWS."""
    quality: int = 95
    """Of the JPEGs, 1..100."""


@dataclass(frozen=True)
class FlowError:
    """What bytes and JPEG do to displacements, in pixels; over those within the bound, where bytes do not saturate."""

    bytes_mean: float
    bytes_p999: float
    """99.9th percentile of the absolute error of the bytes alone."""
    stored_mean: float
    stored_p999: float
    """99.9th percentile of the absolute error of what is read back."""
    saturated: float
    """Share of displacements beyond the bound."""


def flow_error(fields: Float32[np.ndarray, "n 2 H W"], settings: StoreSettings) -> FlowError:
    """Put motion fields through bytes and JPEG, and measure what that does to them; some 5 ms a field of 340x256."""
    levels = to_bytes(fields, settings.bound)
    height, width = fields.shape[2:]
    jpegs = [encoded(each.reshape(-1, width), settings.quality) for each in levels]
    back = np.stack([_decoded(jpeg, cv2.IMREAD_GRAYSCALE, (2 * height, width)) for jpeg in jpegs])
    within = np.abs(fields) <= settings.bound
    figures = []
    for read in (levels, back.reshape(levels.shape)):
        errors = np.abs(from_bytes(read, settings.bound) - fields)[within]
        figures += [errors.mean(), np.quantile(errors, 0.999)] if len(errors) else [0.0, 0.0]
    return FlowError(*map(float, figures), saturated=1 - float(within.mean()))


class Entry:
    """One video of a store, open for reading; `Store.open` makes and closes it.

    IfttnError where the file is no such entry, is cut short, or points outside of itself.
    """

    def __init__(self, file: io.FileIO, name: str, settings: StoreSettings) -> None:
        self.file, self.name, self.settings = file, name, settings
        with self._named():
            self.size = os.fstat(file.fileno()).st_size
            self.head, self.place = file.read(HEAD), bytearray()
            length = int.from_bytes(self.head[:8], "little")
            self.data = 8 + length
            if length > LARGEST_HEADER or self.data > self.size:
                raise ValueError(f"a header of {length} bytes in a file of {self.size}")
            self.header = json.loads(bytes(self._bytes(8, self.data)))
            self.frames = int(self.header["rgb.offsets"]["shape"][0]) - 1
            about = self.header["__metadata__"]
            self.fps = float(about["fps"])
            self.origin = Origin(**json.loads(about.get("origin", "{}")))

    def read(
        self,
        modality: str,
        indices: Integer[np.ndarray, " n"],
        part: Part = WHOLE,
        out: UInt8[np.ndarray, "n C h w"] | None = None,
    ) -> UInt8[np.ndarray, "n C h w"]:
        """Frames ("rgb", C = 3) or motion fields ("flow", "mv", C = 2) by index, in the order asked for.

        What is asked for several times is decoded once. IfttnError where an index is not in the video, or damage shows.

        Args:
            modality: one of MODALITIES.
            indices: from 0.
            part: rows and columns of the stored picture.
            out: where to put them, by default a new array.
        """
        height, width = self.settings.height, self.settings.width
        if out is None:
            rows, columns = len(range(height)[part[0]]), len(range(width)[part[1]])
            out = np.empty((len(indices), 3 if modality == "rgb" else 2, rows, columns), np.uint8)
        places: dict[int, list[int]] = {}
        for position, index in enumerate(indices.tolist()):
            places.setdefault(index, []).append(position)
        wanted = sorted(places)
        with self._named():
            for jpeg, index in zip(self._cut(modality, wanted), wanted, strict=True):
                if modality == "rgb":
                    image = _decoded(jpeg, cv2.IMREAD_COLOR_RGB, (height, width, 3))
                    planes = image[part].transpose(2, 0, 1)
                else:
                    image = _decoded(jpeg, cv2.IMREAD_GRAYSCALE, (2 * height, width))
                    planes = image.reshape(2, height, width)[:, *part]
                for position in places[index]:
                    out[position] = planes
                del image, planes  # so that the next one takes its place, which the cache still holds
        return out

    def jpegs(self, modality: str, indices: Integer[np.ndarray, " n"]) -> list[UInt8[np.ndarray, " _"]]:
        """The JPEG files of some frames or fields, by ascending index, each once."""
        with self._named():
            return [jpeg.copy() for jpeg in self._cut(modality, np.unique(indices).tolist())]

    def num_bytes(self, modality: str) -> int:
        """Of all JPEGs of a modality."""
        with self._named():
            offsets = self._offsets(modality)
        return int(offsets[-1] - offsets[0])

    def _offsets(self, modality: str) -> Integer[np.ndarray, " n"]:
        """Where each JPEG of a modality begins in the file, and where the last one ends."""
        raw = np.frombuffer(self._bytes(*self._range(f"{modality}.offsets", "I64")), "<i8")
        begin, end = self._range(modality, "U8")
        if len(raw) < 2 or raw[0] != 0 or raw[-1] != end - begin or (raw[1:] <= raw[:-1]).any():
            raise ValueError(f"the offsets of {modality} do not fit its {end - begin} bytes")
        return raw + begin

    def _range(self, tensor: str, dtype: str) -> tuple[int, int]:
        entry = self.header[tensor]
        begin, end = (self.data + int(offset) for offset in entry["data_offsets"])
        if entry["dtype"] != dtype or not self.data <= begin <= end <= self.size:
            raise ValueError(f"{tensor} is said to lie at {begin}..{end} of {self.size} bytes, as {entry['dtype']}")
        return begin, end

    def _bytes(self, begin: int, end: int) -> memoryview:
        """Until the next ones are asked for: all are read to the same place, which the cache then holds."""
        if end <= len(self.head):
            return memoryview(self.head)[begin:end]
        if end - begin > len(self.place):
            self.place = bytearray(2 * (end - begin))
        place = memoryview(self.place)[: end - begin]
        self.file.seek(begin)
        if self.file.readinto(place) != len(place):
            raise ValueError(f"ends before byte {end}")
        return place

    def _cut(self, modality: str, wanted: Sequence[int]) -> Iterator[UInt8[np.ndarray, " _"]]:
        """JPEGs by ascending index, each until the next is asked for; neighbours come from one read."""
        offsets = self._offsets(modality)
        if not wanted:
            return
        if not 0 <= wanted[0] <= wanted[-1] < len(offsets) - 1:
            raise ValueError(f"{modality} {wanted[0]}..{wanted[-1]} of {len(offsets) - 1} are asked for")
        ends = [i for i in range(1, len(wanted)) if wanted[i] != wanted[i - 1] + 1] + [len(wanted)]
        for first, end in zip([0, *ends], ends, strict=False):
            cuts = offsets[wanted[first] : wanted[end - 1] + 2].tolist()
            content = np.frombuffer(self._bytes(cuts[0], cuts[-1]), np.uint8)
            for begin, stop in pairwise(cuts):
                yield content[begin - cuts[0] : stop - cuts[0]]

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, cv2.error) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise IfttnError(
                f"{self.name}: its entry {self.file.name} is damaged or no such ({reason}); remove it and prepare again"
            ) from error


class Store:
    """A folder of prepared videos. Names are those of the catalogue: "<class>/<file without suffix>"."""

    def __init__(self, folder: Path) -> None:
        """Open what `create` made; IfttnError where there is no store."""
        self.folder = folder
        self._seen: dict[str, int] = {}
        try:
            self.manifest = json.loads((folder / "manifest.json").read_text())
            self.settings = StoreSettings(**self.manifest["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IfttnError(f"{folder}: no prepared data set (manifest.json is missing or damaged)") from error

    @classmethod
    def create(cls, folder: Path, settings: StoreSettings) -> "Store":
        """Make a store, or open the one that is there; IfttnError where it has other settings or rounding."""
        manifest = {"settings": asdict(settings), "rounding": ROUNDING, "libraries": _versions()}
        if not (folder / "manifest.json").exists():
            write_whole(folder / "manifest.json", json.dumps(manifest, indent=2).encode())
        store = cls(folder)
        there, here = ({**each["settings"], "rounding": each.get("rounding")} for each in (store.manifest, manifest))
        if differing := [
            f"{key} {there.get(key)} there, {here[key]} here" for key in here if there.get(key) != here[key]
        ]:
            raise IfttnError(f"{folder}: was prepared otherwise: {'; '.join(differing)}; use another folder")
        return store

    @property
    def data(self) -> Path | None:
        """Folder of the data set that it was last prepared from; None where it was not prepared from one."""
        return Path(self.manifest["data"]) if "data" in self.manifest else None

    @property
    def device(self) -> str | None:
        """Kind of device that its flow was computed on, such as "cpu"; None before that."""
        return self.manifest.get("device")

    def begin(self, data: Path, device: str) -> str:
        """Record what is about to be written. Returns a note on what has another version now than the store began with.

        Args:
            data: folder of the data set.
            device: kind of device that computes the flow.

        Raises:
            IfttnError: its flow was computed on another kind of device, which rounds otherwise.
        """
        if self.device not in (None, device):
            raise IfttnError(
                f"{self.folder}: its flow was computed on {self.device}, and {device} rounds otherwise: go on with "
                f"--device {self.device}, or use another folder"
            )
        self.manifest |= {"data": str(data), "device": device}
        write_whole(self.folder / "manifest.json", json.dumps(self.manifest, indent=2).encode())
        begun, idle = self.manifest.get("libraries", {}), "torch" if device == "cpu" else "numba"
        newer = {name: now for name, now in _versions().items() if begun.get(name) != now and name != idle}
        changes = ", ".join(f"{name} {now} instead of {begun.get(name, 'none')}" for name, now in newer.items())
        return f"prepared with {changes}" if changes else ""

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def write(
        self,
        name: str,
        frames: UInt8[np.ndarray, "T H W 3"],
        flow: UInt8[np.ndarray, "M 2 H W"],
        mv: UInt8[np.ndarray, "M 2 H W"],
        fps: float,
        origin: Origin | None = None,
    ) -> None:
        """Add a video, whole or not at all. T frames, RGB; M = T - 1 fields each, as bytes of `flow.to_bytes`.

        Args:
            name: of the catalogue.
            frames: of the settings' size.
            flow: optical flow between neighbouring frames.
            mv: motion vectors between neighbouring frames.
            fps: frames a second.
            origin: the file that they came from, where they came from one.

        Raises:
            IfttnError: shapes do not fit.
        """
        with self.writing(name, origin) as draft:
            draft.fps = fps
            draft.add(frames, flow, mv)

    @contextlib.contextmanager
    def writing(self, name: str, origin: Origin | None = None) -> Iterator[Draft]:
        """Add a video a few frames at a time, whole or not at all: it is in the store when the block ends well.

        Raises:
            DiskFullError: the disk is full.
            IfttnError: shapes do not fit.
        """
        size = (self.settings.height, self.settings.width)
        with drafted(name, self.folder, size, self.settings.quality) as draft:
            yield draft
            draft.write(self._path(name), {"origin": json.dumps(asdict(origin))} if origin else {})

    @contextlib.contextmanager
    def open(self, name: str) -> Iterator[Entry]:
        """The entry of a video; IfttnError where it is not in the store, or is damaged."""
        try:
            file = io.FileIO(self._path(name))
        except OSError as error:
            raise IfttnError(f"{name}: is not in the store {self.folder} ({error.strerror})") from error
        with file:
            yield Entry(file, name, self.settings)

    def read(self, name: str, modality: str, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n C H W"]:
        """Frames ("rgb", C = 3) or motion fields ("flow", "mv", C = 2) by index, in the order asked for."""
        with self.open(name) as entry:
            return entry.read(modality, indices)

    def num_frames(self, name: str) -> int:
        """T; there are T - 1 fields of each motion."""
        with self.open(name) as entry:
            return entry.frames

    def index(self) -> pd.DataFrame:
        """A row for each video, sorted by name: video, frames, fps, bytes, bytes of each modality, and its `Origin`.

        Only entries that are new since the last `tidy` are opened: those that index.parquet lacks, of another size than
        it tells, or not older than itself. An entry that is damaged has no row; `damaged` names it.
        """
        return pd.DataFrame(self._survey()[0], columns=list(COLUMNS))

    def damaged(self) -> list[str]:
        """Names of the entries that cannot be read, sorted: they count as not prepared."""
        return self._survey()[1]

    def _survey(self) -> tuple[list[tuple], list[str]]:
        """A row of the index for each entry, and the names of those that are damaged."""
        known, written = self._known()
        rows, damaged = [], []
        for name, _path, stat in sorted(self._files(SUFFIX)):
            row = known.get(name)
            if row is None or row[3] != stat.st_size or stat.st_mtime_ns >= written:
                try:
                    row = self._row(name, stat.st_size)
                except IfttnError:
                    damaged.append(name)
                    continue
            rows.append(row)
        return rows, damaged

    def _row(self, name: str, size: int) -> tuple:
        with self.open(name) as entry:
            sizes = map(entry.num_bytes, MODALITIES)
            return name, entry.frames, entry.fps, size, *sizes, *astuple(entry.origin)

    def origins(self) -> dict[str, Origin]:
        """The file of each video that is prepared, by name."""
        index = self.index()
        facts = zip(*(index[column] for column in ORIGIN), strict=True)
        return {name: Origin(*each) for name, each in zip(index.video, facts, strict=True)}

    def changed(self, videos: Iterable[Video]) -> list[str]:
        """Names of those videos whose file is no longer the one that their entry was made of, in their order.

        A copy of the file is the same file; one that is gone, or that is not prepared, is not among them.
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
                        self._seen[video.name] = mtime_ns
        return changed

    def identity(self, names: Iterable[str]) -> str:
        """What decides the pixels of some videos, in their order: settings, rounding, and the content of each file."""
        origins = self.origins()
        facts = [(name, origins[name].sha256 if name in origins else "") for name in names]
        return hashlib.sha256(json.dumps([asdict(self.settings), ROUNDING, facts]).encode()).hexdigest()

    def refuse_unprepared(self, videos: Sequence[Video]) -> None:
        """Look at the entries of some videos before long work with them.

        Raises:
            IfttnError: one of them is not prepared, its entry is damaged, or its file has changed since; the line names
                the first.
        """
        prepared = self.origins()
        if absent := [video.name for video in videos if video.name not in prepared]:
            raise IfttnError(
                f"{self.folder}: {len(absent)} of {len(videos)} videos are not prepared, or their entries are damaged "
                f"(the first is {absent[0]}): `ifttn prepare` prepares them"
            )
        if changed := self.changed(videos):
            raise IfttnError(
                f"{self.folder}: {len(changed)} of {len(videos)} videos are not those that were prepared from "
                f"{self.data} (the first is {changed[0]}): `ifttn prepare` prepares them again; another data set needs "
                "a store of its own"
            )

    def remove(self, name: str) -> None:
        """Remove a video."""
        self._path(name).unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove what interrupted writes left behind and renew index.parquet; only while nobody writes.

        The index keeps the times of copies that `changed` found the same, so that they are not read again.
        """
        remove_leftovers(self.folder)
        index = self.index()
        index["origin_mtime_ns"] = [
            self._seen.get(name, mtime_ns) for name, mtime_ns in zip(index.video, index.origin_mtime_ns, strict=True)
        ]
        write_whole(self.folder / "index.parquet", index.to_parquet(index=False))

    def _path(self, name: str) -> Path:
        folder, _, stem = name.rpartition("/")
        path = self.folder / "videos" / folder
        while len(f"{stem}{SUFFIX}".encode()) > 255:  # no file may have a longer name
            path, stem = path / f"{stem[:PART]}~", stem[PART:]
        return path / f"{stem}{SUFFIX}"

    def _known(self) -> tuple[Mapping[str, tuple], int]:
        """The rows of index.parquet by name, and when it was written."""
        path = self.folder / "index.parquet"
        try:
            table, written = pd.read_parquet(path), path.stat().st_mtime_ns
        except (OSError, ValueError):  # not there, or no such file: it is made of the entries anyway
            return {}, 0
        if tuple(table.columns) != COLUMNS:
            return {}, 0
        return dict(zip(table.video, table.itertuples(index=False, name=None), strict=True)), written

    def _files(self, suffix: str) -> Iterator[tuple[str, str, os.stat_result]]:
        """Name, path and facts of the files below videos/ that end so; one listing a folder."""
        pending = [("", str(self.folder / "videos"))]
        while pending:
            prefix, folder = pending.pop()
            with contextlib.suppress(FileNotFoundError), os.scandir(folder) as listing:
                for file in listing:
                    if file.is_dir():
                        is_part = len(file.name) == PART + 1 and file.name.endswith("~")
                        pending.append((prefix + (file.name[:-1] if is_part else f"{file.name}/"), file.path))
                    elif file.name.endswith(suffix):
                        yield prefix + file.name.removesuffix(suffix), file.path, file.stat()


@functools.cache
def _versions() -> Mapping[str, str]:
    return {name: version(name) for name in LIBRARIES}


def _decoded(jpeg: UInt8[np.ndarray, " bytes"], flag: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """ValueError where it is no JPEG of that shape."""
    image = cv2.imdecode(jpeg, flag)
    if image is None or image.shape != shape:
        raise ValueError(f"a JPEG of {None if image is None else image.shape} where one of {shape} belongs")
    return image
