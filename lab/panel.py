"""What all panels share: a state, a worker, a line of progress, styles, keys, errors, and a clean end."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from threading import RLock, local
from typing import Any, ClassVar, TypeVar
from weakref import WeakSet

import ipywidgets as widgets
from anywidget import AnyWidget
from IPython.core.getipython import get_ipython
from IPython.display import HTML as HTMLPicture
from ipywidgets import HTML, Box, Button, FloatProgress, FloatRangeSlider, HBox, Layout, VBox, Widget
from traitlets import HasTraits, TraitError, Unicode

from ifttn.vocabulary import IfttnError, duration
from lab.shelf import Shelf
from lab.sketches import prose
from lab.worker import Worker

Own = TypeVar("Own", bound="Panel")


def in_page(*files: str) -> str:
    """The text of files of this folder, one after the other: a style sheet or an ES module.

    A module comes inside its widget's state, because not every notebook can load files. So it imports none: what it
    shares with others stands in a file before it.
    """
    return "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in files)


PANEL_CSS = in_page("panel.css")


class Page(AnyWidget):
    """What every panel has in the page: its styles and its keys. It shows nothing itself."""

    _esm, _css = in_page("keys.js", "panel.js"), PANEL_CSS
    title = Unicode().tag(sync=True)


class Panel(VBox):
    """A widget with a state, a worker and an end.

    `close()` ends the thread and closes every widget inside; at the end of a `with` block a panel closes itself. A cell
    that is run again closes the panel of the same kind that it made before. A callback does nothing that takes long:
    the worker does it. Errors of both show in the panel.

    Args:
        title: its heading, which is also read out to those who do not see it.
        state: all that a person chooses.
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
    """

    state: Any
    dataset: widgets.Dropdown
    """In panels whose state has a data set."""
    _panels: ClassVar[WeakSet["Panel"]] = WeakSet()

    def __init__(self, title: str, state: HasTraits, results: Shelf | Path | str) -> None:
        self.title, self.state, self.worker = title, state, Worker()
        self.shelf = results if isinstance(results, Shelf) else Shelf(results)
        self.owned: list[Widget] = []
        """Widgets that are closed with the panel although they are not among its children."""
        self._filling, self._lock = local(), RLock()
        page = Page(title=title, layout=Layout(display="none"))
        self._status, self._alert, heading = HTML(), HTML(), HTML(f"<h3>{escape(title)}{self._whose}</h3>")
        self._bar = FloatProgress(max=1.0, layout=Layout(width="140px", height="10px", visibility="hidden"))
        super().__init__([page, ends([heading], [self._bar, self._status]), self._alert])
        self.add_class("ifttn")
        self.watch(self.worker, ["doing", "share", "paused"], self._show_progress)
        self.watch(self.worker, ["error"], self._show_error)
        self._show_progress()
        self._replace_earlier()

    def _replace_earlier(self) -> None:
        """Close what an earlier run of the same cell made, which no page shows any more."""
        self._cell, self._run_of_cell = _running_cell()
        for other in list(self._panels):
            same = type(other) is type(self) and other._cell == self._cell != ""
            if same and other._run_of_cell != self._run_of_cell:
                other.close()
        self._panels.add(self)
        kernel = getattr(get_ipython(), "kernel", None)
        if kernel is not None:  # it ignores an interrupt while no cell runs, but for this handler
            kernel.saved_sigint_handler = self._stop_all

    @property
    def _whose(self) -> str:
        trains = "`make reproduce` trains it on this machine"
        return f" <small title='{trains}'>published run, not trained here</small>" if self.shelf.published else ""

    @classmethod
    def _stop_all(cls, *_: object) -> None:
        """Give up what every panel is doing."""
        for panel in list(cls._panels):
            panel.worker.stop()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """With a sentence for pages that were saved without a kernel."""
        bundle: Any = super()._repr_mimebundle_(**options)
        bundle["text/plain"] = f"[{self.title}: a panel; run the notebook to use it]"
        return bundle

    def fill(self, *children: Widget) -> None:
        """Put these below the heading."""
        self.children = (*self.children, *children)

    def begin(self, chosen: Mapping[str, object]) -> None:
        """Set traits of the state; the data set is by default the one with most runs."""
        self.guard(self._begin, chosen)

    def _begin(self, chosen: Mapping[str, object]) -> None:
        names = self.state.trait_names()
        for name in chosen:
            if name not in names:
                raise IfttnError(f"no {name!r} to choose: {', '.join(sorted(names))}")
        if "dataset" in names:
            self.dataset.options = self.shelf.datasets
            chosen = {"dataset": self.shelf.usual_dataset, **chosen}
        try:
            self.set_choices(**chosen)
        except TraitError as error:
            told = re.sub(r"The '(\w+)' trait of an? \w+ instance expected", r"`\1` must be", str(error))
            raise IfttnError(told) from error

    def set_choices(self, **chosen: object) -> None:
        """Set several traits of the state at once."""
        with self.state.hold_trait_notifications():
            for name, value in chosen.items():
                setattr(self.state, name, value)

    # -- controls

    def watch(self, of: HasTraits, names: Sequence[str], call: Callable[[], object]) -> None:
        """Call whenever one of these traits changes; an error of the call shows in the panel."""
        of.observe(lambda _: self.guard(call), names=list(names))

    def watch_choice(self, control: HasTraits, call: Callable[[], object]) -> None:
        """Call when a person chooses another value, and not when the panel fills the control."""
        self.watch(control, ["value"], lambda: None if self.silent else call())

    def offer(self, *names: str) -> None:
        """Write what is chosen in the controls of these names into the state."""
        for name in names:
            getattr(self, name).observe(
                lambda change, name=name: self.guard(self.choose, name, change["new"], change["owner"]), "value"
            )

    def choose(self, name: str, value: object, control: Any = None) -> None:
        """A control was touched. Where a thread is just filling it, the choice waits for that, and stands."""
        if self.silent or value is None or value == ():
            return
        with self._lock:
            if control is not None and control.value != value:
                with self.filling():
                    control.value = value
            setattr(self.state, name, value)

    @property
    def silent(self) -> bool:
        """Whether this thread is filling controls; what they report then is no choice of a person."""
        return getattr(self._filling, "now", False)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """While this thread fills controls."""
        with self._lock:
            before, self._filling.now = self.silent, True
            try:
                yield
            finally:
                self._filling.now = before

    def button(
        self, text: str, call: Callable[[], object], tip: str = "", key: str = "", width: str = "auto"
    ) -> Button:
        """A button whose errors show in the panel; `key` presses it, too."""
        made = Button(description=text, tooltip=tip, layout=Layout(width=width))
        made.on_click(lambda _: self.guard(call))
        bind_key(made, key)
        return made

    # -- errors, work and the end

    def guard(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call, and show what it raises: in a callback an error would be lost."""
        try:
            call(*arguments)
        except Exception as error:
            self.worker.report_error(error)

    def work(self, doing: str, job: Callable[[], Iterator[float | None]]) -> None:
        """Let the worker do it, in place of what it does."""
        self.worker.start(doing, job)

    def wait(self, timeout: float | int | None = 60) -> bool:
        """Until the worker has nothing to do: for scripts and tests, never in a callback."""
        return self.worker.wait(timeout)

    def close(self) -> None:
        """End the thread and the links, and close every widget inside."""
        self.worker.close()
        self.state.unobserve_all()
        for widget in _inside(self, *self.owned):
            widget.unobserve_all()
            if widget is not self:
                widget.close()
        self.owned.clear()
        super().close()

    def __enter__(self: Own) -> Own:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _show_progress(self) -> None:
        worker = self.worker
        left = f", {duration(worker.seconds_left)} to go" if worker.seconds_left else ""
        text = f"{escape(worker.doing)}{' (paused)' if worker.paused else left}" if worker.doing else "ready"
        self._status.value = f"<span class=quiet role=status>{text}</span>"
        self._bar.value = worker.share or 0.0
        self._bar.layout.visibility = "visible" if worker.doing and worker.share else "hidden"

    def _show_error(self) -> None:
        error, details = prose(self.worker.error), escape(self.worker.details)
        more = f"<details><summary>where</summary><pre>{details}</pre></details>" if details else ""
        self._alert.value = f"<div role=alert>{error}{more}</div>" if error else ""


def _running_cell() -> tuple[str, str]:
    """The id of the notebook's cell that runs, and the id of this run of it; both empty outside of a cell."""
    parent: Mapping[str, Any] = getattr(get_ipython(), "get_parent", dict)()
    return parent.get("metadata", {}).get("cellId") or "", parent.get("header", {}).get("msg_id", "")


def _inside(*outer: Widget) -> set[Widget]:
    """Widgets and all that hangs on them: children, layouts, styles."""
    found, queue = set[Widget](), list(outer)
    while queue:
        widget = queue.pop()
        if widget not in found:
            found.add(widget)
            values = [getattr(widget, name, None) for name in widget.keys]
            parts = [part for each in values for part in (each if isinstance(each, tuple | list) else [each])]
            queue += [part for part in parts if isinstance(part, Widget)]
    return found


def bind_key(control: Any, key: str) -> None:
    """Let a key of the keyboard press a control, in place of the key before; "" unbinds it.

    The page finds the control by its class (`panel.js`, which names the keys): "s", "space", "shift-arrowleft".
    """
    for name in [name for name in control._dom_classes if name.startswith("key-")]:
        control.remove_class(name)
    control.tooltip = (control.tooltip or "").partition(" (key ")[0] + (f" (key {key})" if key else "")
    if key:
        control.add_class(f"key-{key}")


def as_picture(html: str) -> HTMLPicture:
    """HTML of a panel with the panels' styles, for a page without a kernel."""
    return HTMLPicture(f"<div class=ifttn>{html}</div><style>{PANEL_CSS}</style>")


def row(*parts: Widget, **layout: str) -> HBox:
    """Parts side by side; what has no room goes on the next line."""
    return HBox(parts, layout=Layout(**{"flex_flow": "row wrap", "align_items": "center", "grid_gap": "6px"} | layout))


def ends(left: Sequence[Widget], right: Sequence[Widget]) -> HBox:
    """Two groups of parts at both ends of a row."""
    return row(row(*left), row(*right), justify_content="space-between", width="100%")


def columns(*parts: Widget) -> Box:
    """Parts side by side where there is room, else one below the other, each as wide as the panel."""
    made = Box(parts, layout=Layout(width="100%"))
    made.add_class("ifttn-columns")
    return made


def labelled(text: str, widget: Any) -> Any:
    """A control with its description as wide as it needs."""
    widget.description = text
    widget.style.description_width = "initial"
    return widget


def refill(control: Any, options: Sequence[Any], value: object) -> None:
    """Offer other options, and choose a value of theirs, in one message.

    ipywidgets sends the options before what is chosen: the page would look for an option that is there no more.
    """
    with control.hold_sync():
        control.options, control.value = options, value


def set_range(slider: FloatRangeSlider, low: float, high: float, value: tuple[float, float] | tuple[()]) -> None:
    """Give a slider other ends, and a value; empty: all between them."""
    with slider.hold_sync():
        slider.min, slider.max = min(low, slider.max), high
        slider.min, slider.value = low, value or (low, high)


def dropdown(text: str, options: Sequence[Any] = (), **layout: Any) -> widgets.Dropdown:
    """A labelled choice."""
    return labelled(text, widgets.Dropdown(options=options, layout=Layout(width="auto", **layout)))
