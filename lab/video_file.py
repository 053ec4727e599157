"""The frames, the frame types and the length of a video file, a folder of images, or a part of one."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.video.frame import VideoFrame

from ifttn.data.live import FOLDER_FPS, FolderReader
from ifttn.data.losses import Losses
from ifttn.data.motion_vectors import KINDS
from ifttn.data.reencoding import turn_of
from ifttn.data.video import Reader, picture_stream
from ifttn.vocabulary import IfttnError

Span = tuple[float, float] | tuple[()]
"""First and last second of a part of a video; empty: the whole video."""


class _Part(Reader):
    """Reads the frames of a file in a span. It decodes from the key frame before the span."""

    def __init__(self, path: Path, span: tuple[float, float], size: tuple[int, int] | None = None) -> None:
        super().__init__(path, size)
        self._span, self.began = span, 0.0

    def frames(self, container: InputContainer) -> Iterator[VideoFrame]:
        """As `Reader.frames`, but damaged frames are skipped without a note."""
        stream = picture_stream(container, self.path)
        unit, first, (start, end) = float(stream.time_base or 1), stream.start_time or 0, self._span
        container.seek(first + int(start / unit), stream=stream)
        for packet in self._packets(container, stream, Losses(container, stream)):
            decoded = list[VideoFrame]()
            with suppress(InvalidDataError):
                decoded = packet.decode()
            for frame in decoded:
                stamp = (frame.dts if container.format.name == "avi" else frame.pts) or 0
                if (stamp - first) * unit >= end:
                    return
                if (stamp - first) * unit >= start:
                    self._note_time(stamp, unit)
                    self.began = (stamp - first) * unit - self.seconds[-1]
                    yield frame


class _PartOfImages(FolderReader):
    """Reads the images of a span."""

    def __init__(self, path: Path, span: tuple[float, float], size: tuple[int, int] | None = None) -> None:
        super().__init__(path, size)
        first, end = (round(FOLDER_FPS * second) for second in span)
        self._images, self.began = self._images[first:end], first / FOLDER_FPS


def reader(path: Path, span: Span = (), size: tuple[int, int] | None = None) -> Reader:
    """A reader of a video file, a folder of images, or a part of one."""
    if span:
        return (_PartOfImages if path.is_dir() else _Part)(path, span, size)
    return (FolderReader if path.is_dir() else Reader)(path, size)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise an IfttnError with the path for a file that is missing or cannot be read."""
    if not path.exists():
        raise IfttnError(f"{path} is not there: was the data set moved, or the name misspelt?")
    try:
        yield
    except (FFmpegError, OSError) as error:
        raise IfttnError(f"{path} cannot be read as a video ({error})") from error


def length(path: Path) -> float:
    """The length of a video by its header (s), without decoding; 0: the header has none.

    Raises:
        IfttnError: the file is missing, or is no video.
    """
    opened = reader(path)
    if isinstance(opened, FolderReader):
        return opened.count() / FOLDER_FPS
    with _readable(path), opened.opened() as container:
        stream = picture_stream(container, path)
        return float((stream.duration or 0) * (stream.time_base or 0)) or (container.duration or 0) / 1e6


def probe(path: Path, span: Span = ()) -> Generator[float, None, tuple[str, int, int]]:
    """Read in steps the type of every frame, and the width and height in which a player shows the video.

    Raises:
        IfttnError: the file is missing, or is no video.
    """
    opened, kinds, width, height = reader(path, span), [], 0, 0
    if isinstance(opened, FolderReader):
        return (yield from _probe_images(opened))
    with _readable(path), opened.opened() as container:
        aspect = float(picture_stream(container, path).sample_aspect_ratio or 1)
        for frame in opened.frames(container):
            if not kinds:
                width, height = round(frame.width * aspect), frame.height
                if turn_of(frame).transposed:
                    width, height = height, width
            kinds.append(KINDS[frame.pict_type])
            if len(kinds) % 256 == 0:
                yield 0.1 * len(kinds) / (len(kinds) + 1000)
    yield 0.1
    return "".join(kinds), width, height


def _probe_images(reader: FolderReader) -> Generator[float, None, tuple[str, int, int]]:
    """As `probe`, for a folder of images: each image is a complete frame (I)."""
    reader.is_encoded, count = False, 0
    for count, _ in enumerate(reader.chunks(keep=lambda index: False), 1):
        if count % 256 == 0:
            yield 0.1 * count / (count + 1000)
    yield 0.1
    width, height = reader.size
    return "I" * count, width, height
