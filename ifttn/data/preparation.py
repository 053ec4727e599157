"""Prepare videos for a store: decode, resize, optical flow and motion vectors, in parallel, resumable, with a report.

The report is not part of the prepared data: its seconds differ from run to run, and the rest of the store never does.
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
"""Number of evenly spread fields of a video for which the error of the stored flow is measured."""


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
    """Prepare every video of the data set at `root` for the store at `folder`, and report on each.

    Videos that are already in the store are skipped, so that the same command continues after any interruption. A video
    whose file was replaced, or whose entry is damaged, is prepared again. A video that fails, or that crashes the
    process that decodes it, is reported with the reason, and the other videos are prepared.

    Links to a data set, to a class folder, or to a video within them are followed. A link from a video to another place
    is refused, because a downloaded data set must not read other files of its user.

    Args:
        root: a data set in a layout of `catalogue`.
        folder: folder of the store, made if it does not exist.
        settings: settings of the store.
        jobs: processes, by default one per CPU; 1 is this process itself. Or the address of a Dask scheduler
            ("tcp://host:8786"): then `root` and `folder` must be on a file system that all its workers share.
        limit: prepare only this many videos, spread evenly over the data set.
        progress: show a progress bar on stderr.
        device: device for optical flow; by default the device on which the store was begun, or for a new store a GPU if
            there is one (on a cluster: the CPU). One GPU serves all processes; on a cluster each worker uses its own.

    Returns:
        The `ReportRow` of each video that was tried in this run or before, sorted by name. It is also written to
        `folder`/report.csv.

    Raises:
        IfttnError: `root` is no data set; the flow is unknown; the store has other settings, another data set or
            another kind of device, or another process prepares it; or the cluster cannot be reached.
        DiskFullError: the disk is full. The report up to this point is kept.
    """
    device_for(settings.flow, "cpu")  # refuses an unknown flow before it makes a store
    root, folder = root.resolve(), folder.resolve()
    contents, store = catalogue.contents(root), Store.create(folder, settings)
    with held(folder):
        again = _remove_outdated(contents, store, root)
        store.tidy()
        rows = _known_rows(contents, store)
        failed = {name for name, row in rows.items() if row.status == "failed"}
        todo = [video for video in _evenly(contents.videos, limit) if video.name in failed or video.name not in rows]
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


def _remove_outdated(contents: catalogue.Contents, store: Store, root: Path) -> dict[str, str]:
    """Remove damaged entries and entries whose file was replaced. Returns the reason for each name.

    Raises:
        IfttnError: the entries come from another data set.
    """
    again = dict.fromkeys(store.damaged(), "prepared again, because its entry was damaged")
    changed, prepared = store.changed(contents.videos), store.origins()
    common = sum(video.name in prepared for video in contents.videos)
    if prepared and store.data not in (None, root) and (common == len(changed) or (changed and store.data.is_dir())):
        raise IfttnError(
            f"{store.folder} was prepared from {store.data}, and {root} holds other videos"
            + (f" under the same names (the first is {changed[0]})" if changed else "")
            + ": use another folder for the store of this data set"
        )
    again |= dict.fromkeys(changed, "prepared again, because its file was replaced")
    for name in again:
        store.remove(name)
    return again


def _known_rows(contents: catalogue.Contents, store: Store) -> dict[str, ReportRow]:
    """A row for each video that is in the store, failed before, or is listed and missing."""
    earlier, index = read_report(store.folder), store.index().set_index("video")
    rows = {name: ReportRow(name, "missing", "is listed, but not in the folder") for name in contents.missing}
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
    """The arguments that are the same for every video."""

    root: Path
    folder: Path
    flow: FlowHere | FlowService


def _prepared(
    todo: Sequence[Video], store: Store, root: Path, jobs: int | str | None, device: str | None
) -> Generator[ReportRow]:
    if not todo:
        return  # without work, the device and the libraries may differ from those of the store
    on_cluster = isinstance(jobs, str)
    flow = FlowHere(store.settings.flow, device_for(store.settings.flow, device or _usual_device(store, on_cluster)))
    newer = store.begin(root, flow.device.partition(":")[0])
    # One process uses the GPU for all others, because each process on a GPU needs memory for its own libraries.
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
            f"{store.folder}: its flow was computed on a GPU, and this machine has no GPU: continue on a machine with "
            "a GPU, or use another folder"
        )
    return store.device or ("cuda" if has_gpu and not on_cluster else "cpu")


def _reason(crash: Crash) -> str:
    if "SIGKILL" in crash.how:
        return "its process was killed, most likely because memory ran out: prepare fewer videos at once (--jobs)"
    return "the decoder crashed" + (f" ({crash.how})" if crash.how else "")


def _prepare_one(video: Video, work: _Work) -> ReportRow:
    cv2.setNumThreads(0)  # the work is already parallel over processes
    began = time.perf_counter()
    try:
        row = _stored(video, work)
    except DiskFullError:  # ends the batch
        raise
    except IfttnError as error:
        row = ReportRow(video.name, "failed", " ".join(str(error).split()))
    except Exception as error:  # one video must not end a batch of thousands; the report names it
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
            raise IfttnError(f"{video.path}: has only one frame, and motion needs two")
    how = [f"re-encoded: {reader.transcoded}"] if reader.transcoded else []
    row = ReportRow(video.name, "done", notes="; ".join([*how, *reader.notes]), frames=writer.frames)
    size = (work.folder / "videos" / f"{video.name}{SUFFIX}").stat().st_size
    return row._replace(bytes=size, **flow_error(np.concatenate(samples), settings))


def _check_file(path: Path, root: Path) -> None:
    is_folder = path.is_dir()
    for image in (path, *(images_of(path) if is_folder else ())):
        target = image.resolve() if image.is_symlink() else image
        if target is not image and not any(target.is_relative_to(inside) for inside in (root, image.parent.resolve())):
            raise IfttnError(
                f"{image}: is a link to {target}, outside the data set; copy the file, or link the class folder"
            )
    if not (is_folder or path.is_file()):
        raise IfttnError(f"{path}: {'is no file' if path.exists() else 'does not exist'}")
    if not os.access(path, os.R_OK):
        raise IfttnError(f"{path}: cannot be read (permission denied)")
    if path.stat().st_size == 0 and not is_folder:
        raise IfttnError(f"{path}: is empty")
