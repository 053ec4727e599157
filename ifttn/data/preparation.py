"""Videos to store: decode, resize, optical flow and motion vectors, in parallel, resumable, with a report.

    <store>/report.csv              one row a video, of the last attempt: what became of it, how long it took
    <store>/.report-journal.csv     the rows since then; there while a preparation runs, or where one was killed

The report is no part of what is prepared: its seconds differ from run to run, the rest of the store never does.
"""

import codecs
import csv
import io
import os
import re
import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from math import nan
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from tqdm import tqdm

from ifttn.data import catalogue
from ifttn.data.entry import flow_error
from ifttn.data.flow import FLOWS, flow_of, to_bytes
from ifttn.data.flow_service import FlowService, serve
from ifttn.data.frame_source import StoreSettings
from ifttn.data.origin import Origin
from ifttn.data.store import SUFFIX, Store
from ifttn.data.workers import Crash, each
from ifttn.files import DiskFullError, held, write_whole
from ifttn.vocabulary import IfttnError, Video

STATUSES = ("done", "skipped", "failed", "missing")
REPORT, JOURNAL = "report.csv", ".report-journal.csv"
FRAMES_AT_ONCE = 64
"""Frames of a video that are in memory at once."""
MEASURED = 4
"""Fields of a video, evenly spread, on which the error of the stored flow is measured."""
_FULL = "full"


class Row(NamedTuple):
    """What became of a video."""

    video: str
    status: str
    """done, skipped (it was in the store), failed, or missing (a list names it, the folder lacks it)."""
    reason: str = ""
    """Of a failure."""
    notes: str = ""
    """What was done to it on the way, such as a new encoding."""
    frames: int = 0
    seconds: float = 0.0
    bytes: int = 0
    """In the store."""
    quantised_mean: float = nan
    """Mean error of the flow as bytes, in pixels, within the bound; of `MEASURED` fields a video."""
    quantised_p999: float = nan
    """Its 99.9th percentile."""
    stored_mean: float = nan
    """The same of what the store gives back: bytes and JPEG."""
    stored_p999: float = nan
    saturated: float = nan
    """Share of the flow beyond the bound."""


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
        The `Row` of each video of the data set that was tried in this run or before, in the order of the names. Also
        written to `folder`/report.csv.

    Raises:
        IfttnError: no data set, an unknown flow, a store that was made with other settings, of another data set or on
            another kind of device, or is being prepared by another process, a cluster that is not there. DiskFullError,
            also an IfttnError, ends the batch where the disk is full; the report up to there is kept.
    """
    if settings.flow not in FLOWS:
        raise IfttnError(f"unknown optical flow {settings.flow}; choose from {', '.join(FLOWS)}")
    root, folder = root.resolve(), folder.resolve()
    contents, store = catalogue.contents(root), Store.create(folder, settings)
    with held(folder):
        again = _cleared(contents, store, root)
        store.tidy()
        rows = _known(contents, store)
        _write_report(folder, rows)
        todo = [video for video in _spread(contents.videos, limit) if _is_open(rows.get(video.name))]
        newer = ""
        if todo:  # else nothing needs to be as it was
            device = device or _usual_device(store, on_cluster=isinstance(jobs, str))
            newer = store.begin(root, "cpu" if settings.flow == "dis" else device.partition(":")[0])
        try:
            with (
                warnings.catch_warnings(),
                _journal(folder) as note,
                closing(_outcomes(todo, _Work(root, folder, device or "cpu"), jobs)) as outcomes,
                tqdm(total=len(todo), desc="prepare", unit="video", disable=not (progress and todo)) as bar,
            ):
                # joblib's processes are renewed when they have grown; its warning is no news to a user.
                warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
                for row in outcomes:
                    notes = (again.get(row.video, ""), newer if row.status == "done" else "", row.notes)
                    row = row._replace(notes="; ".join(filter(None, notes)))
                    note(row)
                    rows[row.video] = row
                    bar.update()
        finally:
            store.tidy()
            report = _write_report(folder, rows)
    return report


def summary(report: pd.DataFrame) -> list[str]:
    """Lines that tell what a report says: how many videos, bytes, errors of the stored flow, notes."""
    counts = report.status.value_counts()
    lines = [
        ", ".join(f"{counts.get(status, 0)} {status}" for status in STATUSES if status in counts or status != "missing")
    ]
    stored = report[report.status.isin(("done", "skipped"))]
    if len(stored):
        lines.append(f"{stored.frames.mean():.0f} frames and {stored.bytes.mean():,.0f} bytes a video")
    if stored.stored_mean.notna().any():
        lines.append(
            f"error of the flow as bytes: {stored.quantised_mean.mean():.3f} px on average, "
            f"{stored.quantised_p999.mean():.2f} px at the 99.9th percentile; as stored: "
            f"{stored.stored_mean.mean():.3f} and {stored.stored_p999.mean():.2f} px; "
            f"{stored.saturated.mean():.2%} of the flow is beyond the bound"
        )
    # What stands in brackets is of one video.
    kinds = Counter(re.sub(r" \(.*?\)", "", note) for notes in stored.notes for note in notes.split("; ") if note)
    return lines + [f"{count} videos {note}" for note, count in kinds.most_common()]


@dataclass(frozen=True)
class _Work:
    """What every process needs to know."""

    root: Path
    folder: Path
    device: str
    service: FlowService | None = None


def _usual_device(store: Store, on_cluster: bool) -> str:
    import torch

    has_gpu = torch.cuda.is_available()
    if store.device == "cuda" and not (has_gpu or on_cluster):
        raise IfttnError(
            f"{store.folder}: its flow was computed on a GPU, and there is none here: go on where there is one, "
            "or use another folder"
        )
    return store.device or ("cuda" if has_gpu and not on_cluster else "cpu")


def _cleared(contents: catalogue.Contents, store: Store, root: Path) -> dict[str, str]:
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


def _outcomes(todo: Sequence[Video], work: _Work, jobs: int | str | None) -> Generator[Row]:
    flow = Store(work.folder).settings.flow
    with serve(flow, work.device) if _is_shared(flow, work.device, jobs) else nullcontext() as service:
        function = partial(_prepare_one, work=replace(work, service=service))
        with closing(each(function, todo, jobs, shared=(work.root, work.folder / "manifest.json"))) as outcomes:
            for video, row in outcomes:
                if isinstance(row, Crash):
                    reason = f"{video.path}: {_ended(row)}"
                    row = Row(video.name, "failed", reason)
                if row.status == _FULL:
                    raise DiskFullError(row.reason)
                yield row


def _ended(crash: Crash) -> str:
    if "SIGKILL" in crash.how:
        return "its process was killed, most likely because memory did not suffice: prepare fewer at once (--jobs)"
    return "the decoder crashed" + (f" ({crash.how})" if crash.how else "")


def _is_shared(flow: str, device: str, jobs: int | str | None) -> bool:
    """Whether this process computes the flow for the others: a GPU is not to hold one copy of everything for each."""
    return flow != "dis" and device != "cpu" and not isinstance(jobs, str) and jobs != 1  # DIS knows no GPU


def _prepare_one(video: Video, work: _Work) -> Row:
    cv2.setNumThreads(0)  # the processes are the parallelism
    began = time.perf_counter()
    try:
        row = _stored(video, work)
    except DiskFullError as error:
        return Row(video.name, _FULL, str(error))
    except IfttnError as error:
        row = Row(video.name, "failed", " ".join(str(error).split()))
    except Exception as error:  # no video may end a batch of thousands; the report names it
        row = Row(video.name, "failed", " ".join(f"{video.path}: {type(error).__name__}: {error}".split()))
    return row._replace(seconds=round(time.perf_counter() - began, 3))


def _stored(video: Video, work: _Work) -> Row:
    from ifttn.data.video import Reader, spread  # a training reads reports here, and needs no decoder

    store = Store(work.folder)
    settings = store.settings
    _check_file(video.path, work.root)
    origin = Origin.of(video.path, work.root)
    reader = Reader(video.path, (settings.width, settings.height))
    measured = np.unique(np.linspace(0, max(0, reader.count() - 2), MEASURED).astype(int))
    samples, last = [], np.empty((0, settings.height, settings.width, 3), np.uint8)
    with store.writing(video.name, origin) as writer:
        for chunk in reader.chunks(length=FRAMES_AT_ONCE):
            frames = np.concatenate([last, chunk.frames])
            flow = work.service(frames) if work.service else flow_of(settings.flow, frames, work.device)
            vectors = to_bytes(chunk.blocks, settings.bound)
            writer.add(chunk.frames, to_bytes(flow, settings.bound), spread(vectors, *reader.grid()))
            fields = np.arange(writer.frames - len(flow) - 1, writer.frames - 1)
            samples.append(flow[np.isin(fields, measured)])
            last = frames[-1:]
        writer.fps = reader.fps
        if writer.frames < 2:
            raise IfttnError(f"{video.path}: has one frame, and motion needs two")
    error = flow_error(np.concatenate(samples), settings)
    anew = [f"encoded anew: {reader.transcoded}"] if reader.transcoded else []
    return Row(
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
    target = path.resolve()
    if path.is_symlink() and not any(target.is_relative_to(folder) for folder in (root, path.parent.resolve())):
        raise IfttnError(f"{path}: is a link out of the data set, to {target}; copy it, or link the whole class folder")
    if not path.is_file():
        raise IfttnError(f"{path}: is {'no file' if path.exists() else 'not there'}")
    if not os.access(path, os.R_OK):
        raise IfttnError(f"{path}: may not be read (permission denied)")
    if path.stat().st_size == 0:
        raise IfttnError(f"{path}: is empty")


def _spread(videos: Sequence[Video], limit: int | None) -> Sequence[Video]:
    if limit is None or limit >= len(videos):
        return videos
    return [videos[i] for i in np.linspace(0, len(videos) - 1, limit).astype(int)]


def _is_open(row: Row | None) -> bool:
    return row is None or row.status == "failed"


def _known(contents: catalogue.Contents, store: Store) -> dict[str, Row]:
    """A row for each video that is in the store, failed before, or is listed and missing."""
    earlier = read_report(store.folder)
    index = store.index()
    stored = {
        name: Row(name, "skipped", frames=frames, bytes=size)
        for name, frames, size in zip(index.video, index.frames, index.bytes, strict=True)
    }
    rows = {name: Row(name, "missing", "is listed, and not in the folder") for name in contents.missing}
    for name in (video.name for video in contents.videos):
        before = earlier.get(name, Row(name, "new"))
        if name in stored:
            is_told = before.status in ("done", "skipped")
            rows[name] = before._replace(status="skipped", seconds=0.0) if is_told else stored[name]
        elif before.status == "failed":
            rows[name] = before
    return rows


def read_report(folder: Path) -> dict[str, Row]:
    """What became of each video in a store, by name; also where a spreadsheet has saved the report anew.

    Raises:
        IfttnError: the report has been replaced by something else.
    """
    return _rows_of(folder / REPORT) | _rows_of(folder / JOURNAL)


def _rows_of(path: Path) -> dict[str, Row]:
    try:
        lines = list(io.StringIO(_decoded(path.read_bytes()), newline=""))
    except FileNotFoundError:
        return {}
    if path.name == JOURNAL:  # who is killed may leave half a line
        lines = [line for line in lines if line.endswith("\n")]
    if not lines:
        return {}
    table = csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count))
    if not {"video", "status"} <= set(table.fieldnames or ()):
        raise IfttnError(
            f"{path} is no report of a preparation, because it has no columns video and status: remove it, and "
            "`ifttn prepare` writes it anew"
        )
    defaults = Row("", "")._asdict()
    rows = (Row._make(_cell(line.get(name), default) for name, default in defaults.items()) for line in table)
    return {row.video: row for row in rows if row.status in STATUSES}


def _decoded(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _cell(text: str | None, default: str | int | float) -> str | int | float:
    """A cell of the default's type; the default where it is empty or was edited into something else."""
    try:
        return type(default)((text or "").replace(",", ".") if not isinstance(default, str) else text or "")
    except ValueError:
        return default


def _write_report(folder: Path, rows: Mapping[str, Row]) -> pd.DataFrame:
    report = pd.DataFrame(sorted(rows.values()), columns=list(Row._fields))
    write_whole(folder / REPORT, report.to_csv(index=False).encode())
    (folder / JOURNAL).unlink(missing_ok=True)
    return report


@contextmanager
def _journal(folder: Path) -> Iterator[Callable[[Row], None]]:
    """note(row): keep a row even if this process is killed."""
    with (folder / JOURNAL).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)

        def note(row: Row) -> None:
            writer.writerow(row)
            file.flush()

        yield note
