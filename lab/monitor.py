"""The training monitor: curves, recipes and expected times of runs that another process trains."""

import base64
import time
from collections.abc import Iterator, Sequence
from html import escape
from itertools import cycle, product
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from ipywidgets import HTML, FloatSlider, Layout, SelectMultiple, Text, ToggleButton, ToggleButtons, VBox
from traitlets import Bool, Enum, Float, HasTraits, Tuple, Unicode, link

from ifttn.experiment.runs import Run
from ifttn.vocabulary import IfttnError, duration
from lab import sketches
from lab.figures import SERIES
from lab.panel import Panel, labelled, refill, row
from lab.shelf import Shelf

EPOCHS_OF_SILENCE = 3.0
"""A run counts as stopped if it has written nothing for a minute plus the time of this many epochs."""
MEASURES = {"loss": "loss", "accuracy": "accuracy", "videos/s": "videos_per_second"}
"""Label of a button -> column of a run's metrics."""
LINES = tuple(product(range(len(sketches.DASHES)), SERIES))
"""Dash and colour of each run's line: 24 different lines. The dashes differ for colour-blind readers."""


class MonitorState(HasTraits):
    """All that a person chooses."""

    runs = Tuple(help='names of the chosen runs: "<data set>/split<n>/<recipe>"')
    measure = Enum(tuple(MEASURES.values()), "loss")
    only = Unicode(help='the list has runs with these words in their names, such as "split1 ttn"; empty: all')
    smoothing = Float(0.0, min=0.0, max=0.98, help="decay of the exponential moving average within a stage")
    logarithmic = Bool(False, help="the vertical axis is logarithmic")


class Outlook(NamedTuple):
    """The progress of a run."""

    state: str
    stage: str
    epoch: int
    """Number of finished epochs in all stages."""
    epochs: int
    """Number of all epochs in all stages."""
    seconds_left: float | None


class Monitor(Panel):
    """`Monitor("results")` in a cell, while `ifttn train` or a torchrun job runs elsewhere.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` writes.
        chosen: first values of traits of `MonitorState`.
    """

    state: MonitorState

    def __init__(self, results: Shelf | Path | str, **chosen: object) -> None:
        super().__init__("Training monitor", MonitorState(), results)
        self.runs = SelectMultiple(description="runs", rows=4, layout=Layout(width="auto"))
        self.only = Text(placeholder="only runs with these words", layout=Layout(width="auto"))
        self.measure = ToggleButtons(options=MEASURES, style={"button_width": "90px"})
        self._chart, self._table, self._recipe = HTML(), HTML(), HTML()
        stop = self.button("stop", self.worker.stop, "stop updating; the training continues")
        buttons = row(self.button("follow", self.follow, "update every second"), stop)
        self.smoothing = labelled("smoothing", FloatSlider(min=0, max=0.98, step=0.02, layout=Layout(width="250px")))
        self.logarithmic = ToggleButton(description="log axis", layout=Layout(width="auto"))
        heading = HTML("<h4>Runs</h4><small>Ctrl or Shift chooses several</small>")
        choice = [heading, self.only, self.runs, buttons, self._recipe]
        left = VBox(choice, layout=Layout(flex="1 1 300px", min_width="240px", grid_gap="6px"))
        shown = [row(self.measure, self.logarithmic, self.smoothing), self._chart, self._table]
        right = VBox(shown, layout=Layout(flex="3 1 460px", min_width="340px", grid_gap="6px"))
        self.fill(row(left, right, align_items="stretch", grid_gap="20px", width="100%"))
        for name in ("measure", "smoothing", "logarithmic", "only"):
            link((self.state, name), (getattr(self, name), "value"))
        self.offer("runs")
        self.watch(self.state, ["runs", "measure", "smoothing", "logarithmic"], self.draw)
        self.watch(self.state, ["only"], lambda: self._list(self._times()))
        self.begin(chosen)
        if not self.worker.error:
            self.follow()

    def follow(self) -> None:
        """Update the panel every second when a run has changed."""
        self.work("following", self._follow)

    def _follow(self) -> Iterator[float | None]:
        seen: object = None
        while True:
            times = self._times()
            if not times:
                raise IfttnError(f"{self._no_run}. Then press follow")
            if times != seen:
                seen = times
                self._list(times)
                self.draw()
            for _ in range(10):  # the worker can stop the job every 0.1 s
                time.sleep(0.1)
                yield None

    def _times(self) -> dict[str, float]:
        """The time of each run's last change."""
        return {name: _changed_at(run) for name, run in self.shelf.all_runs().items()}

    @property
    def _no_run(self) -> str:
        return f"no run in {self.shelf.places.runs} yet: `ifttn train if-ttn` starts one"

    def _list(self, times: dict[str, float]) -> None:
        """Fill the list of runs. If none is chosen, choose the latest one."""
        words = self.state.only.lower().split()
        offered = tuple(name for name in times if all(word in name.lower() for word in words))
        if not (self.state.runs and times.keys() >= set(self.state.runs)):  # setting it always would lose a new choice
            present = tuple(name for name in self.state.runs if name in times)
            self.state.runs = present or (max(times, key=times.__getitem__),)
        with self.filling():
            refill(self.runs, offered, tuple(name for name in self.state.runs if name in offered))
            self.runs.rows = min(12, max(4, len(offered)))

    def draw(self) -> None:
        """Draw the curves and the table of the chosen runs.

        Raises:
            IfttnError: a chosen run does not exist.
        """
        found, measure = self.shelf.all_runs(), self.state.measure
        if unknown := [name for name in self.state.runs if name not in found]:
            raise IfttnError(f"no run {unknown[0]!r}: choose from {', '.join(found)}" if found else self._no_run)
        chosen = {name: found[name] for name in self.state.runs}
        one_dataset = len({name.split("/")[0] for name in chosen}) == 1
        curves, rows, stages, every = list[sketches.Curve](), [], list[str](), list[pd.DataFrame]()
        for (name, run), (dashed, colour) in zip(chosen.items(), cycle(LINES)):
            metrics, short = run.metrics(), name.split("/", 1)[1] if one_dataset else name
            curve = sketches.Curve(short, range(1, len(metrics) + 1), metrics[measure].to_list(), colour, dashed)
            if len(metrics):
                curves += self._smoothed(curve, metrics["stage"].to_list())
                stages = stages or metrics["stage"].to_list()
                every.append(metrics.assign(run=name))
            rows.append(_row(curve, metrics, look_ahead(run, metrics)))
        begun = [i for i, stage in enumerate(stages) if stages[:i][-1:] != [stage]]
        marks = [(float(max(1, i)), stages[i]) for i in begun]
        title = f"{'videos a second' if measure == 'videos_per_second' else measure} over epochs, all stages"
        top = 1.0 if measure == "accuracy" else None
        self._chart.value = sketches.chart(
            curves, title, width=560, height=240, top=top, marks=marks, log=self.state.logarithmic
        )
        names = ("", "state", "stage", "epoch", "loss", "accuracy", "videos/s", "time left")
        heads = "".join(f"<th>{name}</th>" for name in names)
        self._table.value = (
            f"<table class=runs><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>{_csv(every)}"
        )
        self._recipe.value = _recipe(next(iter(chosen.values()))) if chosen else ""

    def _smoothed(self, curve: sketches.Curve, stages: Sequence[str]) -> list[sketches.Curve]:
        """The curve. With smoothing, the smoothed curve in front of the faint original."""
        share = self.state.smoothing
        if not share:
            return [curve]
        values = pd.Series(curve.y).groupby([*stages]).transform(lambda each: each.ewm(alpha=1 - share).mean())
        return [curve._replace(faint=True), curve._replace(y=values.to_list())]


def _csv(every: Sequence[pd.DataFrame]) -> str:
    """A link that downloads the metrics of every epoch."""
    if not every:
        return ""
    content = base64.b64encode(pd.concat(every).to_csv(index=False).encode()).decode()
    return f"<a download=metrics.csv href='data:text/csv;base64,{content}'>every epoch as CSV</a>"


def look_ahead(run: Run, metrics: pd.DataFrame) -> Outlook:
    """The progress of a run. The expected time assumes that an epoch takes the mean time of the last three."""
    schedules = run.preset().schedules
    epochs = {stage["name"]: schedules[stage["name"]].epochs for stage in run.identity["recipe_row"]["stages"]}
    done, total = len(metrics), sum(epochs.values())
    stage = str(metrics["stage"].iloc[-1]) if done else next(iter(epochs))
    if run.finished or run.tested:  # some published runs have scores but no weights
        return Outlook("tested" if run.tested else "trained", stage, done, total, None)
    if not done:
        return Outlook("begun", stage, 0, total, None)
    pace = float(metrics["seconds"].to_numpy(float)[-3:].mean())
    silent = time.time() - _changed_at(run) > EPOCHS_OF_SILENCE * pace + 60
    return Outlook("stopped?" if silent else "training", stage, done, total, (total - done) * pace)


def _changed_at(run: Run) -> float:
    return max(path.stat().st_mtime for path in (run.folder, *run.folder.glob("*.json*")) if path.exists())


def _row(curve: sketches.Curve, metrics: pd.DataFrame, outlook: Outlook) -> str:
    cells = [outlook.state, escape(outlook.stage), f"{outlook.epoch} of {outlook.epochs}", "", "", ""]
    if len(metrics):
        last = metrics.iloc[-1]
        cells[3:] = f"{last['loss']:.3f}", f"{last['accuracy']:.3f}", f"{last['videos_per_second']:.0f}"
    cells.append("" if outlook.seconds_left is None else duration(outlook.seconds_left))
    row = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><th scope=row>{sketches.sample(curve)} {escape(curve.name)}</th>{row}</tr>"


def _recipe(run: Run) -> str:
    identity, preset = run.identity, run.preset()
    lines: dict[str, object] = {
        "recipe": identity["recipe"],
        "preset": identity["preset"],
        "modalities": ", ".join(identity["network"]["modalities"]),
        "fusion": identity["network"]["fusion"] or "none",
        "backbone": identity["network"]["backbone"],
        "segments": preset.segments,
        "batch": f"{preset.batch} videos, {preset.optimiser}",
        "seed": identity["seed"],
        "device": identity["made_with"]["device"],
    }
    for number, stage in enumerate(identity["recipe_row"]["stages"], 1):
        schedule = preset.schedules[stage["name"]]
        trained = ", ".join(part or "everything" for part in stage["trains"])
        epochs = f"{schedule.epochs} epoch{'s' * (schedule.epochs > 1)}"
        lines[f"stage {number}"] = f"{stage['name']}: {epochs} at {schedule.lr:g}; trains {trained}"
    for start in identity["recipe_row"]["starts_from"]:
        lines[start["part"]] = f"from {start['recipe']}: {start['source']}"
    return f"<h4>Recipe</h4>{sketches.definitions(lines)}"
