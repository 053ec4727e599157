"""The prepared data set on disk: RGB, optical flow and motion vectors of every video, ready to be sampled.

    <folder>/manifest.json                 settings and library versions
    <folder>/index.parquet                 one row a video
    <folder>/videos/<name>.safetensors     per modality: all its JPEGs end to end, and where each begins

A colour JPEG holds a frame; a grey JPEG holds a motion field, its y plane below its x plane. A reader maps the file
and touches only the JPEGs that it asks for.
"""

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd
from jaxtyping import Integer, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ifttn.vocabulary import IfttnError

SUFFIX = ".safetensors"
PARTIAL = ".partial"
LIBRARIES = ("av", "opencv-python-headless", "safetensors")


class StoreFullError(IfttnError):
    """The disk is full: no further video can be written either."""


@dataclass(frozen=True)
class StoreSettings:
    """How the videos of a store were prepared; one store holds one kind."""

    width: int
    height: int
    bound: float
    """Displacement in pixels of the stored size that byte 255 stands for."""
    flow: str = "dis"
    """Name of the optical flow, a key of flow.FLOWS."""
    quality: int = 95
    """Of the JPEGs, 1..100."""


class Store:
    """A folder of prepared videos. Names are those of the catalogue: "<class>/<file without suffix>"."""

    def __init__(self, folder: Path) -> None:
        """Open what `create` made; IfttnError where there is no store."""
        self.folder = folder
        try:
            self.settings = StoreSettings(**json.loads((folder / "manifest.json").read_text())["settings"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IfttnError(f"{folder}: no prepared data set (manifest.json is missing or damaged)") from error

    @classmethod
    def create(cls, folder: Path, settings: StoreSettings) -> "Store":
        """Make a store, or open the one that is there; IfttnError where it was prepared with other settings."""
        if not (folder / "manifest.json").exists():
            manifest = {"settings": asdict(settings), "libraries": {name: version(name) for name in LIBRARIES}}
            write_whole(folder / "manifest.json", json.dumps(manifest, indent=2).encode())
        store = cls(folder)
        if store.settings != settings:
            raise IfttnError(f"{folder}: was prepared with {store.settings}, not {settings}; use another folder")
        return store

    def __contains__(self, name: str) -> bool:
        return self._path(name).exists()

    def write(
        self,
        name: str,
        frames: UInt8[np.ndarray, "T H W 3"],
        flow: UInt8[np.ndarray, "T-1 2 H W"],
        mv: UInt8[np.ndarray, "T-1 2 H W"],
        fps: float,
    ) -> None:
        """Add a video, whole or not at all. RGB frames; motion as bytes of `flow.to_bytes`."""
        size = (self.settings.height, self.settings.width)
        if frames.shape[1:3] != size:
            raise IfttnError(f"{name}: frames of {frames.shape[1:3]} do not fit a store of {size}")
        tensors = {}
        for modality, planes in (("rgb", frames[..., ::-1]), ("flow", flow), ("mv", mv)):
            jpegs = [self._jpeg(each if modality == "rgb" else each.reshape(-1, size[1])) for each in planes]
            tensors[modality] = np.concatenate(jpegs)
            tensors[f"{modality}.offsets"] = np.cumsum([0, *map(len, jpegs)])
        metadata = {"frames": str(len(frames)), "fps": str(fps)}
        write_whole(self._path(name), save(tensors, metadata))

    def read(self, name: str, modality: str, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n C H W"]:
        """Frames ("rgb", C = 3) or motion fields ("flow", "mv", C = 2) by index, in the order asked for."""
        flag = cv2.IMREAD_COLOR_RGB if modality == "rgb" else cv2.IMREAD_GRAYSCALE
        with self._open(name) as file:
            offsets = file.get_tensor(f"{modality}.offsets")
            jpegs = file.get_slice(modality)
            images = [cv2.imdecode(jpegs[offsets[index] : offsets[index + 1]], flag) for index in indices]
        planes = np.stack(cast(list[np.ndarray], images))
        if modality == "rgb":
            return np.ascontiguousarray(planes.transpose(0, 3, 1, 2))
        return planes.reshape(len(images), 2, self.settings.height, self.settings.width)

    def num_frames(self, name: str) -> int:
        """T; there are T - 1 fields of each motion."""
        return int(self._metadata(name)["frames"])

    def index(self) -> pd.DataFrame:
        """A row for each video, sorted by name: video, frames, fps, bytes."""
        root = self.folder / "videos"
        rows = []
        for path in sorted(root.rglob(f"*{SUFFIX}")):
            name = path.relative_to(root).as_posix().removesuffix(SUFFIX)
            metadata = self._metadata(name)
            rows.append((name, int(metadata["frames"]), float(metadata["fps"]), path.stat().st_size))
        return pd.DataFrame(rows, columns=["video", "frames", "fps", "bytes"])

    def tidy(self) -> None:
        """Remove what interrupted writes left behind and renew index.parquet; only while nobody writes."""
        for leftover in self.folder.rglob(f"*{PARTIAL}"):
            leftover.unlink()
        write_whole(self.folder / "index.parquet", self.index().to_parquet(index=False))

    def _path(self, name: str) -> Path:
        return self.folder / "videos" / f"{name}{SUFFIX}"

    def _metadata(self, name: str) -> dict[str, str]:
        with self._open(name) as file:
            return file.metadata()

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[safe_open]:
        try:
            file = safe_open(self._path(name), "np")
        except (OSError, SafetensorError) as error:
            raise IfttnError(f"{name}: is not in the store {self.folder}, or is damaged ({error})") from error
        with file:
            yield file

    def _jpeg(self, image: np.ndarray) -> np.ndarray:
        return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, self.settings.quality])[1].ravel()


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees all of it or none; StoreFullError where the disk is full, else IfttnError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):  # where it was never made, or its folder is none
            partial.unlink()
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFullError(f"{path.parent}: the disk is full; what was prepared so far stays readable") from error
        raise IfttnError(f"{path}: cannot be written ({error.strerror})") from error
