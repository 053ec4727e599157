"""The training monitor: curves of runs while another process trains them, beside their recipes, and the time to go."""

import time
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from ipywidgets import HTML, Box, HBox, Layout, SelectMultiple, ToggleButtons, VBox
from traitlets import Enum, HasTraits, Tuple

from ifttn.experiment.runs import Run
from ifttn.vocabulary import IfttnError, duration
from lab import sketches
from lab.figures import SERIES
from lab.panel import Panel
from lab.shelf import Shelf

EVERY = 1.0
"""Seconds between two looks at the folders of the runs."""
SILENT = 3.0
"""A run is taken for stopped where nothing was written for so many times as long as its epochs take."""


class MonitorState(HasTraits):
    """All that a person chooses."""

    runs = Tuple(help='"<data set>/split<n>/<recipe>" of those compared')
    measure = Enum(("loss", "accuracy", "videos_per_second"), "loss")


class Outlook(NamedTuple):
    """How far a run is."""

    state: str
    stage: str
    epoch: int
    """Finished, over all stages."""
    of: int
    seconds_left: float | None


class Monitor(Panel):
    """`Monitor("results")` in a cell, while `ifttn train` or a torchrun job runs elsewhere.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` writes.
        chosen: traits of `MonitorState` to begin with.
    """

    state: MonitorState

    def __init__(self, results: Shelf | Path | str, **chosen: object) -> None:
        super().__init__("Training monitor", MonitorState(**chosen), results)
        self._build()
        self.follow()

    def _build(self) -> None:
        self.runs = SelectMultiple(rows=4, layout=Layout(width="auto"))
        self.measure = ToggleButtons(
            options=[("loss", "loss"), ("accuracy", "accuracy"), ("videos/s", "videos_per_second")]
        )
        self.measure.style.button_width = "90px"
        self._chart, self._table, self._recipe = HTML(), HTML(), HTML()
        buttons = HBox([self.button("follow", self.follow, "look every second"), self.button("stop", self.worker.stop)])
        left = VBox(
            [HTML("<h4>Runs</h4><small>Ctrl or Shift chooses several</small>"), self.runs, buttons, self._recipe],
            layout=Layout(flex="1 1 260px", min_width="240px", grid_gap="6px"),
        )
        right = VBox(
            [self.measure, self._chart, self._table], layout=Layout(flex="3 1 520px", min_width="340px", grid_gap="6px")
        )
        self.fill(Box([left, right], layout=Layout(flex_flow="row wrap", grid_gap="20px", width="100%")))
        self.tie((self.state, "measure"), (self.measure, "value"))
        self.watch(self.runs, ["value"], self._choose)
        self.watch(self.state, ["runs", "measure"], self.draw)

    def _choose(self) -> None:
        if self.runs.value:
            self.state.runs = tuple(self.runs.value)

    def follow(self) -> None:
        """Look at the folders again and again."""
        self.work("following", self._look)

    def _look(self) -> Iterator[float | None]:
        seen: object = None
        while True:
            found = self.shelf.all_runs()
            if not found:
                raise IfttnError(
                    f"no run in {self.shelf.places.runs} yet: `ifttn train if-ttn` begins one; then press follow"
                )
            marks = [(name, _changed_at(run)) for name, run in found.items()]
            if marks != seen:
                seen = marks
                self._list(found)
                self.draw()
            for _ in range(round(EVERY / 0.1)):
                time.sleep(0.1)
                yield None

    def _list(self, found: dict[str, Run]) -> None:
        chosen = tuple(name for name in self.state.runs if name in found)
        latest = max(found, key=lambda name: _changed_at(found[name]))
        if self.runs.options != tuple(found):
            self.runs.options, self.runs.rows = tuple(found), min(12, max(4, len(found)))
        self.runs.value = chosen or (latest,)
        self.state.runs = self.runs.value

    def draw(self) -> None:
        """The curves and the table of the chosen runs."""
        found = self.shelf.all_runs()
        chosen = {name: found[name] for name in self.state.runs if name in found}
        curves, rows, marks = [], [], []
        for (name, run), colour in zip(chosen.items(), SERIES * 9, strict=False):
            metrics = run.metrics()
            outlook = look_ahead(run, metrics)
            short = name.split("/", 1)[1] if len({n.split("/")[0] for n in chosen}) == 1 else name
            if len(metrics):
                values = metrics[self.state.measure].to_list()
                curves.append(sketches.Curve(short, list(range(1, len(values) + 1)), values, colour))
                stages = metrics["stage"].to_list()
                begun = [i for i in range(len(stages)) if i == 0 or stages[i] != stages[i - 1]]
                marks = marks or [(float(max(1, i)), stages[i]) for i in begun]
            rows.append(_row(short, colour, metrics, outlook))
        title = {"videos_per_second": "videos a second"}.get(
            self.state.measure, self.state.measure
        ) + " over epochs, all stages"
        top = 1.0 if self.state.measure == "accuracy" else None
        self._chart.value = sketches.chart(curves, title, width=560, height=240, top=top, marks=marks)
        names = ("", "state", "stage", "epoch", "loss", "accuracy", "videos/s", "to go")
        heads = "".join(f"<th>{name}</th>" for name in names)
        self._table.value = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
        self._recipe.value = _recipe(next(iter(chosen.values()))) if chosen else ""


def look_ahead(run: Run, metrics: pd.DataFrame) -> Outlook:
    """How far a run is, and how long it will take: the epochs to go, each as long as the last three took."""
    asked, preset = run.asked, run.preset()
    epochs = {stage["name"]: preset.schedules[stage["name"]].epochs for stage in asked["recipe_row"]["stages"]}
    done, of = len(metrics), sum(epochs.values())
    stage = str(metrics["stage"].iloc[-1]) if done else next(iter(epochs))
    if run.finished:
        return Outlook("tested" if run.tested else "trained", stage, done, of, None)
    if not done:
        return Outlook("begun", stage, 0, of, None)
    pace = float(metrics["seconds"].to_numpy(float)[-3:].mean())
    silent = time.time() - _changed_at(run) > SILENT * pace + 60
    return Outlook("stopped?" if silent else "training", stage, done, of, (of - done) * pace)


def _changed_at(run: Run) -> float:
    return max(path.stat().st_mtime for path in (run.folder, *run.folder.glob("*.json*")) if path.exists())


def _row(name: str, colour: str, metrics: pd.DataFrame, outlook: Outlook) -> str:
    last = metrics.iloc[-1] if len(metrics) else None
    numbers = "<td></td><td></td><td></td>"
    if last is not None:
        numbers = f"<td>{last['loss']:.3f}</td><td>{last['accuracy']:.3f}</td><td>{last['videos_per_second']:.0f}</td>"
    left = duration(outlook.seconds_left) if outlook.seconds_left is not None else ""
    return (
        f"<tr><th scope=row><b style='color:{colour}'>&#9632;</b> {escape(name)}</th>"
        f"<td>{outlook.state}</td><td>{escape(outlook.stage)}</td><td>{outlook.epoch} of {outlook.of}</td>"
        f"{numbers}<td>{left}</td></tr>"
    )


def _recipe(run: Run) -> str:
    asked, preset = run.asked, run.preset()
    lines: dict[str, object] = {
        "recipe": asked["recipe"],
        "preset": asked["preset"],
        "modalities": ", ".join(asked["network"]["modalities"]),
        "fusion": asked["network"]["fusion"] or "none",
        "backbone": asked["network"]["backbone"],
        "segments": preset.segments,
        "batch": f"{preset.batch} videos, {preset.optimiser}",
        "seed": asked["seed"],
        "device": asked["made_with"]["device"],
    }
    for number, stage in enumerate(asked["recipe_row"]["stages"], 1):
        schedule = preset.schedules[stage["name"]]
        trained = ", ".join(part or "everything" for part in stage["trains"])
        lines[f"stage {number}"] = f"{stage['name']}: {schedule.epochs} epochs at {schedule.lr:g}; trains {trained}"
    for start in asked["recipe_row"]["starts_from"]:
        lines[start["part"]] = f"from {start['recipe']}: {start['source']}"
    return f"<h4>Recipe</h4>{sketches.definitions(lines)}"
