"""The report of a study as one HTML file, from the template `report.html`. It has no script and loads nothing."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from jinja2 import Environment, FileSystemLoader

from ifttn.experiment.claims import EXPLAINED, MARGIN, Finding
from ifttn.experiment.reversal_frames import EXPLAINED_REVERSALS
from ifttn.experiment.steps import Progress
from ifttn.experiment.table_frames import to_frame
from ifttn.experiment.table_texts import ended_short, p_text, reasons
from ifttn.experiment.tables import Table
from ifttn.files import write_whole
from ifttn.vocabulary import duration
from lab.sketches import prose
from lab.tables import claims_matrix, details, page_html, page_table, reversal_tables


class Illustration(NamedTuple):
    """A picture of the report, with its caption."""

    title: str
    """Screen readers read it."""
    caption: str
    png: bytes

    @property
    def heading(self) -> str:
        """The title up to a colon."""
        return self.title.partition(":")[0]

    @property
    def anchor(self) -> str:
        """The heading as the id of an HTML element."""
        return re.sub(r"[^a-z0-9]+", "-", self.heading.lower()).strip("-")


@dataclass(frozen=True)
class About:
    """How the study was made."""

    preset: str
    device: str
    datasets: Mapping[str, str]
    """Name -> a line about the data set."""
    seeds: tuple[int, ...]
    versions: Mapping[str, str]
    date: str
    title: str = "Information Fused Temporal Transformation Network"


def steps(progress: Progress) -> pd.DataFrame:
    """The steps of a study, in order.

    Columns: kind ("videos", "store", a recipe, "figures"), subject (a data set and split), state ("done", "running",
    "to come", "failed"), seconds (0 if it took no time), reason (of a failure).
    """
    rows = []
    for name in (step.name for step in progress.steps):
        subject, _, kind = name.partition(": ")
        states = {"failed": progress.failed, "done": progress.done, "running": progress.running}
        state = next((state for state, names in states.items() if name in names), "to come")
        rows.append((kind, subject, state, progress.seconds.get(name, 0.0), progress.failed.get(name, "")))
    return pd.DataFrame(rows, columns=["kind", "subject", "state", "seconds", "reason"])


def result_in_short(tables: Sequence[Table]) -> list[str]:
    """Up to three sentences about the measured cells of Tables 3 and 4."""
    cells = {(each.number, cell.source): cell.accuracy for each in tables for cell in each.measured}
    whole, branch, streams = (cells.get((3, source)) for source in ("complete", "ttn-branch", "two-stream"))
    vectors, sentences = cells.get((4, "mv-complete")), []
    if whole and streams:
        percent = whole.percent
        sentences.append(
            f"On {whole.dataset}, the accuracy of IF-TTN is {percent['measured']:.1f} % on {whole.videos} test videos "
            f"(95 % interval {percent['low']:.1f} to {percent['high']:.1f}), and that of two streams with late fusion "
            f"is {streams.percent['measured']:.1f} %."
        )
    if branch and streams and "reversed" in branch.percent and "reversed" in streams.percent:
        (before, after), (own, own_after) = (
            [each.percent[reading] for reading in ("one view", "reversed")] for each in (branch, streams)
        )
        sentences.append(
            "On one view of each video, with its snippets in reverse order, the accuracy of the TTN branch goes from "
            f"{before:.1f} % to {after:.1f} %, and that of two streams "
            f"{'stays at' if own == own_after else f'goes from {own:.1f} % to'} {own_after:.1f} %."
        )
    if vectors:
        sentences.append(
            "With motion vectors of the file instead of optical flow, the accuracy of IF-TTN is "
            f"{vectors.percent['measured']:.1f} %."
        )
    return [sentence.replace(" %", "\N{NO-BREAK SPACE}%") for sentence in sentences]


def write(
    path: Path,
    about: About,
    progress: Progress,
    tables: Sequence[Table],
    pictures: Sequence[Illustration],
    findings: Sequence[Finding] = (),
    reversals: pd.DataFrame | None = None,
) -> None:
    """Write the report, whole or not at all. A study calls it after every step.

    Args:
        path: the HTML file.
        about: how the study was made.
        progress: the steps of the study.
        tables: with the accuracies of the tested runs.
        pictures: the drawn figures.
        findings: the verdicts on the paper's claims.
        reversals: predictions for actions that are played backwards (`reversal_table`), or None.
    """
    every = steps(progress)
    took_time = every[every["seconds"] > 0].groupby("kind")["seconds"].agg(["size", "sum"])
    frames = [(table.number, to_frame(table)) for table in tables]
    page = ENVIRONMENT.get_template("report.html").render(
        about=about,
        steps=every.to_dict("records"),
        done=len(progress.done),
        seconds=sum(every["seconds"], start=0.0),
        kinds=sorted(took_time.itertuples(name=None), key=lambda kind: -kind[2]),
        tables=frames,
        short=result_in_short(tables),
        factors=any(frame.attrs["factors"] for _, frame in frames),
        pictures=pictures,
        findings=findings,
        claims=claims_matrix(findings),
        reversals=[] if reversals is None or reversals.empty else reversal_tables(reversals),
    )
    write_whole(path, page.encode())


ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    finalize=lambda value: prose(value) if isinstance(value, str) else value,
)
ENVIRONMENT.filters.update(
    duration=duration,
    base64=lambda content: base64.b64encode(content).decode(),
    reasons=lambda frame: reasons(frame.to_dict("list")),
    ended_short=lambda frame: ended_short(frame.to_dict("list")),
    p_text=p_text,
    page_table=lambda frame: page_html(page_table(frame)),
    details=lambda frame: page_html(details(frame)),
    page_html=page_html,
)
ENVIRONMENT.globals.update(
    explained=EXPLAINED,
    margin=100 * MARGIN,
    explained_reversals=EXPLAINED_REVERSALS,
    colours={"supported": "holds", "undecided": "open", "not supported": "fails", "not measured": "quiet"},
)
