"""`ifttn features`: write the features, votes and scores of each video to a file."""

import argparse
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ifttn.data import catalogue
from ifttn.data.entry import Entry
from ifttn.data.folders import Folder
from ifttn.data.frame_folder import is_frame_folder
from ifttn.data.lists import row_name
from ifttn.data.store import Store
from ifttn.experiment.runs import Run
from ifttn.files import DiskFullError, held, remove_leftovers, write_whole
from ifttn.recognizer import Recognizer
from ifttn.verbs.inputs import print_names
from ifttn.vocabulary import IfttnError


class Source(NamedTuple):
    """A video, in a file or in a store."""

    name: str
    """Name of the file of features, without the suffix."""
    place: Path | Store

    @contextmanager
    def opened(self) -> Iterator[Path | Entry]:
        """The argument of `Recognizer.features`."""
        if isinstance(self.place, Path):
            yield self.place
        else:
            with self.place.open(self.name) as entry:
                yield entry


def run(o: argparse.Namespace) -> int:
    """Write the missing files. The exit code is 1 if a video could not be read."""
    trained = Run(o.run)
    recognizer, failed = Recognizer.load(trained, o.device, o.crops), list[str]()
    videos = [video for path in o.video for video in sources_in(path, trained)]
    (twice, count), *_ = [*Counter(video.name for video in videos).most_common(1), ("", 0)]
    if count > 1:
        raise IfttnError(f"two of these videos would be {o.out / twice}.npz: use another --out for each folder")
    with held(o.out):
        remove_leftovers(o.out)
        refuse_another_run(o.out, trained, len(recognizer.crops))
        missing = [video for video in videos if not file_of(o.out, video).exists()]
        for video in tqdm(missing, "features", len(videos), initial=len(videos) - len(missing)):
            try:
                with video.opened() as opened:
                    write_arrays(file_of(o.out, video), recognizer.features(opened))
            except DiskFullError:
                raise
            except IfttnError as error:
                failed.append(f"{video.name}: {error}")
    print_names("failed", failed)
    print(f"{len(videos) - len(failed)} of {len(videos)} videos: {o.out}")
    return 1 if failed else 0


def file_of(out: Path, video: Source) -> Path:
    """The file of the features of a video."""
    return out / f"{video.name}.npz"


def sources_in(path: Path, trained: Run) -> Sequence[Source]:
    """The videos of a path: a file, a folder of frames, a store, a data set, or a folder of videos.

    Raises:
        IfttnError: the path has no video, or the store has other settings than the store of the run.
    """
    if (path / "manifest.json").is_file():
        store = Store(path)
        trained.fitting(trained.identity["actions"], store.settings)
        return [Source(name, store) for name in store.index().video]
    if path.is_file() or is_frame_folder(path):
        return [Source(row_name(path.name), path)]
    if loose := Folder(path).videos:
        return [Source(row_name(video.name), video) for video in loose]
    return [Source(video.name, video.path) for video in catalogue.contents(path).videos]


def refuse_another_run(out: Path, trained: Run, crops: int) -> None:
    """Record the network of the features in a folder.

    Raises:
        IfttnError: the folder holds features of other weights, or of another number of views.
    """
    weights = sha256((trained.folder / "weights.safetensors").read_bytes()).hexdigest()
    record, mine = out / "features.json", {"run": str(trained.folder), "weights": weights, "crops": crops}
    there = json.loads(record.read_text()) if record.exists() else mine
    if {**there, "run": ""} != {**mine, "run": ""}:
        raise IfttnError(
            f"{out} holds features of another network or of other views (weights of {there['run']}, "
            f"{there['crops']} views): use another --out, or remove this one"
        )
    write_whole(record, json.dumps(mine, indent=1).encode())


def write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write one .npz completely or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # pyright: ignore[reportArgumentType]
    write_whole(path, content.getbuffer())
