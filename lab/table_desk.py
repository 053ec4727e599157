"""A panel with the paper's tables: click a row to see its runs and errors, click an error to see its video."""

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd
from ipywidgets import HTML, Layout, Select, Textarea, ToggleButtons, VBox
from traitlets import HasTraits, Int, Unicode, link

from ifttn.experiment import results
from ifttn.experiment.claims import Finding
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import fuse_runs
from ifttn.experiment.table_frames import to_frame
from ifttn.experiment.table_texts import heading
from ifttn.experiment.tables import Cell, LateFusion, Table, load
from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError
from lab import sketches
from lab.inspector import Inspector
from lab.opener import Opener
from lab.panel import dropdown, ends, row
from lab.pickable import Pickable
from lab.shelf import Shelf
from lab.sketches import prose
from lab.tables import claims_matrix, texts_of, to_latex


class TableState(HasTraits):
    """All that a person chooses."""

    number = Int(3, help="number of the table")
    column = Int(0, help="number of the table's column, from 0")
    row = Int(-1, help="number of the chosen row, from 0; -1: none")
    split = Int(0, help="the split whose errors are listed; 0: the first tested one")
    error = Unicode(help="name of the chosen video")


class TableDesk(Opener):
    """`TableDesk("results")` in a cell.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        inspector: shows the video of an error; None: the panel makes one.
        out: the folder for LaTeX and CSV.
        number: of the first table.
    """

    state: TableState

    def __init__(
        self,
        results: Shelf | Path | str,
        inspector: Inspector | None = None,
        out: Path | str = "tables",
        number: int = 3,
    ) -> None:
        super().__init__("Tables", TableState(number=number), results, inspector)
        self.out = Path(out)
        self.tables: dict[int, Table] = {}
        self.findings: list[Finding] = []
        self._build()
        self.reload()

    def _build(self) -> None:
        numbers = [(f"Table {n}", n) for n in load()]
        self.number = ToggleButtons(options=numbers, value=self.state.number, style={"button_width": "68px"})
        self.column = ToggleButtons(options=["accuracy"], style={"button_width": "130px"})
        self._table = Pickable(lambda row: self.guard(self.choose, "row", int(row)))
        self._caption, self._notes, self._run, self._count = (HTML() for _ in range(4))
        self.split = dropdown("split")
        self.errors = Select(description="errors", rows=9, layout=Layout(width="auto"))
        self.errors.add_class("ifttn-errors")
        self.text = Textarea(layout=Layout(width="100%", height="170px", display="none"))
        actions = [
            self.button("LaTeX", lambda: self.export("tex"), f"save with booktabs in {self.out}"),
            self.button("CSV", lambda: self.export("csv"), f"save with all digits in {self.out}"),
            self.button("reload", self.reload, "read the scores of all runs again"),
        ]
        run = VBox([self._run], layout=Layout(flex="1 1 300px", min_width="280px"))
        wide = Layout(flex="2 1 600px", min_width="320px")  # the names of videos and actions are long
        errors = VBox([ends([self._count], [self.split]), self.errors, self._note], layout=wide)
        self.fill(row(self.number, self.column), self._caption, self._table, self._notes)
        self.fill(row(*actions), self.text, row(run, errors, align_items="stretch", grid_gap="18px", width="100%"))
        link((self.state, "number"), (self.number, "value"))
        self.offer("column", "split")
        self.watch(self.state, ["number"], self._turn)
        self.watch(self.state, ["column"], self._show)
        self.watch(self.state, ["row"], self._show_table)
        self.watch(self.state, ["row", "split"], self._show_row)
        self.watch_choice(self.errors, self._pick_error)

    def reload(self) -> None:
        """Read the scores of all runs."""
        self.work("reading scores", self._read)

    def _read(self) -> Iterator[float | None]:
        self.tables = self.shelf.tables()
        if not self.shelf.published:  # claims are decided by studies alone
            self.findings = self.shelf.results().findings()
        yield None
        self._show()
        found = list(self.tables.values())
        if not any(table.measured for table in found):
            raise IfttnError(f"the table has no measured number: {results.not_shown(self.shelf.places.runs, found)}")

    @property
    def table(self) -> Table:
        """The chosen table."""
        return self.tables[self.state.number]

    @property
    def cells(self) -> list[Cell]:
        """The cell of each row in the chosen column."""
        return [row[min(self.state.column, len(row) - 1)] for row in self.table.rows]

    def _turn(self) -> None:
        self.state.row = -1
        if self.state.column:
            self.state.column = 0  # this calls `_show`
        else:
            self._show()

    # -- the table

    def _show(self) -> None:
        if not self.tables:
            return
        table = self.table
        with self.filling():
            many = len(table.columns) > 1
            self.column.options = [(c.label, i) for i, c in enumerate(table.columns)]
            self.column.value = self.state.column
            self.column.layout.display = "" if many else "none"
        about = heading(table).removeprefix(table.caption)
        self._caption.value = f"<b>Table {table.number}. {prose(table.caption)}</b> <small>{prose(about)}</small>"
        self._show_table()
        found = "".join(
            f"<li><details><summary>{prose(text)}: {_verdicts(on)}</summary>"
            f"{''.join(f'<small>{prose(each.evidence)}</small><br>' for each in on.values())}</details></li>"
            for text, on in claims_matrix([each for each in self.findings if each.table == table.number]).items()
        )
        notes = "".join(f"<li><small>{prose(note)}</small></li>" for note in table.notes)
        self._notes.value = f"<ul style='margin:4px 0;padding:0;list-style:none'>{found}{notes}</ul>"
        self.text.layout.display = "none"
        self._show_row()

    def _show_table(self) -> None:
        """Show every row, with its difference from the paper if both numbers are of the same data set."""
        table, frame = self.table, to_frame(self.table)
        numbers, texts = frame.to_dict("records"), texts_of(frame).to_dict("records")
        last = ["videos", *["seeds"] * ("seeds" in texts[0]), *frame.attrs["factors"]]
        places = [table.cells.index(cell) for cell in self.cells]
        same = any(map(_of_the_papers, self.cells))
        names = [table.columns[self.state.column].label, "paper", "measured", *["diff."] * same, "95 % interval"]
        names += ["● measured ○ paper", *last]
        rows = "".join(
            f"<tr{' class=chosen' if row == self.state.row else ''}><th scope=row><button data-pick={row} "
            f"{'' if cell.accuracy else 'disabled'}>{escape(cell.method)}</button></th>"
            f"{_cells_html(cell, numbers[place], texts[place], last, same)}</tr>"
            for row, (cell, place) in enumerate(zip(self.cells, places, strict=True))
        )
        heads = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
        self._table.value = f"<table class=rows><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    # -- a row

    def _show_row(self) -> None:
        cell = self.cells[self.state.row] if 0 <= self.state.row < len(self.cells) else None
        accuracy, self._note.value = cell.accuracy if cell else None, ""
        for each in (self.split, self.errors):
            each.layout.display = "" if accuracy else "none"
        if cell is None or accuracy is None:
            self._run.value = "<div class=quiet>Choose a row to see its runs and their errors.</div>"
            self._count.value = ""
            return
        with self.filling():
            self.split.options = accuracy.splits
            split = self.state.split if self.state.split in accuracy.splits else accuracy.splits[0]
            self.split.value = split
        parts = self.table.late_fusions[cell.source]
        runs = self.shelf.runs(accuracy.dataset, split)
        lines = [f"<h4>{escape(cell.method)}</h4>"]
        for recipe, heads in parts.items():
            identity = runs[recipe].identity
            about = {
                "run": f"{accuracy.dataset}/split{split}/{recipe}",
                "weights": ", ".join(f"{head} {weight:g}" for head, weight in heads.items()),
                "fusion": identity["network"]["fusion"] or "none",
                "backbone": f"{identity['network']['backbone']} (preset {identity['preset']})",
                "stages": ", ".join(stage["name"] for stage in identity["recipe_row"]["stages"]),
                "seed": identity["seed"],
            }
            lines.append(sketches.definitions(about))
        self._run.value = "".join(lines)
        self._list_errors(runs, parts, accuracy.seeds > 1)

    def _list_errors(self, runs: Mapping[str, Run], parts: LateFusion, seeds: bool) -> None:
        """List the errors of one seed. `seeds`: the row of the table is the mean over several."""
        of = f" of seed {runs[next(iter(parts))].identity['seed']}" if seeds else ""
        scores = {recipe: runs[recipe].scores() for recipe in parts}
        fused = fuse_runs([(scores[recipe], heads) for recipe, heads in parts.items()])
        actions = next(iter(scores.values())).actions
        wrong = [
            (f"{video.rpartition('/')[2]}  predicted as  {actions[predicted]}", video)
            for video, predicted, right in zip(fused.videos, fused.scores.argmax(1), fused.right(), strict=True)
            if not right
        ]
        self._count.value = (
            f"<b>{len(wrong)} errors</b> <small>in {len(fused.videos)} test videos{of}; choose one to see it</small>"
        )
        with self.filling():
            self.errors.options = wrong
            self.errors.value, self.errors.rows = None, min(9, max(2, len(wrong)))

    def _pick_error(self) -> None:
        if self.errors.value is None:
            return
        cell = self.cells[self.state.row]
        assert cell.accuracy is not None
        self.state.error = self.errors.value
        recipe = list(self.table.late_fusions[cell.source])[-1]
        self.open_video(cell.accuracy.dataset, int(self.split.value or 1), self.state.error, recipe)

    def export(self, suffix: str) -> None:
        """Write the table as "tex" or "csv" into the folder `out`, and show it."""
        frame = to_frame(self.table)
        text = to_latex(frame) if suffix == "tex" else frame.to_csv(index=False)
        path = self.out / f"table_{self.state.number}.{suffix}"
        write_whole(path, text.encode())
        self.text.value = text
        self.text.description_allow_html = False
        self.text.layout.display = ""
        self._count.value = f"<small role=status>saved {escape(str(path))}</small>"


def _verdicts(on: Mapping[str, Finding]) -> str:
    """The verdict on a claim on each data set."""
    return ", ".join(f"<b>{each.verdict}</b> <small>on {escape(name)}</small>" for name, each in on.items())


def _of_the_papers(cell: Cell) -> bool:
    """Whether the measured number and the paper's number are of the same data set."""
    ours, theirs = (re.sub(r"\W", "", name).lower() for name in (cell.column.ours, cell.column.dataset))
    return cell.accuracy is not None and ours == theirs


def _cells_html(cell: Cell, row: Mapping[Any, Any], text: Mapping[Any, str], last: Sequence[str], same: bool) -> str:
    """The HTML of a row after the method. `text` has the numbers of `row` as short texts.

    `last`: the names of the last columns. `same`: the table has a column for the difference from the paper.
    """
    paper, ours, share = row["paper"], row["measured"], pd.notna(row["videos"])
    difference = f"{ours - paper:+.1f}" if _of_the_papers(cell) and pd.notna(paper) else ""
    theirs = float(paper) / 100 if pd.notna(paper) else None
    picture = sketches.interval(ours / 100, row["low"] / 100, row["high"] / 100, theirs) if share else ""
    spans = [text[name] if share else "" for name in last]
    cells = [text["paper"], f"<b>{text['measured']}</b>", *[difference] * same]
    cells += [f"<small>{text['95 %'] if share else ''}</small>", picture, *spans]
    return "".join(f"<td>{each}</td>" for each in cells)
