"""From a store's entry, a video file or live frames to the bytes of a modality's snippets: the only place.

A network sees the same planes of a video wherever they come from, because all of them are put together here, of frames
and motion fields that a `Footage` gives by number.

Shapes: K snippets, L = STACK motion fields of a snippet, C channels of a modality's snippet, H x W pixels.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float64, Integer, Shaped, UInt8

from ifttn.data.flow import flow_of, to_bytes
from ifttn.data.gop import Footage, Groups
from ifttn.data.live import Live
from ifttn.data.reencoding import GOP
from ifttn.data.store import WHOLE, Part, StoreSettings
from ifttn.data.video import Piece, Reader
from ifttn.vocabulary import MODALITIES, STACK, IfttnError

Answer = TypeVar("Answer")
REMEMBERED = 3 * GOP
"""Frames of a live source that are kept: a snippet looks back to the start of its group of pictures, and ahead."""


class Snippets:
    """K snippets of one video, in any modality."""

    def __init__(self, source: Footage, frames: Integer[np.ndarray, " K"], fields: Integer[np.ndarray, "K L"]) -> None:
        """`frames`: the frame in the middle of each snippet. `fields`: its motion fields; field t lies between the
        frames t and t + 1. Both are within the video (`sampling.snippet_indices`)."""
        self.source, self.frames, self.fields = source, frames, fields

    def planes(
        self,
        modality: str,
        part: Part = WHOLE,
        out: UInt8[np.ndarray, "K C h w"] | None = None,
        channels: int | None = None,
    ) -> UInt8[np.ndarray, "K C h w"]:
        """The bytes that a network takes, cut to `part`, by default in a new array.

        `channels`: those of a new array, by default the modality's. They say how many frames or fields a snippet of
        "rgb" or a `run_of` modality has.
        """
        if out is None:
            settings = self.source.settings
            height, width = len(range(settings.height)[part[0]]), len(range(settings.width)[part[1]])
            out = np.empty((len(self.frames), channels or MODALITIES[modality].channels, height, width), np.uint8)
        if modality in Groups.MODALITIES:
            out[:] = self._groups.planes(modality)[..., *part]  # a pixel's way may lead out of the crop, and back
        elif modality == "rgbdiff":
            wanted, position = np.unique([self.fields, self.fields + 1], return_inverse=True)
            earlier, later = self.source.read("rgb", wanted, part)[position.reshape(2, *self.fields.shape)]
            out[:] = differences(earlier, later).reshape(out.shape)
        elif modality == "rgb" or MODALITIES[modality].run_of:
            self._run(MODALITIES[modality].run_of or "rgb", part, out)
        else:
            images = out.reshape(self.fields.size, 2, *out.shape[2:], copy=False)
            self.source.read(modality, self.fields.ravel(), part, images)
        return out

    def _run(self, stored: str, part: Part, out: UInt8[np.ndarray, "K C h w"]) -> None:
        """Consecutive frames or fields around the middle of each snippet; past an end the last one is repeated."""
        channels = 3 if stored == "rgb" else 2
        count, last = out.shape[1] // channels, self.source.frames - (1 if stored == "rgb" else 2)
        wanted = (self.frames[:, None] + np.arange(count) - count // 2).clip(0, last)
        # A single frame may lie in memory as its JPEG has it, colours side by side, which no other shape can describe.
        images = out if count == 1 else out.reshape(wanted.size, channels, *out.shape[2:], copy=False)
        self.source.read(stored, wanted.ravel(), part, images)

    @cached_property
    def _groups(self) -> Groups:
        return Groups(self.source, self.frames)


def differences(
    earlier: UInt8[np.ndarray, "*shape"], later: UInt8[np.ndarray, "*shape"]
) -> UInt8[np.ndarray, "*shape"]:
    """What changes from one frame to the next, as bytes of "rgbdiff": 128 is no change, and a step is two levels."""
    return ((256 + later.astype(np.int16) - earlier) >> 1).astype(np.uint8)


class Asked:
    """A source of pictures of one pixel, which notes what is read from it: so nobody has to say beforehand."""

    def __init__(self, frames: int, settings: StoreSettings) -> None:
        self.frames, self.settings = frames, replace(settings, width=1, height=1)
        self.wanted: dict[str, set[int]] = {"rgb": set(), "flow": set(), "mv": set()}

    def read(
        self,
        modality: str,
        indices: Integer[np.ndarray, " n"],
        part: Part = WHOLE,
        out: UInt8[np.ndarray, "n C h w"] | None = None,
    ) -> UInt8[np.ndarray, "n C h w"]:
        """Black pictures."""
        self.wanted[modality].update(indices.tolist())
        images = np.zeros((len(indices), 3 if modality == "rgb" else 2, 1, 1), np.uint8)[..., *part]
        return images if out is None else out

    def images(self, flow_for_vectors: bool = False) -> set[int]:
        """The frames that are needed in RGB: those asked for, and both sides of each field of flow."""
        fields = self.wanted["flow"] | (self.wanted["mv"] if flow_for_vectors else set())
        return self.wanted["rgb"] | fields | {field + 1 for field in fields}


class Film:
    """Frames and motion fields of a file or of a live source, by number, as a store gives them.

    It holds what it is given, and computes flow when it is asked for, all fields of a question in one batch on the
    device.
    """

    def __init__(self, reader: Reader, settings: StoreSettings, device: str = "cpu", motion: str | None = None) -> None:
        """`motion`: a flow of FLOWS in the place of both the store's flow and the encoder's vectors."""
        self.reader, self.settings, self.device = reader, settings, device
        self.frames = 0
        self._motion, self._kept = motion, dict[str, dict[int, Shaped[np.ndarray, "..."]]]()
        self.clear()

    def clear(self) -> None:
        """Start from the first frame."""
        self.frames, self._kept = 0, {"rgb": {}, "flow": {}, "mv": {}}

    def add(self, piece: Piece, fields: set[int] | None = None) -> None:
        """The next frames of the video; of their vectors those of `fields`, by default all."""
        self._kept["rgb"].update(zip(piece.indices.tolist(), piece.frames, strict=True))
        for number, cells in enumerate(piece.cells, self.frames - 1):
            if number >= 0 and (fields is None or number in fields):
                self._kept["mv"][number] = to_bytes(cells, self.settings.bound)
        self.frames += len(piece.kinds)

    def forget(self, before: int) -> None:
        """Let go of all frames and fields before this number."""
        for kept in self._kept.values():
            for number in [number for number in kept if number < before]:
                del kept[number]

    @property
    def seconds(self) -> Float64[np.ndarray, " T"]:
        """When each frame is shown, counted from the first."""
        return np.array(self.reader.seconds)

    def read(
        self,
        modality: str,
        indices: Integer[np.ndarray, " n"],
        part: Part = WHOLE,
        out: UInt8[np.ndarray, "n C h w"] | None = None,
    ) -> UInt8[np.ndarray, "n C h w"]:
        """As `Entry.read`; KeyError where a frame was not kept."""
        stored = "flow" if modality == "mv" and self._motion else modality
        if stored == "flow":
            self._compute(sorted({*indices.tolist()} - self._kept["flow"].keys()))
        rows, columns = self.reader.grid()
        rows, columns = rows[part[0], None], columns[part[1]]
        if out is None:
            out = np.empty((len(indices), 3 if stored == "rgb" else 2, len(rows), len(columns)), np.uint8)
        for place, index in zip(out, indices.tolist(), strict=True):
            image = self._kept[stored][index]
            if stored == "mv":
                place[:] = image[:, rows, columns]
            else:
                place[:] = image.transpose(2, 0, 1)[:, *part] if stored == "rgb" else image[:, *part]
        return out

    def _compute(self, fields: list[int]) -> None:
        if not fields:
            return
        frames = sorted({*fields, *(field + 1 for field in fields)})
        images = np.stack([self._kept["rgb"][frame] for frame in frames])
        starts = np.searchsorted(frames, fields)
        flow = flow_of(self._motion or self.settings.flow, images, self.device, starts)
        self._kept["flow"].update(zip(fields, to_bytes(flow, self.settings.bound), strict=True))


def from_file(
    path: str | Path, settings: StoreSettings, read: Callable[[Footage], Answer], device: str = "cpu"
) -> tuple[Answer, Film]:
    """What `read` makes of a video file, decoded once, in the memory of what it reads.

    Args:
        path: any video.
        settings: size, flow and bound, as of a store.
        read: is called twice, first with a source of black pixels that notes what it reads.
        device: where flow is computed.

    Raises:
        IfttnError: the file cannot be decoded, or has fewer than two frames.
    """
    reader = Reader(path, (settings.width, settings.height))
    film, fields = Film(reader, settings, device), set[int]()

    def choose(count: int) -> Sequence[int]:
        if count < 2:
            return []
        asked = Asked(count, settings)
        read(asked)
        fields.clear()
        fields.update(asked.wanted["mv"])
        return sorted(asked.images())

    while True:
        film.clear()
        for piece in reader.pieces(choose):
            film.add(piece, fields)
        if film.frames == reader.announced:
            break
        reader.announced = film.frames  # packed streams hold fewer frames than they announce: once more
    if film.frames < 2:
        raise IfttnError(f"{reader.path}: has one frame, and motion needs two")
    return read(film), film


def as_they_come(
    reader: Reader,
    settings: StoreSettings,
    every: float,
    modalities: Sequence[str],
    device: str = "cpu",
    motion: str | None = None,
) -> Iterator[tuple[float, dict[str, UInt8[np.ndarray, "1 C H W"]]]]:
    """When the frame of each segment's snippet is shown, and its planes, as soon as its last frame has come.

    A segment lasts `every` seconds, and its snippet begins with the frame that is shown in its middle. A few dozen
    frames are kept.

    Raises:
        IfttnError: the video ended before the first snippet did, or cannot be decoded (`Reader`).
    """
    film = Film(reader, settings, device, motion)
    cut = _Cut(reader, settings, every, modalities, motion)
    if isinstance(reader, Live):
        reader.is_encoded = bool(cut.asked(0).wanted["mv"]) and motion is None
    for piece in reader.pieces(length=1, keep=cut.wants):
        film.add(piece)
        film.forget(film.frames - REMEMBERED)
        while cut.begun and film.frames > cut.begun[0].last:
            snippets = cut.begun.popleft().of(film)
            frame = int(snippets.frames[0])
            yield reader.seconds[frame], {modality: snippets.planes(modality) for modality in modalities}
    if film.frames and len(cut.begun) == cut.snippets:
        raise IfttnError(f"{reader.path}: {_too_short(film.frames, reader.seconds[-1])}")


def _too_short(frames: int, seconds: float) -> str:
    if frames <= STACK:
        return f"has {frames} frame{'s' * (frames > 1)}, and a snippet of a stream needs {STACK + 1}"
    return f"ends after {seconds:.2f} s, before the first snippet does: choose fewer seconds for a segment"


class _Begun(NamedTuple):
    """A snippet whose first frame has come."""

    start: int
    images: set[int]
    last: int
    """The last frame that it needs."""

    def of(self, source: Footage) -> Snippets:
        return Snippets(source, np.array([self.start + STACK // 2]), self.start + np.arange(STACK)[None])


class _Cut:
    """A stream in segments of equal length."""

    def __init__(
        self, reader: Reader, settings: StoreSettings, every: float, modalities: Sequence[str], motion: str | None
    ) -> None:
        self.reader, self.settings, self.every = reader, settings, every
        self.modalities, self.motion = modalities, motion
        self.begun, self.segments, self.snippets = deque[_Begun](), 0, 0
        # Of a snippet that looks back, nobody knows which frames it will need: all are converted.
        self._looks_back = any(min(self._begin(t).images, default=t) < t for t in range(GOP, 2 * GOP))

    def wants(self, index: int) -> bool:
        """Whether a snippet needs this frame, the newest, in RGB."""
        # A tenth of a frame for times that are rounded to milliseconds.
        reached = self.reader.seconds[index] + 0.9 / self.reader.fps
        segments = int(reached / self.every + 0.5)
        if segments > self.segments:
            self.segments = segments
            self.snippets += 1
            self.begun.append(self._begin(index))
        return self._looks_back or any(index in begun.images for begun in self.begun)

    def asked(self, start: int) -> Asked:
        """What the snippet that begins with this frame reads."""
        asked = Asked(sys.maxsize, self.settings)
        snippets = _Begun(start, set(), 0).of(asked)
        for modality in self.modalities:
            snippets.planes(modality)
        return asked

    def _begin(self, start: int) -> _Begun:
        asked = self.asked(start)
        images = asked.images(self.motion is not None)
        return _Begun(start, images, max(start + STACK, *images, *(field + 1 for field in asked.wanted["mv"])))
