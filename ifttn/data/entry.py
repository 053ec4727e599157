"""One prepared video of a store, open for reading: a safetensors file of JPEGs.

Only the requested JPEGs are read, and neighbouring JPEGs in one read.
"""

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Integer, UInt8

from ifttn.data.flow import from_bytes, to_bytes
from ifttn.data.frame_folder import images_of, size_and_time
from ifttn.data.frame_source import FrameSource, StoreSettings
from ifttn.data.writing import encoded
from ifttn.vocabulary import IfttnError

FIRST_READ = 1 << 15
"""Bytes of the first read. They contain the header and the offsets of most videos."""
LARGEST_HEADER = 1 << 20


@dataclass(frozen=True)
class Origin:
    """The video file of an entry. This identifies the file after a move or a copy, and among files of the same name.

    For a folder of images, `bytes` is the sum over all images, and the time is that of the newest image.
    """

    path: str = ""
    """Relative to the folder of the data set."""
    bytes: int = 0
    mtime_ns: int = 0
    """Time of the last change, in nanoseconds since 1970."""
    sha256: str = ""
    """SHA-256 of the content in hexadecimal, or "" for frames that came from no file."""

    @classmethod
    def of(cls, file: Path, root: Path) -> "Origin":
        """The present state of a file of the data set at `root`. Raises IfttnError if the file cannot be read."""
        try:
            facts = size_and_time(file)  # before the content, so that a write in between shows as a later time
            # A name that is not UTF-8 is written as in the report.
            path = os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
            return cls(path, *facts, _digest(file))
        except OSError as error:
            raise IfttnError(f"{file}: cannot be read ({error.strerror})") from error

    def mtime_if_same(self, file: Path) -> int | None:
        """Time of the last change of `file`, or None if its content differs. Only a file with another time is read."""
        size, mtime_ns = size_and_time(file)
        if size != self.bytes:
            return None
        is_same = mtime_ns == self.mtime_ns or _digest(file) == self.sha256
        return mtime_ns if is_same else None


def _digest(file: Path) -> str:
    digest = hashlib.sha256()
    for each in images_of(file) if file.is_dir() else (file,):
        with each.open("rb") as content:
            hashlib.file_digest(content, lambda: digest)
    return digest.hexdigest()


class Entry(FrameSource):
    """One video of a store. `Store.open` opens and closes it.

    Raises:
        IfttnError: the file is no entry, is truncated, or has offsets beyond its end.
    """

    def __init__(self, file: io.FileIO, name: str, settings: StoreSettings) -> None:
        self.file, self.name, self.settings = file, name, settings
        with self._named():
            self.size = os.fstat(file.fileno()).st_size
            self._head, self._place = file.read(FIRST_READ), bytearray()
            length = int.from_bytes(self._head[:8], "little")
            self._data = 8 + length
            if length > LARGEST_HEADER or self._data > self.size:
                raise ValueError(f"a header of {length} bytes in a file of {self.size}")
            self._header = json.loads(bytes(self._bytes(8, self._data)))
            self.frames = int(self._header["rgb.offsets"]["shape"][0]) - 1
            about = self._header["__metadata__"]
            self.fps = float(about["fps"])
            self.origin = Origin(**json.loads(about.get("origin", "{}")))

    def images(self, modality: str, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "C H W"]]:
        """See `FrameSource.images`."""
        height, width = self.settings.height, self.settings.width
        with self._named():
            for jpeg in self._jpegs(modality, indices):
                if modality == "rgb":
                    yield _decoded(jpeg, cv2.IMREAD_COLOR_RGB, (height, width, 3)).transpose(2, 0, 1)
                else:
                    yield _decoded(jpeg, cv2.IMREAD_GRAYSCALE, (2 * height, width)).reshape(2, height, width)

    def jpegs(self, modality: str, indices: Integer[np.ndarray, " n"]) -> list[UInt8[np.ndarray, " _"]]:
        """The JPEG files of some frames or fields, sorted by index, each once."""
        with self._named():
            return [jpeg.copy() for jpeg in self._jpegs(modality, np.unique(indices).tolist())]

    def num_bytes(self, modality: str) -> int:
        """The size of all JPEGs of a modality."""
        with self._named():
            offsets = self._offsets(modality)
        return int(offsets[-1] - offsets[0])

    def _jpegs(self, modality: str, wanted: Sequence[int]) -> Iterator[UInt8[np.ndarray, " _"]]:
        """JPEGs sorted by index. Each is valid until the next one. Neighbours are read together."""
        offsets = self._offsets(modality)
        if not wanted:
            return
        if not 0 <= wanted[0] <= wanted[-1] < len(offsets) - 1:
            raise ValueError(f"{modality} {wanted[0]}..{wanted[-1]} requested, but there are {len(offsets) - 1}")
        ends = [i for i in range(1, len(wanted)) if wanted[i] != wanted[i - 1] + 1] + [len(wanted)]
        for first, end in zip([0, *ends], ends, strict=False):
            cuts = offsets[wanted[first] : wanted[end - 1] + 2].tolist()
            content = np.frombuffer(self._bytes(cuts[0], cuts[-1]), np.uint8)
            for begin, stop in pairwise(cuts):
                yield content[begin - cuts[0] : stop - cuts[0]]

    def _offsets(self, modality: str) -> Integer[np.ndarray, " n"]:
        """The position of each JPEG of a modality in the file, and the end of the last one."""
        raw = np.frombuffer(self._bytes(*self._range(f"{modality}.offsets", "I64")), "<i8")
        begin, end = self._range(modality, "U8")
        if len(raw) < 2 or raw[0] != 0 or raw[-1] != end - begin or (raw[1:] <= raw[:-1]).any():
            raise ValueError(f"the offsets of {modality} do not fit its {end - begin} bytes")
        return raw + begin

    def _range(self, tensor: str, dtype: str) -> tuple[int, int]:
        entry = self._header[tensor]
        begin, end = (self._data + int(offset) for offset in entry["data_offsets"])
        if entry["dtype"] != dtype or not self._data <= begin <= end <= self.size:
            raise ValueError(f"the header puts {tensor} at {begin}..{end} of {self.size} bytes, as {entry['dtype']}")
        return begin, end

    def _bytes(self, begin: int, end: int) -> memoryview:
        """Bytes of the file, valid until the next call: all reads use the same memory, which stays in the cache."""
        if end <= len(self._head):
            return memoryview(self._head)[begin:end]
        if end - begin > len(self._place):
            self._place = bytearray(2 * (end - begin))
        place = memoryview(self._place)[: end - begin]
        self.file.seek(begin)
        if self.file.readinto(place) != len(place):
            raise ValueError(f"the file ends before byte {end}")
        return place

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError, cv2.error) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise IfttnError(
                f"{self.name}: its entry {self.file.name} is damaged ({reason}); remove it and prepare it again"
            ) from error


def flow_error(fields: Float32[np.ndarray, "n 2 H W"], settings: StoreSettings) -> dict[str, float]:
    """Convert motion fields to bytes and JPEG and measure the error, in about 5 ms for a field of 340x256.

    Returns:
        Absolute errors in pixels, over displacements within the bound: the mean and 99.9th percentile from rounding to
        bytes (quantised_mean, quantised_p999), and from rounding and JPEG (stored_mean, stored_p999). saturated: the
        share of displacements beyond the bound.
    """
    levels = to_bytes(fields, settings.bound)
    height, width = fields.shape[2:]
    jpegs = [encoded(each.reshape(-1, width), settings.quality) for each in levels]
    back = np.stack([_decoded(jpeg, cv2.IMREAD_GRAYSCALE, (2 * height, width)) for jpeg in jpegs])
    within = np.abs(fields) <= settings.bound
    found = {"saturated": 1 - float(within.mean())}
    for name, read in (("quantised", levels), ("stored", back.reshape(levels.shape))):
        errors = np.abs(from_bytes(read, settings.bound) - fields)[within]
        found[f"{name}_mean"] = float(errors.mean()) if len(errors) else 0.0
        found[f"{name}_p999"] = float(np.quantile(errors, 0.999)) if len(errors) else 0.0
    return found


def _decoded(jpeg: UInt8[np.ndarray, " bytes"], flag: int, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    """Decode a JPEG. Raises ValueError if it does not have that shape."""
    image = cv2.imdecode(jpeg, flag)
    if image is None or image.shape != shape:
        raise ValueError(f"a JPEG of shape {None if image is None else image.shape} in place of {shape}")
    return image
