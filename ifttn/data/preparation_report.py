"""The report of a preparation, <store>/report.csv: one row per video, with the result of the last attempt.

While a preparation runs, each row is added at once, so that it survives if the process is killed. At the end the file
is written again, sorted by name.
"""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError

STATUSES = ("done", "skipped", "failed", "missing")
REPORT = "report.csv"


class ReportRow(NamedTuple):
    """The result of one video."""

    video: str
    status: str
    """done, skipped (already in the store), failed, or missing (a list names it, but it is not in the folder)."""
    reason: str = ""
    """The reason of a failure."""
    notes: str = ""
    """Anything special in the preparation, such as re-encoding."""
    frames: int = 0
    seconds: float = 0.0
    bytes: int = 0
    """Size in the store."""
    quantised_mean: float = nan
    """Mean error of the flow as bytes, in pixels, within the bound, over a few fields of the video."""
    quantised_p999: float = nan
    """99.9th percentile of this error."""
    stored_mean: float = nan
    """Mean error of the flow as bytes and JPEG, in the same way."""
    stored_p999: float = nan
    saturated: float = nan
    """Share of the flow beyond the bound."""


def summary(report: pd.DataFrame) -> list[str]:
    """A summary of a report in a few lines: numbers of videos, bytes, errors of the stored flow, notes."""
    counts = report.status.value_counts()
    lines = [
        ", ".join(f"{counts.get(status, 0)} {status}" for status in STATUSES if status in counts or status != "missing")
    ]
    stored = report[report.status.isin(("done", "skipped"))]
    if len(stored):
        lines.append(f"{stored.frames.mean():.0f} frames and {stored.bytes.mean():,.0f} bytes per video")
    if stored.stored_mean.notna().any():
        lines.append(
            f"error of the flow as bytes: {stored.quantised_mean.mean():.3f} px on average, "
            f"{stored.quantised_p999.mean():.2f} px at the 99.9th percentile; as stored: "
            f"{stored.stored_mean.mean():.3f} and {stored.stored_p999.mean():.2f} px; "
            f"{stored.saturated.mean():.2%} of the flow is beyond the bound"
        )
    # The text in brackets differs from video to video.
    kinds = Counter(re.sub(r" \(.*?\)", "", note) for notes in stored.notes for note in notes.split("; ") if note)
    return lines + [f"{count} videos {note}" for note, count in kinds.most_common()]


def to_frame(rows: Mapping[str, ReportRow]) -> pd.DataFrame:
    """The rows, sorted by name."""
    return pd.DataFrame(sorted(rows.values()), columns=list(ReportRow._fields))


@contextmanager
def kept_report(folder: Path, rows: dict[str, ReportRow]) -> Iterator[Callable[[ReportRow], None]]:
    """Inside, report(row) adds a row to `rows` and to the file."""
    path = folder / REPORT

    def write() -> None:
        write_whole(path, to_frame(rows).to_csv(index=False).encode())

    write()
    try:
        with path.open("a", newline="", encoding="utf-8") as file:

            def report(row: ReportRow) -> None:
                rows[row.video] = row
                csv.writer(file).writerow(row)
                file.flush()

            yield report
    finally:
        write()


def read_report(folder: Path) -> dict[str, ReportRow]:
    """The row of each video in a store, by name. A report that a spreadsheet saved can be read, too.

    Raises:
        IfttnError: the file is no report.
    """
    path = folder / REPORT
    try:
        lines = io.StringIO(_text(path.read_bytes()), newline="").readlines()
    except FileNotFoundError:
        return {}
    table = csv.DictReader(lines, delimiter=max(",;\t", key=lines[0].count) if lines else ",")
    if not {"video", "status"} <= set(table.fieldnames or ()):
        raise IfttnError(
            f"{path} is no report of a preparation, because it has no columns video and status: remove it, and "
            "`ifttn prepare` writes it again"
        )
    found = list(table)
    if found and None in found[-1].values() and not lines[-1].endswith(("\n", "\r")):
        found.pop()  # a killed process may leave half a line
    defaults = ReportRow("", "")._asdict()
    rows = (ReportRow._make(_cell(line.get(name), default) for name, default in defaults.items()) for line in found)
    return {row.video: row for row in rows if row.status in STATUSES}


def _text(content: bytes) -> str:
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", "replace")


def _cell(text: str | None, default: str | int | float) -> str | int | float:
    """A cell with the type of the default. The default, if the cell is empty or was edited to another type."""
    try:
        return type(default)((text or "").replace(",", ".") if not isinstance(default, str) else text or "")
    except ValueError:
        return default
