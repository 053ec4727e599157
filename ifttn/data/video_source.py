"""Snippets of a video file or of a live stream. Only the frames that they need are kept in memory."""

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float64, Shaped, UInt8

from ifttn.data.flow import flow_of, to_bytes
from ifttn.data.frame_source import FrameSource, StoreSettings
from ifttn.data.gop import GOP
from ifttn.data.live import LiveReader, reader_of
from ifttn.data.planes import Snippets
from ifttn.data.video import Chunk, Reader, spread
from ifttn.vocabulary import STACK, IfttnError

_T = TypeVar("_T")
KEPT = 3 * GOP
"""Frames of a live source that are kept. A snippet needs frames back to the start of its group of pictures."""


class ReadRecorder(FrameSource):
    """A source of black pictures of one pixel. It records the numbers of all frames and fields that are read."""

    def __init__(self, frames: int, settings: StoreSettings) -> None:
        self.frames, self.settings = frames, replace(settings, width=1, height=1)
        self.wanted: dict[str, set[int]] = {"rgb": set(), "flow": set(), "mv": set()}

    def images(self, modality: str, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "C 1 1"]]:
        """Black pictures."""
        self.wanted[modality].update(indices)
        yield from np.zeros((len(indices), 3 if modality == "rgb" else 2, 1, 1), np.uint8)

    def frames_in_rgb(self, flow_for_vectors: bool = False) -> set[int]:
        """The frames that are needed in RGB: the frames that were read, and both frames of each field of flow."""
        fields = self.wanted["flow"] | (self.wanted["mv"] if flow_for_vectors else set())
        return self.wanted["rgb"] | fields | {field + 1 for field in fields}


class FrameBuffer(FrameSource):
    """Decoded frames and motion fields of a file or of a live source.

    Flow is computed when it is read, all fields of one `read` in one batch on the device.
    """

    def __init__(self, reader: Reader, settings: StoreSettings, device: str = "cpu", motion: str | None = None) -> None:
        """`motion`: name of a flow that replaces both the flow of the store and the vectors of the encoder."""
        self.reader, self.settings, self.device = reader, settings, device
        self._motion = motion
        self.clear()

    def clear(self) -> None:
        """Start again from the first frame."""
        self.frames = 0
        self._kept: dict[str, dict[int, Shaped[np.ndarray, ...]]] = {"rgb": {}, "flow": {}, "mv": {}}

    def add(self, chunk: Chunk, fields: set[int] | None = None) -> None:
        """Add the next frames of the video, and the vectors of `fields`, by default of all fields."""
        self._kept["rgb"].update(zip(chunk.indices.tolist(), chunk.frames, strict=True))
        for number, blocks in enumerate(chunk.blocks, max(0, self.frames - 1)):
            if fields is None or number in fields:
                self._kept["mv"][number] = to_bytes(blocks, self.settings.bound)
        self.frames += len(chunk.kinds)

    def forget(self, before: int) -> None:
        """Drop all frames and fields before this number."""
        for kept in self._kept.values():
            for number in [number for number in kept if number < before]:
                del kept[number]

    @property
    def seconds(self) -> Float64[np.ndarray, " T"]:
        """The time of each frame, from the first frame on."""
        return np.array(self.reader.seconds)

    def images(self, modality: str, indices: Sequence[int]) -> Iterator[UInt8[np.ndarray, "C H W"]]:
        """See `FrameSource.images`. Raises KeyError for a frame that was not kept."""
        stored = "flow" if modality == "mv" and self._motion else modality
        if stored == "flow":
            self._compute_flow([index for index in indices if index not in self._kept["flow"]])
        for index in indices:
            image = self._kept[stored][index]
            if stored == "mv":
                yield spread(image, *self.reader.grid())
            else:
                yield image.transpose(2, 0, 1) if stored == "rgb" else image

    def _compute_flow(self, fields: Sequence[int]) -> None:
        if not fields:
            return
        frames = sorted({*fields, *(field + 1 for field in fields)})
        images = np.stack([self._kept["rgb"][frame] for frame in frames])
        starts = np.searchsorted(frames, fields)
        flow = flow_of(self._motion or self.settings.flow, images, self.device, starts)
        self._kept["flow"].update(zip(fields, to_bytes(flow, self.settings.bound), strict=True))


def from_file(
    path: str | Path, settings: StoreSettings, read: Callable[[FrameSource], _T], device: str = "cpu"
) -> tuple[_T, FrameBuffer]:
    """The result of `read` for a video file. The file is decoded once, and only what `read` needs is kept in memory.

    Args:
        path: any video file, or a folder of images.
        settings: size, flow and bound, as in a store.
        read: it is called twice, first with a `ReadRecorder`.
        device: device for optical flow.

    Raises:
        IfttnError: the file cannot be decoded, or has fewer than two frames.
    """
    reader = reader_of(path, (settings.width, settings.height))
    buffer, fields = FrameBuffer(reader, settings, device), set[int]()

    def choose(count: int) -> Sequence[int]:
        if count < 2:
            return []
        recorder = ReadRecorder(count, settings)
        read(recorder)
        fields.clear()
        fields.update(recorder.wanted["mv"])
        return sorted(recorder.frames_in_rgb())

    while True:
        buffer.clear()
        for chunk in reader.chunks(choose):
            buffer.add(chunk, fields)
        if buffer.frames == reader.announced:
            break
        reader.announced = buffer.frames  # a packed stream has fewer frames than it announces: read it again
    if buffer.frames < 2:
        raise IfttnError(f"{reader.path}: has only one frame, and motion needs two")
    return read(buffer), buffer


def as_they_come(
    reader: Reader,
    settings: StoreSettings,
    every: float,
    modalities: Sequence[str],
    device: str = "cpu",
    motion: str | None = None,
) -> Iterator[tuple[float, dict[str, UInt8[np.ndarray, "1 C H W"]]]]:
    """The time of the middle frame, and the planes, of the snippet of each segment, as soon as its last frame is read.

    A segment lasts `every` seconds, and its snippet begins with the frame in the middle of the segment. A few dozen
    frames are kept in memory.

    Raises:
        IfttnError: the video ends before the end of the first snippet, or cannot be decoded (`Reader`).
    """
    buffer = FrameBuffer(reader, settings, device, motion)
    segments = _Segments(reader, settings, every, modalities, motion)
    if isinstance(reader, LiveReader):
        reader.is_encoded = bool(segments.reads_of(0).wanted["mv"]) and motion is None
    for chunk in reader.chunks(length=1, keep=segments.needs):
        buffer.add(chunk)
        buffer.forget(buffer.frames - KEPT)
        while segments.waiting and buffer.frames > segments.waiting[0].last:
            snippets = segments.waiting.popleft().snippets(buffer)
            frame = int(snippets.frames[0])
            yield reader.seconds[frame], {modality: snippets.planes(modality) for modality in modalities}
    if buffer.frames and len(segments.waiting) == segments.count:
        raise IfttnError(f"{reader.path}: {_too_short(buffer.frames, reader.seconds[-1])}")


def _too_short(frames: int, seconds: float) -> str:
    if frames <= STACK:
        return f"has {frames} frame{'s' * (frames > 1)}, and a snippet of a stream needs {STACK + 1}"
    return f"ends after {seconds:.2f} s, before the end of the first snippet: choose fewer seconds for a segment"


class _Waiting(NamedTuple):
    """A snippet whose first frame is read."""

    start: int
    in_rgb: set[int]
    last: int
    """The last frame that the snippet needs."""

    def snippets(self, source: FrameSource) -> Snippets:
        return Snippets(source, np.array([self.start + STACK // 2]), self.start + np.arange(STACK)[None])


class _Segments:
    """The segments of equal length of a stream, and the snippets that wait for frames."""

    def __init__(
        self, reader: Reader, settings: StoreSettings, every: float, modalities: Sequence[str], motion: str | None
    ) -> None:
        self.reader, self.settings, self.every = reader, settings, every
        self.modalities, self.motion = modalities, motion
        self.waiting, self.reached, self.count = deque[_Waiting](), 0, 0
        # Some snippets need frames before their first frame. Then all frames are converted.
        self._looks_back = any(min(self._begin(t).in_rgb, default=t) < t for t in range(GOP, 2 * GOP))

    def needs(self, index: int) -> bool:
        """Whether a snippet needs this frame, the newest one, in RGB."""
        # The end is a tenth of a frame early, because times may be rounded to milliseconds.
        end = self.reader.seconds[index] + 0.9 / self.reader.fps
        reached = int(end / self.every + 0.5)
        if reached > self.reached:
            self.reached = reached
            self.count += 1
            self.waiting.append(self._begin(index))
        return self._looks_back or any(index in snippet.in_rgb for snippet in self.waiting)

    def reads_of(self, start: int) -> ReadRecorder:
        """The reads of the snippet that begins with this frame."""
        recorder = ReadRecorder(sys.maxsize, self.settings)
        snippets = _Waiting(start, set(), 0).snippets(recorder)
        for modality in self.modalities:
            snippets.planes(modality)
        return recorder

    def _begin(self, start: int) -> _Waiting:
        recorder = self.reads_of(start)
        in_rgb = recorder.frames_in_rgb(self.motion is not None)
        return _Waiting(start, in_rgb, max(start + STACK, *in_rgb, *(field + 1 for field in recorder.wanted["mv"])))
