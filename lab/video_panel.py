"""The base class of panels about one video: it chooses and reads the video, and runs the network."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from ipywidgets import Combobox, FloatRangeSlider, Layout, Text, VBox
from jaxtyping import Float
from traitlets import Enum, HasTraits, Int, Tuple, Unicode

from ifttn.experiment.presets import PRESETS
from ifttn.experiment.runs import Run
from ifttn.insight.cam import Finer
from ifttn.vocabulary import IfttnError
from lab.clip import Clip, Method, Reading, load_clip, pixel_maps, read_clip
from lab.panel import Panel, dropdown, labelled, refill, row, set_range
from lab.shelf import Shelf
from lab.upload import Upload
from lab.video_file import length

USUAL_FINER: Finer = 4
"""By default a map has a cell every 32 / 4 px, because a small network has few cells."""
KEPT_MAPS = 8
LONG = 12.0
"""A person can choose a part of a video that is longer than this (s). Of shorter ones the panel shows every frame."""


class VideoState(HasTraits):
    """The chosen video and the chosen run."""

    dataset = Unicode()
    split = Int(1)
    side = Enum(("test", "train"), "test")
    action = Unicode(help="the list has videos of this action; empty: of all actions")
    video = Unicode(help="name of a video of the data set")
    file = Unicode(help="path of another file, in place of `video`")
    span = Tuple(help="first and last second of a part of the video; empty: the whole video")
    run = Unicode(help="name of a run of the split; empty: none is trained")


class VideoPanel(Panel):
    """Reads the chosen video in its worker. A subclass shows `clip` and `reading` in `loaded` and `refresh`."""

    state: Any
    """A VideoState."""

    def __init__(self, title: str, state: VideoState, results: Shelf | Path | str) -> None:
        super().__init__(title, state, results)
        self.clip: Clip | None = None
        self.reading: Reading | None = None
        """None: no run is trained."""
        self._source: tuple[object, ...] = ()
        self._maps: dict[tuple[object, ...], dict[str, np.ndarray]] = {}
        wide = Layout(width="auto", flex="1 1 120px", min_width="110px")  # fits into half a panel
        self.dataset, self.split, self.run = dropdown("data set"), dropdown("split", (1, 2, 3)), dropdown("run")
        self.side = dropdown("videos", ("test", "train"))
        self.action = Combobox(placeholder="any class", tooltip="type to search", layout=wide)
        self.video = dropdown("video", flex="2 1 280px")
        self.file = Text(placeholder="or a file's path", continuous_update=False, layout=wide)
        self.upload = Upload(self.shelf.places.root / "uploads")
        hidden = Layout(width="100%", display="none")
        self.span = FloatRangeSlider(min=0, step=0.1, readout_format=".1f", continuous_update=False, layout=hidden)
        labelled("seconds shown", self.span)
        which = row(self.dataset, self.split, self.side, self.action, self.run, width="100%")
        what = row(self.video, self.file, self.upload, width="100%")
        self.pickers = VBox([which, what, self.span], layout=Layout(width="100%", grid_gap="8px"))
        self.offer("dataset", "split", "side", "run", "action")
        self.watch_choice(self.video, self._choose_video)
        self.watch_choice(self.file, self._choose_file)
        self.watch_choice(self.span, self._choose_span)
        self.upload.on_msg(lambda _, message, parts: self.guard(self._receive, message, parts))
        self.watch(state, ["dataset", "split", "side", "action"], self._fill_lists)
        self.watch(state, ["video", "file", "run", "span"], self._show_choices)
        self.watch(state, ["video", "file", "run", "split", "span"], self.read_video)

    def begin(self, chosen: Mapping[str, object]) -> None:
        """Set traits of the state. A file can be shown without any data set."""
        super().begin(chosen)
        if chosen.get("file") and not self.state.file:
            self.state.file = str(chosen["file"])

    def _begin(self, chosen: Mapping[str, Any]) -> None:
        """Find the side of a video, and raise an error for a run or a video that does not exist."""
        dataset, number = chosen.get("dataset") or self.shelf.usual_dataset, chosen.get("split", 1)
        if chosen.get("video"):
            chosen = {"side": self._side_of(self.shelf.video(dataset, chosen["video"]).name, dataset, number), **chosen}
        if chosen.get("run") and chosen["run"] not in (ready := self.shelf.networks(dataset, number)):
            choices = f"choose from {', '.join(ready)}" if ready else "none is trained"
            raise IfttnError(f"no network of a run {chosen['run']!r}: {choices}")
        super()._begin(chosen)

    def _side_of(self, video: str, dataset: str, split: int) -> str:
        return "test" if video in {each.name for each in self.shelf.split(dataset, split).test} else "train"

    def close(self) -> None:
        """Close the panel and free the video at once: the garbage collector would free it late."""
        super().close()
        self.clip = self.reading = None
        self._maps.clear()

    # -- choosing

    def _choose_video(self) -> None:
        if self.video.value:
            self.set_choices(file="", video=self.video.value, span=())

    def _choose_file(self) -> None:
        """Show a file; an empty path shows the listed video again."""
        file = self.file.value.strip()
        listed = "" if file else next((name for _, name in self.video.options), "")
        self.set_choices(file=file, video=self.state.video or listed, span=())

    def _choose_span(self) -> None:
        whole = self.span.value == (self.span.min, self.span.max)
        self.state.span = () if whole else tuple(round(second, 3) for second in self.span.value)

    def _receive(self, message: Mapping[str, Any], parts: Sequence[memoryview]) -> None:
        """Store a part of a dropped file, and show the file after its last part."""
        path = self.upload.receive(message, parts[0])
        if path is not None:
            self._source = ()  # the panel may show an earlier file of the same name
            self.set_choices(file=str(path), span=())
            self.read_video()

    def _fill_lists(self) -> None:
        """Fill each list with the options that the choices above it leave."""
        state = self.state
        split = self.shelf.split(state.dataset, state.split)
        videos = split.test if state.side == "test" else split.train
        wanted, exact = state.action.strip().lower(), state.action in split.actions
        videos = [v for v in videos if (v.action == state.action if exact else wanted in v.action.lower())]
        if not videos:
            chosen = f" of {state.action!r}: choose from {', '.join(split.actions)}" if state.action else ""
            raise IfttnError(f"split {state.split} of {state.dataset} has no {state.side} video{chosen}")
        names = [video.name for video in videos]
        ready = list(self.shelf.networks(state.dataset, state.split))
        with self.filling():
            self.dataset.value, self.side.value = state.dataset, state.side
            refill(self.split, self.shelf.splits(state.dataset), state.split)
            self.action.options = split.actions
            listed = None if state.file else state.video if state.video in names else names[0]
            refill(self.video, [(name.rpartition("/")[2], name) for name in names], listed)
            run = state.run if state.run in ready else self.shelf.usual_run(state.dataset, state.split)
            refill(self.run, [(name, name) for name in ready] or [("none is trained", "")], run)
        state.run = self.run.value
        if not state.file and self.video.value:
            state.video = self.video.value

    def _show_choices(self) -> None:
        """Set the controls to the state, which a notebook may have changed."""
        with self.filling():
            self.file.value = self.state.file
            self.span.value = self.state.span or (self.span.min, self.span.max)
            listed = None if self.state.file else self.state.video  # after None a person can choose it again
            for control, value in ((self.video, listed), (self.run, self.state.run)):
                if value is None or value in (offered for _, offered in control.options):
                    control.value = value

    def show(self, dataset: str, split: int, video: str, run: str | None = None) -> str:
        """Show a video of a data set, with the predictions of a run.

        Returns:
            A sentence if another run is shown: a peer's run has scores but no network.
        """
        where = {"dataset": dataset, "split": split, "side": self._side_of(video, dataset, split), "action": ""}
        known = {"run": run} if run in self.shelf.networks(dataset, split) else {}
        self.set_choices(**where, video=video, file="", span=(), **known)
        if run is None or run == self.state.run:
            return ""
        shown = f"the predictions of {self.state.run}" if self.state.run else "no predictions"
        return f"The run {run} has scores but no network. The video below has {shown}."

    # -- reading

    def read_video(self) -> None:
        """Let the worker update the panel."""
        if self.state.video or self.state.file or self.clip is not None:
            self.work("reading the video", self.update)

    def update(self) -> Iterator[float | None]:
        """Show the state. A new video or run is read first."""
        run = self.chosen_run
        video = self.state.file or (self.state.dataset, self.state.video)
        source = (video, self.state.span, run.folder if run else None)
        if source != self._source:
            self._source, self.clip, self.reading = (), None, None  # if reading fails, the old video must not remain
            self._maps.clear()
            try:
                yield from self._read_source(run)
            except Exception:
                self.loaded()
                raise
            self._source = source
            self.loaded()
        yield from self.refresh()

    @property
    def chosen_run(self) -> Run | None:
        """The run with the network; None: no run is trained."""
        state = self.state
        return self.shelf.runs(state.dataset, state.split).get(state.run) if state.run else None

    def _read_source(self, run: Run | None) -> Iterator[float | None]:
        state, store = self.state, None
        if state.file:
            path = self.shelf.file(state.file)
            name, label = path.name, None
        elif state.video:
            video = self.shelf.video(state.dataset, state.video)
            path, name, label = video.path, video.name, video.action
            store = self.shelf.store(state.dataset, run.identity["preset"] if run else self.shelf.preset(state.dataset))
        else:
            return
        self._offer_span(length(path))
        settings = run.preset().store if run else store.settings if store else PRESETS["tiny"].store
        store = store if store and store.settings == settings else None
        segments = run.preset().segments if run else 0
        self.clip = clip = yield from load_clip(path, name, label, settings, store, span=state.span, segments=segments)
        self.reading = self.ask(clip) if run else None

    def _offer_span(self, seconds: float) -> None:
        """Show the slider of parts for a long video.

        Raises:
            IfttnError: the chosen part is not in the video.
        """
        span, end = self.state.span, round(seconds + 0.05, 1)
        self.span.layout.display = "" if seconds > LONG or span else "none"
        if span and not (len(span) == 2 and 0 <= span[0] < span[1] and span[0] < end):
            raise IfttnError(f"the video has no part {span!r}: choose two seconds from 0 to {seconds:.1f}")
        with self.filling():
            set_range(self.span, 0.0, end, span)

    @property
    def unread(self) -> str:
        """HTML that says why there are no votes."""
        if self.chosen_run is not None:
            return "<div class=empty>There are no predictions: the message at the top says why.</div>"
        command = escape(self.shelf.to_train(self.state.dataset, self.state.split))
        return (
            f"<div class=empty>No trained run of this split yet.<br><code>{command}</code> trains one. "
            "Frames and motion are shown without a run.</div>"
        )

    def ask(self, clip: Clip, order: Sequence[int] | None = None) -> Reading:
        """The votes of the chosen run for a clip, with the snippets in a given order.

        Raises:
            IfttnError: no run is trained.
        """
        run = self.chosen_run
        if run is None:
            raise self.shelf.no_network(self.state.dataset, self.state.split)
        with self.shelf.lock:
            return read_clip(self.shelf.recognizer(run), clip, order)

    def maps(
        self, action: int, method: Method = "cam", finer: Finer = USUAL_FINER
    ) -> dict[str, Float[np.ndarray, "V s s"]]:
        """The maps of an action in the clip, by each head of the chosen run. The last few are cached."""
        run, clip, key = self.chosen_run, self.clip, (action, method, finer)
        if key not in self._maps:
            assert run is not None
            assert clip is not None
            with self.shelf.lock:
                found = pixel_maps(self.shelf.recognizer(run), clip, action, method=method, finer=finer)
            while len(self._maps) >= KEPT_MAPS:
                self._maps.pop(next(iter(self._maps)))
            self._maps[key] = found
        return self._maps[key]

    def loaded(self) -> None:
        """Show a new `clip` and `reading`, or that there is none. Abstract, but an ABC has another metaclass."""
        raise NotImplementedError(f"{type(self).__name__}.loaded")

    def refresh(self) -> Iterator[float | None]:
        """Show the other traits of the state, step by step. Abstract, as `loaded` is."""
        raise NotImplementedError(f"{type(self).__name__}.refresh")
