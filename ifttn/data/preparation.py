"""Videos to store: decode, resize, optical flow and motion vectors, in parallel, resumable, with a report.

The report is no part of what is prepared: its seconds differ from run to run, and the rest of the store never does.
"""

import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from ifttn.data import catalogue
from ifttn.data.entry import Origin, flow_error
from ifttn.data.flow import device_for, luminance, to_bytes
from ifttn.data.flow_service import FlowHere, FlowService, serve
from ifttn.data.frame_folder import images_of
from ifttn.data.frame_source import StoreSettings
from ifttn.data.live import reader_of
from ifttn.data.preparation_report import ReportRow, kept_report, read_report, to_frame
from ifttn.data.store import SUFFIX, Store
from ifttn.data.video import spread
from ifttn.data.workers import Crash, each
from ifttn.files import DiskFullError, held
from ifttn.vocabulary import IfttnError, Video

MEASURED = 4
"""Fields of a video, evenly spread, on which the error of the stored flow is measured."""


def prepare(
    root: Path,
    folder: Path,
    settings: StoreSettings,
    *,
    jobs: int | str | None = None,
    limit: int | None = None,
    progress: bool = True,
    device: str | None = None,
) -> pd.DataFrame:
    """Put every video of the data set at `root` into the store at `folder`, and report on each.

    Videos that are there already are skipped, so the same command goes on after an interruption, however it came. A
    video whose file was replaced since, or whose entry is damaged, is prepared again. A video that fails, or that
    crashes the process that decodes it, is reported with its reason and the rest go on.

    A link is followed to a data set, a class folder, or a video within them; a video that is a link to somewhere else
    is refused, because a data set that was downloaded must not reach for other files of its user.

    Args:
        root: a data set as `catalogue` knows it.
        folder: of the store, made where absent.
        settings: of the store; IfttnError where it was made with others.
        jobs: processes, by default one a CPU; 1 is this process itself. Or the address of a Dask scheduler
            ("tcp://host:8786"): then `root` and `folder` must be on a file system that all its workers share.
        limit: prepare this many videos only, spread evenly over the catalogue.
        progress: show a bar on stderr.
        device: where optical flow is computed; by default where the store was begun, and else on a GPU if there is one
            (on a cluster: the CPU). One GPU serves all processes; in a cluster every worker uses its own.

    Returns:
        The `ReportRow` of each video of the data set that was tried in this run or before, in the order of the names.
        Also written to `folder`/report.csv.

    Raises:
        IfttnError: no data set, an unknown flow, a store that was made with other settings, of another data set or on
            another kind of device, or is being prepared by another process, a cluster that is not there. DiskFullError,
            also an IfttnError, ends the batch where the disk is full; the report up to there is kept.
    """
    device_for(settings.flow, "cpu")  # refuses an unknown flow before a store is made
    root, folder = root.resolve(), folder.resolve()
    contents, store = catalogue.contents(root), Store.create(folder, settings)
    with held(folder):
        again = _remove_outdated(contents, store, root)
        store.tidy()
        rows = _known_rows(contents, store)
        todo = [video for video in _evenly(contents.videos, limit) if _is_open(rows.get(video.name))]
        with (
            kept_report(folder, rows) as report,
            closing(_prepared(todo, store, root, jobs, device)) as outcomes,
            tqdm(total=len(todo), desc="prepare", unit="video", disable=not (progress and todo)) as bar,
        ):
            for row in outcomes:
                report(row._replace(notes="; ".join(filter(None, (again.get(row.video), row.notes)))))
                bar.update()
    return to_frame(rows)


def _evenly(videos: Sequence[Video], limit: int | None) -> Sequence[Video]:
    if limit is None or limit >= len(videos):
        return videos
    return [videos[i] for i in np.linspace(0, len(videos) - 1, limit).astype(int)]


def _is_open(row: ReportRow | None) -> bool:
    return row is None or row.status == "failed"


def _remove_outdated(contents: catalogue.Contents, store: Store, root: Path) -> dict[str, str]:
    """Remove the entries that are damaged, and those whose file was replaced. Returns why, by name.

    Raises:
        IfttnError: the entries were made of another data set.
    """
    again = dict.fromkeys(store.damaged(), "prepared again, since its entry was damaged")
    changed, prepared = store.changed(contents.videos), store.origins()
    common = sum(video.name in prepared for video in contents.videos)
    if prepared and store.data not in (None, root) and (common == len(changed) or (changed and store.data.is_dir())):
        raise IfttnError(
            f"{store.folder}: was prepared from {store.data}, and {root} holds other videos"
            + (f" under the same names (the first is {changed[0]})" if changed else "")
            + ": use another folder for the store of this data set"
        )
    again |= dict.fromkeys(changed, "prepared again, since its file was replaced")
    for name in again:
        store.remove(name)
    return again


def _known_rows(contents: catalogue.Contents, store: Store) -> dict[str, ReportRow]:
    """A row for each video that is in the store, failed before, or is listed and missing."""
    earlier, index = read_report(store.folder), store.index().set_index("video")
    rows = {name: ReportRow(name, "missing", "is listed, and not in the folder") for name in contents.missing}
    for name in (video.name for video in contents.videos):
        row = earlier.get(name)
        if name in index.index:
            if row is None or row.status not in ("done", "skipped"):
                row = ReportRow(name, "skipped", frames=int(index.frames[name]), bytes=int(index.bytes[name]))
            rows[name] = row._replace(status="skipped", seconds=0.0)
        elif row and row.status == "failed":
            rows[name] = row
    return rows


@dataclass(frozen=True)
class _Work:
    """What every process needs to know."""

    root: Path
    folder: Path
    flow: FlowHere | FlowService


def _prepared(
    todo: Sequence[Video], store: Store, root: Path, jobs: int | str | None, device: str | None
) -> Generator[ReportRow]:
    if not todo:
        return  # then device and libraries may differ from those that the store was begun with
    on_cluster = isinstance(jobs, str)
    flow = FlowHere(store.settings.flow, device_for(store.settings.flow, device or _usual_device(store, on_cluster)))
    newer = store.begin(root, flow.device.partition(":")[0])
    # One process uses the GPU for all, so that its memory does not hold everything once a process.
    is_served = flow.device != "cpu" and jobs != 1 and not on_cluster
    try:
        with serve(flow.name, flow.device) if is_served else nullcontext(flow) as source:
            function = partial(_prepare_one, work=_Work(root, store.folder, source))
            with closing(each(function, todo, jobs, shared=(root, store.folder / "manifest.json"))) as outcomes:
                for video, row in outcomes:
                    if isinstance(row, Crash):
                        row = ReportRow(video.name, "failed", f"{video.path}: {_reason(row)}")
                    elif row.status == "done":
                        row = row._replace(notes="; ".join(filter(None, (newer, row.notes))))
                    yield row
    finally:
        store.tidy()


def _usual_device(store: Store, on_cluster: bool) -> str:
    import torch

    has_gpu = torch.cuda.is_available()
    if store.device == "cuda" and not (has_gpu or on_cluster):
        raise IfttnError(
            f"{store.folder}: its flow was computed on a GPU, and there is none here: go on where there is one, "
            "or use another folder"
        )
    return store.device or ("cuda" if has_gpu and not on_cluster else "cpu")


def _reason(crash: Crash) -> str:
    if "SIGKILL" in crash.how:
        return "its process was killed, most likely because memory did not suffice: prepare fewer at once (--jobs)"
    return "the decoder crashed" + (f" ({crash.how})" if crash.how else "")


def _prepare_one(video: Video, work: _Work) -> ReportRow:
    cv2.setNumThreads(0)  # the processes are the parallelism
    began = time.perf_counter()
    try:
        row = _stored(video, work)
    except DiskFullError:  # ends the batch
        raise
    except IfttnError as error:
        row = ReportRow(video.name, "failed", " ".join(str(error).split()))
    except Exception as error:  # no video may end a batch of thousands; the report names it
        row = ReportRow(video.name, "failed", " ".join(f"{video.path}: {type(error).__name__}: {error}".split()))
    return row._replace(seconds=round(time.perf_counter() - began, 3))


def _stored(video: Video, work: _Work) -> ReportRow:
    store = Store(work.folder)
    settings = store.settings
    _check_file(video.path, work.root)
    origin = Origin.of(video.path, work.root)
    reader = reader_of(video.path, (settings.width, settings.height))
    measured = np.unique(np.linspace(0, max(0, reader.count() - 2), MEASURED).astype(int))
    samples, last = [], np.empty((0, settings.height, settings.width), np.uint8)
    with store.writing(video.name, origin) as writer:
        for chunk in reader.chunks():
            images = np.concatenate([last, luminance(chunk.frames)])
            fields = writer.frames - len(last) + np.arange(len(images) - 1)
            flow = work.flow(images, settings.bound, np.flatnonzero(np.isin(fields, measured)))
            vectors = to_bytes(chunk.blocks, settings.bound)
            writer.add(chunk.frames, flow.levels, spread(vectors, *reader.grid()))
            samples.append(flow.sampled)
            last = images[-1:]
        writer.fps = reader.fps
        if writer.frames < 2:
            raise IfttnError(f"{video.path}: has one frame, and motion needs two")
    error = flow_error(np.concatenate(samples), settings)
    anew = [f"encoded anew: {reader.transcoded}"] if reader.transcoded else []
    return ReportRow(
        video.name,
        "done",
        notes="; ".join([*anew, *reader.notes]),
        frames=writer.frames,
        bytes=(work.folder / "videos" / f"{video.name}{SUFFIX}").stat().st_size,
        quantised_mean=error.bytes_mean,
        quantised_p999=error.bytes_p999,
        stored_mean=error.stored_mean,
        stored_p999=error.stored_p999,
        saturated=error.saturated,
    )


def _check_file(path: Path, root: Path) -> None:
    is_folder = path.is_dir()
    for image in (path, *(images_of(path) if is_folder else ())):
        target = image.resolve() if image.is_symlink() else image
        if target is not image and not any(target.is_relative_to(inside) for inside in (root, image.parent.resolve())):
            raise IfttnError(
                f"{image}: is a link out of the data set, to {target}; copy it, or link the whole class folder"
            )
    if not (is_folder or path.is_file()):
        raise IfttnError(f"{path}: is {'no file' if path.exists() else 'not there'}")
    if not os.access(path, os.R_OK):
        raise IfttnError(f"{path}: may not be read (permission denied)")
    if path.stat().st_size == 0 and not is_folder:
        raise IfttnError(f"{path}: is empty")
