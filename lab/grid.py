"""The grid of clips: the thumbnails of a data set, to filter, sort, tag and open.

The page gets all names in one message. It draws the visible cells and requests their thumbnails.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import traitlets
from anywidget import AnyWidget
from ipywidgets import HTML, Combobox, FloatRangeSlider, Layout, ToggleButton

from ifttn.data.factors import factors_of_actions
from ifttn.data.store import Store
from ifttn.vocabulary import IfttnError
from lab.grid_rows import QUANTITIES, ClipRows, GridState, Tags, clip_rows
from lab.inspector import Inspector
from lab.opener import Opener
from lab.panel import dropdown, in_page, refill, row, set_range
from lab.shelf import Shelf
from lab.thumbnails import strip

SECONDS_BETWEEN_SENDS = 0.15
"""Shortest time between two messages with strips: the first strips come soon, and the messages are few."""


class GridView(AnyWidget):
    """The cells in the page (`grid.js`). It sends {"wanted": rows}, {"open": row} and {"row": row, "tag": text}."""

    _esm, _css = in_page("elements.js", "grid.js"), in_page("grid.css")
    videos = traitlets.Dict(help="edition, names, actions, and labels as 16-bit integers").tag(sync=True)
    predicted = traitlets.Bytes(help="the predicted action of every video as a 16-bit integer; -1: none").tag(sync=True)
    shown = traitlets.Dict(help="visible rows as 32-bit integers; values of a quantity as floats").tag(sync=True)
    tags = traitlets.Dict(help="row -> its tags").tag(sync=True)


class ClipGrid(Opener):
    """`ClipGrid("results")` in a cell shows a data set. It needs no trained run.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        inspector: shows a clip after a click; None: the panel makes one.
        chosen: first values of traits of `GridState`.
    """

    state: GridState

    def __init__(self, results: Shelf | Path | str, inspector: Inspector | None = None, **chosen: object) -> None:
        super().__init__("Grid of clips", GridState(), results, inspector)
        self.rows, self.view = ClipRows((), (), np.zeros(0, int)), GridView()
        self.tags: dict[str, list[str]] = {}
        """Video of the data set -> its tags."""
        self._listed: tuple[object, ...] = ()
        self._scored: tuple[object, ...] = ()
        self._wanted: list[int] = []
        self._edition = 0
        self._build()
        self.view.on_msg(lambda _, message, __: self.guard(self._on_message, message))
        self.begin(chosen)

    def _build(self) -> None:
        wide = Layout(width="auto", flex="1 1 160px")
        self.dataset, self.split = dropdown("data set"), dropdown("split", (1, 2, 3))
        self.side = dropdown("videos", ("test", "train", "both"))
        self.run, self.head = dropdown("run"), dropdown("head")
        self.action = Combobox(placeholder="any class", tooltip="type to search", layout=wide)
        self.predicted = Combobox(placeholder="any predicted class", layout=wide)
        self.outcome, self.tag, self.by = dropdown("clips"), dropdown("tag"), dropdown("sorted by")
        self.descending = ToggleButton(description="largest first", layout=Layout(width="auto"))
        self.within = FloatRangeSlider(readout_format=".2f", continuous_update=False, layout=Layout(width="260px"))
        self._count, self._absent = HTML(), HTML()
        self.all = self.button("show all", self.show_all, "remove all filters")
        self._scores_only = (self.head, self.predicted, self.outcome)
        self.offer("dataset", "split", "side", "head", "action", "predicted", "outcome", "tag", "descending", "within")
        self.watch_choice(self.run, lambda: self.set_choices(run=self.run.value, head=""))
        self.watch_choice(self.by, lambda: self.set_choices(by=self.by.value, within=()))
        self.fill(row(self.dataset, self.split, self.side, self.run, self.head, width="100%"))
        self.fill(row(self.action, self.predicted, self.outcome, self.tag, width="100%"))
        self.fill(row(self.by, self.descending, self.within, self.all, self._count, width="100%"))
        self.fill(self._absent, self.view, HTML(_KEYS), self._note)
        self.watch(self.state, ["dataset", "split"], self._offer_runs)
        self.watch(self.state, ["dataset", "split", "side", "run", "head"], self.read)
        narrow = ["action", "predicted", "outcome", "tag", "only", "by", "descending", "within"]
        self.watch(self.state, narrow, self._arrange)

    def _begin(self, chosen: Mapping[str, Any]) -> None:
        """Raise an error for a run that has no scores."""
        runs = self._tested(chosen.get("dataset") or self.shelf.usual_dataset, chosen.get("split", 1))
        if chosen.get("run") and chosen["run"] not in runs:
            raise IfttnError(f"no run {chosen['run']!r} with scores: choose from {', '.join(runs) or 'none yet'}")
        super()._begin(chosen)

    def _tested(self, dataset: str, split: int) -> list[str]:
        return [name for name, run in self.shelf.runs(dataset, split).items() if run.tested]

    # -- reading

    def _offer_runs(self) -> None:
        """Offer the splits of the data set and the tested runs of the split."""
        state, shelf = self.state, self.shelf
        runs, usual = self._tested(state.dataset, state.split), shelf.usual_run(state.dataset, state.split)
        with self.filling():
            self.dataset.value = state.dataset
            refill(self.split, shelf.splits(state.dataset), state.split)
            run = next((name for name in (state.run, usual, *runs) if name in runs), "")
            refill(self.run, [(name, name) for name in runs] or [("none is tested", "")], run)
        self.set_choices(run=run, head=state.head if state.run in ("", run) else "")

    def read(self) -> None:
        """Let the worker update the grid."""
        if self.state.dataset:
            self.work("reading the data set", self.update)

    def update(self) -> Iterator[float | None]:
        """Read the chosen videos and scores if they changed, then make the visible thumbnails."""
        state = self.state
        listed, scored = (state.dataset, state.split, state.side), (state.run, state.head)
        if listed != self._listed or scored != self._scored:
            yield None
            try:
                tags, rows = self._tags.read(), self._read_rows()
            except IfttnError:
                self._listed, self.view.shown = (), {}  # the clips of the earlier choice must not remain
                raise
            yield None
            self.rows, self.tags = rows, tags
            with self.view.hold_sync():
                if listed != self._listed:
                    self._edition, self._wanted = self._edition + 1, []
                    labels = rows.labels.astype(np.int16).tobytes()
                    named = {"names": rows.names, "actions": rows.actions, "labels": labels}
                    self.view.videos = {"edition": self._edition, **named}
                self._listed, self._scored = listed, scored
                self.view.predicted = rows.predicted.astype(np.int16).tobytes()
                self._fill_lists()
                self._show_tags()
                self._arrange()
        yield from self._send_strips()

    def _read_rows(self) -> ClipRows:
        state, shelf, scores = self.state, self.shelf, None
        split = shelf.split(state.dataset, state.split)
        sides = {"test": split.test, "train": split.train, "both": (*split.test, *split.train)}
        if state.run:
            scores = shelf.runs(state.dataset, state.split)[state.run].scores()
        heads = [*scores.heads] if scores else []
        if state.head and state.head not in heads:
            raise IfttnError(f"no head {state.head!r} in the run {state.run}: choose from {', '.join(heads)}")
        with self.filling():
            refill(self.head, [("late fusion", ""), *((head, head) for head in heads)], state.head)
            self.side.value = state.side
        factors = factors_of_actions(shelf.folder(state.dataset))
        return clip_rows(sides[state.side], split.actions, scores, state.head, self._seconds(), factors)

    def _seconds(self) -> Mapping[str, float]:
        """The length of every prepared video (s)."""
        if self._store is None:
            return {}
        index = self._store.index()
        return dict(zip(index.video, index.frames / index.fps, strict=True))

    @property
    def _store(self) -> Store | None:
        return self.shelf.store(self.state.dataset, self.shelf.preset(self.state.dataset))

    @property
    def _tags(self) -> Tags:
        return Tags(self.shelf.places.root / "tags" / f"{self.state.dataset}.json")

    def _fill_lists(self) -> None:
        """Offer filters and quantities that the rows have, and explain which data are missing."""
        state, rows = self.state, self.rows
        scored, factors = "confidence" in rows.numbers, rows.factors
        each = [(f"{word} about {name}", f"{word}: {name}") for name in factors for word in ("wrong", "right")]
        absent = []
        if not scored:
            why = f"`{self.shelf.to_train(state.dataset, state.split)}` trains a network"
            why = "only the side test has scores" if state.run else why
            absent.append(f"There are no predictions: {why}.")
        if "length (s)" not in rows.numbers:
            absent.append(f"No lengths: `ifttn prepare {self.shelf.folder(state.dataset)}` measures them.")
        split = self.shelf.split(state.dataset, state.split)
        if self.shelf.published and split.missing:
            here = len(split.train) + len(split.test)
            absent.append(
                f"This copy has {here} of the {here + len(split.missing)} videos: three of each action, and the test "
                "videos that IF-TTN gets wrong."
            )
        self._absent.value = f"<small>{' '.join(map(escape, absent))}</small>"
        with self.filling():
            self.action.options = self.predicted.options = rows.actions
            self.outcome.options = [("all", ""), ("wrong", "wrong"), ("right", "right"), *each]
            self.by.options = [("class", ""), *((name, name) for name in QUANTITIES if name in rows.numbers)]
            for control in self._scores_only:
                control.layout.display = "" if scored else "none"

    # -- choosing

    def _arrange(self) -> None:
        """Show the rows that pass the filters, sorted."""
        state, rows = self.state, self.rows
        if not self._listed:
            return
        if state.by not in ("", *rows.numbers):
            self.set_choices(by="", within=())  # this calls `_arrange` again
            return
        found = rows.arranged(state, self.tags)
        quantity = state.by or "confidence"
        values = rows.numbers.get(quantity, np.full(len(rows.videos), np.nan))[found]
        packed = {"rows": found.astype(np.uint32).tobytes(), "values": values.astype(np.float32).tobytes()}
        self.view.shown = {"quantity": quantity, **packed}
        text = f"<b>{len(found):,}</b> of {len(rows.videos):,} clips"
        if "confidence" in rows.numbers and len(found):
            wrong = (rows.predicted[found] != rows.labels[found]) & (rows.predicted[found] >= 0)
            text += f", {wrong.sum():,} wrong"
        if state.by:
            text += f" <small>· {state.by}: {QUANTITIES[state.by]}</small>"
        self._count.value = f"<span role=status>{text}</span>"
        self._show_choices()

    def _show_choices(self) -> None:
        """Set the controls to the state, which a notebook may have changed."""
        state, values = self.state, self.rows.numbers.get(self.state.by)
        with self.filling():
            for name in ("action", "predicted", "outcome", "tag", "by", "descending"):
                getattr(self, name).value = getattr(state, name)
            self.descending.description = "largest first" if state.by else "last first"
            self.within.layout.display = "none" if values is None else ""
            if values is not None:
                low = float(np.floor(100 * np.nanmin(values)) / 100)
                high = float(np.ceil(100 * np.nanmax(values)) / 100)
                set_range(self.within, low, high, state.within)
                self.within.step = max(0.01, (high - low) / 200)
        self.all.layout.display = "" if any(getattr(state, name) for name in _ALL) else "none"

    def show_all(self) -> None:
        """Remove all filters."""
        self.set_choices(**_ALL)

    def show(self, dataset: str, split: int, videos: Sequence[str], run: str) -> None:
        """Show only these test videos of a data set, with the predictions of a run."""
        where = {"dataset": dataset, "split": split, "side": "test", "run": run, "head": ""}
        self.set_choices(**where, **_ALL | {"only": tuple(videos)})

    # -- requests of the page

    def _on_message(self, message: Mapping[str, Any]) -> None:
        if "wanted" in message:
            if message["edition"] == self._edition:
                self._wanted = [each for each in message["wanted"] if 0 <= each < len(self.rows.videos)]
                self.work("making thumbnails", self.update)
        elif "open" in message:
            name = self.rows.videos[message["open"]].name
            self.open_video(self.state.dataset, self.state.split, name, self.state.run)
        elif "tag" in message:
            self.toggle_tag(self.rows.videos[message["row"]].name, message["tag"])

    def toggle_tag(self, video: str, tag: str) -> None:
        """Add a tag to a video, or remove it. The folder `tags` of the results stores the tags."""
        tag = " ".join(tag.split())
        if not tag:
            raise IfttnError("the tag is empty: type one or more words")
        self.tags = self._tags.toggle(video, tag)
        self._show_tags()
        if self.state.tag:
            self._arrange()

    def _show_tags(self) -> None:
        places = {name: place for place, name in enumerate(self.rows.names)} if self.tags else {}
        self.view.tags = {str(places[name]): tags for name, tags in self.tags.items() if name in places}
        known = sorted({tag for tags in self.tags.values() for tag in tags} | ({self.state.tag} - {""}))
        with self.filling():
            refill(self.tag, [("any or none", ""), *((tag, tag) for tag in known)], self.state.tag)

    def _send_strips(self) -> Iterator[float | None]:
        """Send the strips that the page requested, several in one message."""
        wanted, edition, store = self._wanted, self._edition, self._store
        folder = self.shelf.places.root / "thumbnails" / self.state.dataset
        ready: dict[int, bytes] = {}
        failed: list[tuple[int, str]] = []
        sent = time.monotonic()
        for done, number in enumerate(wanted, 1):
            try:
                ready[number] = strip(self.rows.videos[number], store, folder)
            except IfttnError as error:
                failed.append((number, f"no picture: {error}"))
            if done == len(wanted) or time.monotonic() - sent > SECONDS_BETWEEN_SENDS:
                content = {"edition": edition, "rows": list(ready), "failed": failed}
                self.view.send(content, buffers=list(ready.values()))
                ready, failed, sent = {}, [], time.monotonic()
            yield None  # a share would send a message for each strip
        self._wanted = []


_ALL: dict[str, object] = {"action": "", "predicted": "", "outcome": "", "tag": "", "only": (), "within": ()}
"""The values of the filters that show every clip."""
_KEYS = (
    "<small><kbd>←</kbd><kbd>→</kbd><kbd>↑</kbd><kbd>↓</kbd> choose a clip · <kbd>Enter</kbd> open it below · "
    "<kbd>t</kbd> type a tag, <kbd>Enter</kbd> add it; the same tag again removes it · <kbd>Esc</kbd> leave the tag. "
    "A clip plays under the mouse.</small>"
)
