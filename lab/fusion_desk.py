"""The fusion desk: a person sets the weights of late fusion and sees the effect on accuracies and predictions.

It computes with saved scores and opens no network. Shapes: N videos, A actions.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any, cast

import numpy as np
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML, FloatSlider, HBox, Layout, Select, VBox
from jaxtyping import Float, Int
from scipy.stats import binomtest
from traitlets import Dict, HasTraits, Unicode
from traitlets import Int as Integer

from ifttn.data.factors import factors_of_actions
from ifttn.experiment.scores import Scores, factor_accuracy, fuse_runs, top1
from ifttn.experiment.significance import wilson
from ifttn.experiment.tables import load
from ifttn.vocabulary import IfttnError
from lab import sketches
from lab.grid import ClipGrid
from lab.inspector import Inspector
from lab.opener import Opener
from lab.panel import as_picture, dropdown, row
from lab.pickable import Pickable
from lab.shelf import Shelf


class DeskState(HasTraits):
    """All that a person chooses."""

    dataset = Unicode()
    split = Integer(1)
    fusion = Unicode("complete", help="name of a late fusion of the tables")
    weights: Any = Dict(help="(recipe, head) -> weight")


class FusionDesk(Opener):
    """`FusionDesk("results")` in a cell.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        inspector: shows a video after a click; None: the panel makes one.
        chosen: first values of traits of `DeskState`.
    """

    state: DeskState

    def __init__(self, results: Shelf | Path | str, inspector: Inspector | None = None, **chosen: object) -> None:
        super().__init__("Fusion desk", DeskState(), results, inspector)
        self.late_fusions = load()[1].late_fusions
        self.scores: dict[str, Scores] = {}
        self._sliders: dict[tuple[str, str], FloatSlider] = {}
        self._rows: dict[tuple[str, str], HBox] = {}
        self._build()
        self.begin(chosen)

    def _build(self) -> None:
        self.dataset, self.split = dropdown("data set"), dropdown("split", (1, 2, 3))
        self.fusion = dropdown("late fusion")
        self._weights, self._warning, self._accuracy = VBox(), HTML(), HTML()
        self._matrix, self._summary = Pickable(lambda cell: self.guard(self._show_cell, cell)), HTML()
        self.grid: ClipGrid | None = None
        """Shows the videos of a cell of the matrix; None before the first click."""
        self.changed = Select(description="videos", rows=8, layout=Layout(width="auto"))
        self.changed.add_class("ifttn-changed")
        preset = self.button("preset weights", self.set_preset, "the weights that were set before any test", "p")
        equal = self.button("all 1", self.set_equal, "the same weight for every head")
        narrow, wide = (Layout(grid_gap="5px", flex=flex, min_width="280px") for flex in ("1 1 340px", "2 1 430px"))
        weights = [HTML("<h4>Weights</h4>"), self._weights, row(preset, equal), self._warning]
        changed = [HTML("<h4>Changed predictions</h4>"), self._summary, self.changed, self._note]
        heading = HTML("<h4>Confusion matrix <small>click a cell to see its clips</small></h4>")
        matrix = VBox([heading, self._matrix], layout=wide)
        self.fill(row(self.dataset, self.split, self.fusion))
        self.fill(row(VBox(weights, layout=narrow), matrix, align_items="stretch", grid_gap="20px", width="100%"))
        self.fill(*changed, HTML("<h4>Accuracy</h4>"), self._accuracy)
        self.offer("dataset", "split", "fusion")
        self.watch(self.state, ["dataset", "split", "fusion"], self._open)
        self.watch(self.state, ["weights"], self._show)
        self.watch_choice(self.changed, self._show_video)

    def _open(self) -> None:
        """Read the scores of a split, and lay out the sliders of a late fusion."""
        state = self.state
        runs = {name: run for name, run in self.shelf.runs(state.dataset, state.split).items() if run.tested}
        ready = [name for name, parts in self.late_fusions.items() if parts.keys() <= runs.keys()]
        with self.filling():
            self.dataset.value, self.split.value = state.dataset, state.split
            self.fusion.options = ready
            self.fusion.value = state.fusion if state.fusion in ready else (ready[-1] if ready else None)
        if not ready:
            self._weights.children = ()
            self._accuracy.value = self._matrix.value = self._summary.value = ""
            raise IfttnError(
                f"no tested run of {state.dataset}, split {state.split}: "
                f"`{self.shelf.to_train(state.dataset, state.split)}` trains one, and then `ifttn test` in place of "
                "`ifttn train` makes its scores"
            )
        self.worker.error = ""
        state.fusion = str(self.fusion.value)
        self.scores = {name: runs[name].scores() for name in self.late_fusions[state.fusion]}
        self.set_preset()
        self._show()

    @property
    def preset(self) -> dict[tuple[str, str], float]:
        """The weights of the chosen late fusion in the tables: (recipe, head) -> weight."""
        parts = self.late_fusions[self.state.fusion]
        return {(run, head): weight for run, heads in parts.items() for head, weight in heads.items()}

    def set_preset(self) -> None:
        """Set the preset weights."""
        self._set_weights(self.preset)

    def set_equal(self) -> None:
        """Set all weights to 1."""
        self._set_weights(dict.fromkeys(self.preset, 1.0))

    def _set_weights(self, weights: dict[tuple[str, str], float]) -> None:
        with self.filling():
            self._weights.children = [self._row(run, head) for run, head in weights]
            for key, weight in weights.items():
                self._sliders[key].value = weight
        self.state.weights = weights

    def _row(self, run: str, head: str) -> HBox:
        """The slider of a head and its preset weight. It is made once."""
        if (run, head) not in self._rows:
            slider = FloatSlider(min=0, max=3, step=0.05, description=f"{run}: {head}", layout=Layout(flex="1 1 auto"))
            slider.style.description_width = "110px"
            self._sliders[run, head] = slider
            preset = HTML(layout=Layout(width="70px", flex="0 0 auto"))
            self._rows[run, head] = row(slider, preset, flex_flow="row", grid_gap="8px", width="100%")
            self.owned.append(self._rows[run, head])
            self.watch_choice(slider, self._read_sliders)
        made = self._rows[run, head]
        cast(HTML, made.children[1]).value = f"<small>preset {self.preset[run, head]:g}</small>"
        return made

    def _read_sliders(self) -> None:
        self.state.weights = {key: self._sliders[key].value for key in self.state.weights}

    # -- the effect of the weights

    def fused(self, weights: Mapping[tuple[str, str], float]) -> Float[np.ndarray, "N A"]:
        """The scores of the late fusion with these weights."""
        parts: dict[str, dict[str, float]] = {}
        for (run, head), weight in weights.items():
            parts.setdefault(run, {})[head] = weight
        return fuse_runs([(self.scores[run], heads) for run, heads in parts.items()]).scores

    def _show(self) -> None:
        weights, preset = self.state.weights, self.preset
        if not weights or not self.scores:
            return
        first = next(iter(self.scores.values()))
        tuned = weights != preset
        rows: dict[str, dict[tuple[str, str], float]] = {"these weights": weights} if tuned else {}
        rows |= {"preset weights": preset}
        if len(preset) > 1:
            rows |= {"all 1": dict.fromkeys(preset, 1.0)}
            rows |= {f"{head} of {run} alone": {(run, head): 1.0} for run, head in preset}
        self._accuracy.value = self._accuracies({name: self.fused(row) for name, row in rows.items()}, first.labels)
        now, before = self.fused(weights).argmax(1), self.fused(preset).argmax(1)
        self._matrix.value = sketches.confusion_svg(now, first.labels, first.actions)
        self._warning.value = _warning(tuned, not any(weights.values()))
        self._show_changes(first, now, before)

    def as_html(self) -> HTMLPicture:
        """The accuracies and the confusion matrix, for a page without a kernel."""
        beside = "display:flex;flex-wrap:wrap;gap:12px 24px;align-items:flex-start"
        parts = f"<div>{self._accuracy.value}</div><div style='flex:1 1 400px'>{self._matrix.value}</div>"
        return as_picture(f"<div style='{beside}'>{parts}</div>")

    def _accuracies(self, fused: Mapping[str, Float[np.ndarray, "N A"]], labels: Int[np.ndarray, " N"]) -> str:
        factors = factors_of_actions(self.shelf.places.data(self.state.dataset))
        names = "".join(f"<th>{escape(name)}</th>" for name in factors)
        head = f"<thead><tr><td></td><th>top-1 (%)</th><th>95 % interval</th><th></th>{names}</tr></thead>"
        rows = []
        for name, scores in fused.items():
            share = top1(scores, labels)
            low, high = wilson(round(share * len(labels)), len(labels))
            right = factor_accuracy(scores, labels, factors)
            cells = "".join(f"<td>{value:.2f}</td>" for value in right.values())
            rows.append(
                f"<tr><th scope=row>{escape(name)}</th><td><b>{100 * share:.1f}</b></td>"
                f"<td><small>{100 * low:.1f}-{100 * high:.1f}</small></td>"
                f"<td>{sketches.interval(share, low, high)}</td>{cells}</tr>"
            )
        return f"<table>{head}<tbody>{''.join(rows)}</tbody></table><small>{len(labels)} test videos</small>"

    def _show_changes(self, scores: Scores, now: Int[np.ndarray, " N"], before: Int[np.ndarray, " N"]) -> None:
        labels, changed = scores.labels, now != before
        gained, lost = changed & (now == labels), changed & (before == labels)
        wrong = changed & ~gained & ~lost
        text = f"{gained.sum()} become right, {lost.sum()} become wrong, {wrong.sum()} stay wrong"
        if gained.sum() + lost.sum():
            text += f" (sign test: p = {binomtest(gained.sum(), gained.sum() + lost.sum()).pvalue:.2g})"
        text = text if changed.any() else "These weights give the same predictions as the preset weights."
        self._summary.value = f"<small role=status>{text}</small>"
        options = [
            (f"{mark} {scores.videos[i].rpartition('/')[2]}: {scores.actions[before[i]]} → {scores.actions[now[i]]}", i)
            for mark, which in (("+", gained), ("-", lost), ("·", wrong))
            for i in map(int, np.flatnonzero(which))
        ]
        with self.filling():
            self.changed.options = options
            self.changed.value = None
        self.changed.layout.display = "" if options else "none"

    def _show_video(self) -> None:
        if self.changed.value is None:
            return
        run, scores = list(self.scores.items())[-1]
        opener = self.grid or self  # if there is a grid, its inspector shows the video
        opener.open_video(self.state.dataset, self.state.split, scores.videos[self.changed.value], run)

    def _show_cell(self, cell: str) -> None:
        """Show the videos of a cell of the confusion matrix: "<row> <column>"."""
        true, predicted = map(int, cell.split())
        run, scores = list(self.scores.items())[-1]
        found = np.flatnonzero((scores.labels == true) & (self.fused(self.state.weights).argmax(1) == predicted))
        if self.grid is None:
            self.grid = ClipGrid(self.shelf, self.inspector, dataset=self.state.dataset, split=self.state.split)
            self.fill(self.grid)
        self.grid.show(self.state.dataset, self.state.split, [scores.videos[i] for i in found], run)


def _warning(tuned: bool, nothing: bool) -> str:
    if nothing:
        return "<div class=warn>Every weight is 0: all scores are equal, so the first action is always predicted.</div>"
    if tuned:
        return (
            "<div class=warn>These weights are tuned on the test set, so their accuracy is not a result. "
            "The preset weights were set before any test.</div>"
        )
    return "<small>The preset weights were set before any test.</small>"
