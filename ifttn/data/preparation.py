"""Videos to store: decode, resize, optical flow and motion vectors, in parallel, resumable, with a report."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from ifttn.data import catalogue
from ifttn.data.decoding import decode
from ifttn.data.flow import FLOWS, to_bytes
from ifttn.data.store import Store, StoreFullError, StoreSettings, write_whole
from ifttn.vocabulary import IfttnError, Video

COLUMNS = ("video", "status", "reason", "frames", "seconds")
Row = tuple[str, str, str, int, float]


def prepare(
    root: Path,
    folder: Path,
    settings: StoreSettings,
    *,
    jobs: int | None = None,
    limit: int | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Put every video of the data set at `root` into the store at `folder`, and report on each.

    Videos that are there already are skipped, so the same command goes on after an interruption. A video that fails
    is reported with its reason and the rest go on; only a full disk ends the batch, with IfttnError.

    Args:
        root: a data set as `catalogue` knows it.
        folder: of the store, made where absent.
        settings: of the store; IfttnError where it was made with others.
        jobs: processes, by default one a CPU.
        limit: prepare this many videos only, spread evenly over the catalogue.
        progress: show a bar on stderr.

    Returns:
        A row for each video: video, status ("done", "skipped" or "failed"), reason (of a failure), frames, seconds.
        Also written to `folder`/report.csv.
    """
    if settings.flow not in FLOWS:
        raise IfttnError(f"unknown optical flow {settings.flow}; choose from {', '.join(FLOWS)}")
    videos = _spread(catalogue.all_videos(root), limit)
    store = Store.create(folder, settings)
    store.tidy()
    todo = [video for video in videos if video.name not in store]
    rows: list[Row] = [(v.name, "skipped", "", store.num_frames(v.name), 0.0) for v in videos if v.name in store]
    parallel = Parallel(n_jobs=jobs or -1, return_as="generator_unordered")
    work = cast(Iterator[Row], parallel(delayed(_prepare_one)(video, store) for video in todo))
    rows.extend(tqdm(work, total=len(todo), desc="prepare", unit="video", disable=not progress))
    store.tidy()
    report = pd.DataFrame(sorted(rows), columns=list(COLUMNS))
    write_whole(folder / "report.csv", report.to_csv(index=False).encode())
    return report


def _prepare_one(video: Video, store: Store) -> Row:
    cv2.setNumThreads(0)  # the processes are the parallelism
    began, settings = time.perf_counter(), store.settings
    try:
        decoded = decode(video.path, (settings.width, settings.height))
        if len(decoded.frames) < 2:
            raise IfttnError(f"{video.path}: has one frame, and motion needs two")
        flow = to_bytes(FLOWS[settings.flow](decoded.frames), settings.bound)
        store.write(video.name, decoded.frames, flow, to_bytes(decoded.vectors, settings.bound), decoded.fps)
    except StoreFullError:
        raise
    except IfttnError as error:
        return video.name, "failed", str(error), 0, time.perf_counter() - began
    return video.name, "done", "", len(decoded.frames), time.perf_counter() - began


def _spread(videos: Sequence[Video], limit: int | None) -> Sequence[Video]:
    if limit is None or limit >= len(videos):
        return videos
    return [videos[i] for i in np.linspace(0, len(videos) - 1, limit).astype(int)]
