"""Writes an entry of a store a few frames at a time, so that a video of any length needs little memory."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import cv2
import numpy as np
from jaxtyping import UInt8

from ifttn.files import not_written, written_whole
from ifttn.vocabulary import IfttnError

IN_MEMORY = 1 << 24
"""Bytes of a modality that are kept in memory. More bytes go to a temporary file."""


def encoded(image: UInt8[np.ndarray, "..."], quality: int) -> UInt8[np.ndarray, " bytes"]:
    """A JPEG of one plane, or of three planes in the order blue, green, red."""
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].ravel()


class EntryWriter:
    """Collects the JPEGs of one video, a few at a time, and writes them as one safetensors file at the end."""

    def __init__(self, name: str, size: tuple[int, int], quality: int, parts: Mapping[str, IO[bytes]]) -> None:
        """`size` is (height, width) of the frames. `parts` keep the JPEGs of each modality until `write`."""
        self.name, self.size, self.quality, self._parts = name, size, quality, parts
        self.fps = 0.0
        """Frames per second. Set it before `write`."""
        self._ends: dict[str, list[int]] = {modality: [0] for modality in self._parts}

    @property
    def frames(self) -> int:
        """Number of frames so far."""
        return len(self._ends["rgb"]) - 1

    def add(
        self,
        frames: UInt8[np.ndarray, "N H W 3"],
        flow: UInt8[np.ndarray, "M 2 H W"],
        mv: UInt8[np.ndarray, "M 2 H W"],
    ) -> None:
        """Add the next frames, and the motion fields that end at these frames.

        Args:
            frames: frames in RGB.
            flow: optical flow, as bytes of `flow.to_bytes`. M is N, except N - 1 at the start of the video.
            mv: motion vectors, in the same form.

        Raises:
            IfttnError: shapes do not fit, or the disk is full.
        """
        if frames.shape[1:] != (*self.size, 3):
            raise IfttnError(f"{self.name}: frames of {frames.shape[1:3]} do not fit a store of {self.size}")
        fields = len(frames) - (self.frames == 0)
        if {flow.shape, mv.shape} != {(fields, 2, *self.size)}:
            raise IfttnError(
                f"{self.name}: {len(frames)} frames do not fit flow of {flow.shape} and vectors of {mv.shape}"
            )
        height, width = self.size
        for modality, images in (("rgb", frames[..., ::-1]), ("flow", flow), ("mv", mv)):
            for image in images if modality == "rgb" else images.reshape(-1, 2 * height, width):
                jpeg = encoded(image, self.quality)
                try:
                    self._parts[modality].write(jpeg.data)
                except OSError as error:
                    raise not_written(Path(self.name), error) from error
                self._ends[modality].append(self._ends[modality][-1] + len(jpeg))

    def write(self, path: Path, about: Mapping[str, str]) -> None:
        """Write the file, with `about` in the metadata. Raises IfttnError if the file cannot be written."""
        # The safetensors library cannot write in pieces, and writes several keys of metadata in random order. Like the
        # library, this writes first offsets and then bytes, each sorted by name, and pads the header with spaces.
        sizes = [(f"{m}.offsets", "I64", len(ends), 8 * len(ends)) for m, ends in self._ends.items()]
        sizes += [(modality, "U8", ends[-1], ends[-1]) for modality, ends in self._ends.items()]
        header: dict[str, Any] = {"__metadata__": {"fps": str(float(self.fps)), **about}}
        place = 0
        for name, kind, length, size in sizes:
            header[name] = {"dtype": kind, "shape": [length], "data_offsets": [place, place + size]}
            place += size
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        with written_whole(path) as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for ends in self._ends.values():
                file.write(np.array(ends, "<i8").data)
            for part in self._parts.values():
                part.seek(0)
                shutil.copyfileobj(part, file)


@contextmanager
def entry_writer(name: str, folder: Path, size: tuple[int, int], quality: int) -> Iterator[EntryWriter]:
    """A writer that is valid inside the block. Temporary files go to `folder`, on the disk of the entry."""

    def part() -> SpooledTemporaryFile[bytes]:
        return SpooledTemporaryFile(IN_MEMORY, dir=str(folder))

    with part() as flow, part() as mv, part() as rgb:
        yield EntryWriter(name, size, quality, {"flow": flow, "mv": mv, "rgb": rgb})
