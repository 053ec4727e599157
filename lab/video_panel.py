"""A panel about one video: choosing it and a run, reading it, asking the network; once for all that do."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from ipywidgets import Combobox, HBox, Layout, Text, VBox
from jaxtyping import Float
from traitlets import Enum, HasTraits, Int, Unicode

from ifttn.experiment.recipes import PRESETS
from ifttn.experiment.runs import Run
from ifttn.insight.cam import Finer
from ifttn.vocabulary import IfttnError
from lab.clip import Clip, Method, Reading, load, pixel_maps, read
from lab.panel import Panel, choose
from lab.shelf import Shelf

FINER: Finer = 4
"""Maps have a cell every 32 / FINER px, where nothing else is asked for: those of a small network have few."""


class VideoState(HasTraits):
    """Which video, and whose opinion of it."""

    dataset = Unicode()
    split = Int(1)
    side = Enum(("test", "train"), "test")
    action = Unicode(help="of the videos offered; empty: every one")
    video = Unicode(help="a name of the data set")
    file = Unicode(help="a file of one's own, in place of `video`")
    run = Unicode(help="a recipe of the split; empty: none is trained")


class VideoPanel(Panel):
    """Reads the chosen video in its worker; a subclass shows `clip` and `reading` in `loaded` and `refresh`."""

    state: Any
    """A VideoState."""

    def __init__(self, title: str, state: VideoState, results: Shelf | Path | str) -> None:
        super().__init__(title, state, results)
        self.clip: Clip | None = None
        self.reading: Reading | None = None
        """None: no run is trained."""
        self._source: tuple[object, ...] = ()
        self._maps: dict[tuple[object, ...], dict[str, np.ndarray]] = {}
        wide = Layout(width="auto", flex="1 1 180px")
        self.dataset, self.split = choose("data set"), choose("split", (1, 2, 3))
        self.side = choose("", ("test", "train"), min_width="70px")
        self.action = Combobox(placeholder="any class: type to search", ensure_option=False, layout=wide)
        self.video = choose("video", flex="2 1 280px")
        self.file = Text(placeholder="or the path of a file of your own", continuous_update=False, layout=wide)
        self.run = choose("run")
        row = Layout(flex_flow="row wrap", grid_gap="6px", width="100%")
        which = HBox([self.dataset, self.split, self.side, self.action, self.run], layout=row)
        self.pickers = VBox([which, HBox([self.video, self.file], layout=row)], layout=Layout(width="100%"))
        self.offer("dataset", "split", "side", "run", "action")
        self.watch(self.video, ["value"], self._pick)
        self.watch(self.file, ["value"], self._type)
        self.watch(state, ["dataset", "split", "side", "action"], self._list)
        self.watch(state, ["video", "file", "run"], self._mark)
        self.watch(state, ["video", "file", "run", "split"], self.read_video)

    def begin(self, chosen: Mapping[str, object]) -> None:
        """As a panel does; a file of one's own asks for no data set."""
        super().begin(chosen)
        if chosen.get("file") and not self.state.file:
            self.state.file = str(chosen["file"])

    def _begin(self, chosen: Mapping[str, object]) -> None:
        """A video says on which side it is; a run or a video that there is not is refused, not replaced."""
        given: Mapping[str, Any] = chosen
        dataset, number = given.get("dataset") or self.shelf.usual_dataset, given.get("split", 1)
        if given.get("video"):
            self.shelf.video(dataset, given["video"])
            inside = {each.name for each in self.shelf.split(dataset, number).test}
            chosen = {"side": "test" if given["video"] in inside else "train", **given}
        if given.get("run") and given["run"] not in (ready := self.shelf.networks(dataset, number)):
            raise IfttnError(f"no run {given['run']!r} to look into: {', '.join(ready) or 'none is trained'}")
        super()._begin(chosen)

    def close(self) -> None:
        """As a panel does, and let go of the video: widgets that watch each other wait long for the collector."""
        super().close()
        self.clip = self.reading = None
        self._maps.clear()

    def _pick(self) -> None:
        if not self.silent and self.video.value:
            with self.state.hold_trait_notifications():
                self.state.file, self.state.video = "", self.video.value

    def _type(self) -> None:
        """A path, or none: then the listed video comes back."""
        if not self.silent:
            with self.state.hold_trait_notifications():
                self.state.file = self.file.value.strip()
                if not self.state.file and not self.state.video:
                    self.state.video = next((name for _, name in self.video.options), "")

    def _list(self) -> None:
        """Fill every list with what the choices above it leave."""
        state = self.state
        split = self.shelf.split(state.dataset, state.split)
        videos = split.test if state.side == "test" else split.train
        wanted, exact = state.action.strip().lower(), state.action in split.actions
        videos = [v for v in videos if (v.action == state.action if exact else wanted in v.action.lower())]
        if not videos:
            chosen = f" of {state.action!r}; there is {', '.join(split.actions)}" if state.action else ""
            raise IfttnError(f"split {state.split} of {state.dataset} has no {state.side} video{chosen}")
        names = [video.name for video in videos]
        ready = list(self.shelf.networks(state.dataset, state.split))
        best = next((name for name in ("if-ttn", "mv-if-ttn") if name in ready), ready[0] if ready else "")
        with self.filling():
            self.dataset.value, self.side.value = state.dataset, state.side
            self.split.options = self.shelf.splits(state.dataset)
            self.split.value = state.split
            self.action.options = split.actions
            self.video.options = [(name.rpartition("/")[2], name) for name in names]
            self.video.value = None if state.file else state.video if state.video in names else names[0]
            self.run.options = [(name, name) for name in ready] or [("none is trained", "")]
            self.run.value = state.run if state.run in ready else best
        state.run = self.run.value
        if not state.file and self.video.value:
            state.video = self.video.value

    def _mark(self) -> None:
        """Let the controls show what was chosen in another way."""
        with self.filling():
            self.file.value = self.state.file
            listed = None if self.state.file else self.state.video  # None: so that the one listed can be chosen again
            for control, value in ((self.video, listed), (self.run, self.state.run)):
                if value is None or value in (offered for _, offered in control.options):
                    control.value = value

    def show(self, dataset: str, split: int, video: str, run: str | None = None) -> str:
        """Show a video of a data set, and what a run says of it.

        Returns:
            A sentence where another run speaks in its place, for of a peer's run there are scores and nothing else.
        """
        inside = {each.name for each in self.shelf.split(dataset, split).test}
        with self.state.hold_trait_notifications():
            self.state.dataset, self.state.split, self.state.action, self.state.file = dataset, split, "", ""
            self.state.side = "test" if video in inside else "train"
            self.state.video = video
            if run in self.shelf.networks(dataset, split):
                self.state.run = run
        if run is None or run == self.state.run:
            return ""
        speaks = f"what {self.state.run} says of it" if self.state.run else "the video alone"
        return f"Of {run} there are scores alone: below stands {speaks}."

    def read_video(self) -> None:
        """Let the worker bring what is shown up to date."""
        if self.state.video or self.state.file or self.clip is not None:
            self.work("reading the video", self.update)

    def update(self) -> Iterator[float | None]:
        """Bring what is shown up to date with the state; each part only where it differs."""
        run = self.chosen_run
        source = (self.state.file or (self.state.dataset, self.state.video), run.folder if run else None)
        if source != self._source:
            # Nothing of the old one stays under the name of the new one, even where that fails half-way.
            self._source, self.clip, self.reading = (), None, None
            self._maps.clear()
            try:
                yield from self._load(run)
            except Exception:
                self.loaded()
                raise
            self._source = source
            self.loaded()
        yield from self.refresh()

    @property
    def chosen_run(self) -> Run | None:
        """None: no run is trained."""
        state = self.state
        return self.shelf.runs(state.dataset, state.split).get(state.run) if state.run else None

    def _load(self, run: Run | None) -> Iterator[float | None]:
        state, store = self.state, None
        if state.file:
            path = self._found(state.file)
            name, label = path.name, None
        elif state.video:
            video = self.shelf.video(state.dataset, state.video)
            path, name, label = video.path, video.name, video.action
            store = self.shelf.store(state.dataset, run.asked["preset"] if run else self.shelf.preset(state.dataset))
        else:
            return
        settings = run.preset().store if run else store.settings if store else PRESETS["tiny"].store
        store = store if store and store.settings == settings else None
        self.clip = clip = yield from load(path, name, label, settings, store)
        self.reading = self.ask(clip) if run else None

    def _found(self, text: str) -> Path:
        """The file of a path as somebody typed or pasted it: relative to the notebook, or to the folder of the project.

        Raises:
            IfttnError: it is nowhere there, or is a folder.
        """
        path = Path(text.strip("'\"")).expanduser()
        places = list(dict.fromkeys([Path.cwd(), self.shelf.places.root.resolve().parent]))
        found = next((place / path for place in places if (place / path).exists()), None)
        if found is None:
            looked = "" if path.is_absolute() else f"; looked in {' and in '.join(map(str, places))}"
            raise IfttnError(f"{path} is not there: is its name misspelt?{looked}")
        if found.is_dir():
            inside = sorted(each.name for each in found.iterdir() if each.is_file())[:3]
            such = f", such as {', '.join(inside)}" if inside else "; it holds none"
            raise IfttnError(f"{found} is a folder: type the path of a file in it{such}")
        return found

    @property
    def unread(self) -> str:
        """Why there are no votes, where there are none."""
        if self.chosen_run is not None:
            return "<div class=empty>There are no scores: the line at the top says why.</div>"
        return (
            f"<div class=empty>No trained run of this split yet.<br><code>{escape(self._to_train)}</code> trains one; "
            "frames and motion are shown without it.</div>"
        )

    @property
    def _to_train(self) -> str:
        """The command that trains on what is chosen."""
        return self.shelf.to_train(self.state.dataset, self.state.split)

    def ask(self, clip: Clip, order: Sequence[int] | None = None) -> Reading:
        """What the chosen run says of a clip.

        Raises:
            IfttnError: none is chosen.
        """
        run = self.chosen_run
        if run is None:
            raise IfttnError(f"there is no network to ask: `{self._to_train}` trains one")
        with self.shelf.lock:
            return read(self.shelf.recognizer(run), clip, order)

    def maps(self, action: int, method: Method = "cam", finer: Finer = FINER) -> dict[str, Float[np.ndarray, "V s s"]]:
        """What each head of the chosen run sees for an action in the clip; the last few are kept."""
        run, clip, key = self.chosen_run, self.clip, (action, method, finer)
        found = self._maps.get(key)
        if found is None:
            assert run is not None
            assert clip is not None
            with self.shelf.lock:
                found = pixel_maps(self.shelf.recognizer(run), clip, action, method=method, finer=finer)
            while len(self._maps) >= 8:
                self._maps.pop(next(iter(self._maps)))
            self._maps[key] = found
        return found

    def loaded(self) -> None:
        """A new clip or reading is there; abstract (no ABC, as its metaclass is not a widget's)."""
        raise NotImplementedError(f"{type(self).__name__}.loaded")

    def refresh(self) -> Iterator[float | None]:
        """Steps that show what else the state asks for, by each panel in its own way; abstract, as `loaded` is."""
        raise NotImplementedError(f"{type(self).__name__}.refresh")
