"""The base class of all panels: state, worker, progress, styles, keys, errors and cleanup."""

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
PUBLISHED_NOTE = " <small title='`make reproduce` trains it on this machine'>published run, not trained here</small>"


def in_page(*files: str) -> str:
    """The joined text of files in this folder: a style sheet or an ES module.

    A widget carries the whole text, because not every notebook can load files. A module therefore cannot import
    another one; shared functions come from a file before it.
    """
    return "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in files)


PANEL_CSS = in_page("panel.css")


class Page(AnyWidget):
    """Gives a panel its styles and keys in the page. It is invisible."""

    _esm, _css = in_page("keys.js", "panel.js"), PANEL_CSS
    title = Unicode().tag(sync=True)


class Panel(VBox):
    """A widget with a state and a worker.

    `close()` ends the thread and closes every widget inside; so does the end of a `with` block. A cell that runs again
    closes the panel of the same kind that it made before. Callbacks are short: the worker does all long work. The panel
    shows the errors of both.

    Args:
        title: the heading; screen readers read it.
        state: all that a person chooses.
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
    """

    state: Any
    dataset: widgets.Dropdown
    """Only panels with a data set in their state have it."""
    _panels: ClassVar[WeakSet["Panel"]] = WeakSet()

    def __init__(self, title: str, state: HasTraits, results: Shelf | Path | str) -> None:
        self.title, self.state, self.worker = title, state, Worker()
        self.shelf = results if isinstance(results, Shelf) else Shelf(results)
        self.owned: list[Widget] = []
        """Widgets that the panel closes although they are not among its children."""
        self._filling, self._lock = local(), RLock()
        page = Page(title=title, layout=Layout(display="none"))
        heading = HTML(f"<h3>{escape(title)}{PUBLISHED_NOTE if self.shelf.published else ''}</h3>")
        self._status, self._alert = HTML(), HTML()
        self._bar = FloatProgress(max=1.0, layout=Layout(width="140px", height="10px", visibility="hidden"))
        super().__init__([page, ends([heading], [self._bar, self._status]), self._alert])
        self.add_class("ifttn")
        self.watch(self.worker, ["doing", "share", "paused"], self._show_progress)
        self.watch(self.worker, ["error"], self._show_error)
        self._show_progress()
        self._replace_earlier()

    def _replace_earlier(self) -> None:
        """Close the panel of an earlier run of the same cell: the page no longer shows it."""
        self._cell, self._run_of_cell = _running_cell()
        for other in list(self._panels):
            same = type(other) is type(self) and other._cell == self._cell != ""
            if same and other._run_of_cell != self._run_of_cell:
                other.close()
        self._panels.add(self)
        kernel = getattr(get_ipython(), "kernel", None)
        if kernel is not None:  # without this handler it ignores an interrupt while no cell runs
            kernel.saved_sigint_handler = self._stop_all

    @classmethod
    def _stop_all(cls, *_: object) -> None:
        """Stop the job of every panel."""
        for panel in list(cls._panels):
            panel.worker.stop()

    def _repr_mimebundle_(self, **options: Any) -> dict[str, Any]:
        """Add a sentence for pages that were saved without a kernel."""
        bundle: Any = super()._repr_mimebundle_(**options)
        bundle["text/plain"] = f"[{self.title}: a panel; run the notebook to use it]"
        return bundle

    def fill(self, *children: Widget) -> None:
        """Add widgets below those that the panel has."""
        self.children = (*self.children, *children)

    def begin(self, chosen: Mapping[str, object]) -> None:
        """Set traits of the state. The default data set is the one with most runs."""
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
            message = re.sub(r"The '(\w+)' trait of an? \w+ instance expected", r"`\1` must be", str(error))
            raise IfttnError(message) from error

    def set_choices(self, **chosen: object) -> None:
        """Set several traits of the state at once."""
        with self.state.hold_trait_notifications():
            for name, value in chosen.items():
                setattr(self.state, name, value)

    # -- controls

    def watch(self, source: HasTraits, names: Sequence[str], call: Callable[[], object]) -> None:
        """Call a function whenever one of these traits changes. The panel shows its errors."""
        source.observe(lambda _: self.guard(call), names=list(names))

    def watch_choice(self, control: HasTraits, call: Callable[[], object]) -> None:
        """Call a function when a person chooses another value, but not when the panel fills the control."""
        self.watch(control, ["value"], lambda: None if self.silent else call())

    def offer(self, *names: str) -> None:
        """Copy each new value of the controls with these names into the state."""
        for name in names:
            getattr(self, name).observe(
                lambda change, name=name: self.guard(self.choose, name, change["new"], change["owner"]), "value"
            )

    def choose(self, name: str, value: object, control: Any = None) -> None:
        """Set a trait of the state to a person's choice. While another thread fills the control, wait for it."""
        if self.silent or value is None or value == ():
            return
        with self._lock:
            if control is not None and control.value != value:
                with self.filling():
                    control.value = value
            setattr(self.state, name, value)

    @property
    def silent(self) -> bool:
        """Whether this thread is filling controls. Their changes are then no choice of a person."""
        return getattr(self._filling, "now", False)

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Mark that this thread fills controls."""
        with self._lock:
            before, self._filling.now = self.silent, True
            try:
                yield
            finally:
                self._filling.now = before

    def button(
        self, text: str, call: Callable[[], object], tip: str = "", key: str = "", width: str = "auto"
    ) -> Button:
        """A button; the panel shows the errors of its call. A key of the keyboard can press it as well."""
        made = Button(description=text, tooltip=tip, layout=Layout(width=width))
        made.on_click(lambda _: self.guard(call))
        if key:
            bind_key(made, key)
        return made

    # -- errors, jobs and cleanup

    def guard(self, call: Callable[..., object], *arguments: Any) -> None:
        """Call a function and show its error, which a callback would lose."""
        try:
            call(*arguments)
        except Exception as error:
            self.worker.report_error(error)

    def work(self, doing: str, job: Callable[[], Iterator[float | None]]) -> None:
        """Give the worker a job. It replaces the present one."""
        self.worker.start(doing, job)

    def wait(self, timeout: float | int | None = 60) -> bool:
        """Wait until the worker has nothing to do. For scripts and tests, never in a callback."""
        return self.worker.wait(timeout)

    def close(self) -> None:
        """End the thread, remove all callbacks, and close every widget inside."""
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
    """The ids of the running notebook cell and of this run; both are empty outside a cell."""
    parent: Mapping[str, Any] = getattr(get_ipython(), "get_parent", dict)()
    return parent.get("metadata", {}).get("cellId") or "", parent.get("header", {}).get("msg_id", "")


def _inside(*outer: Widget) -> set[Widget]:
    """Widgets with all their children, layouts and styles."""
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
    """Let a key of the keyboard press a control: "s", "space", "shift-arrowleft" (`keys.js` has the names)."""
    control.tooltip = f"{control.tooltip or ''} (key {key})"
    control.add_class(f"key-{key}")


def as_picture(html: str) -> HTMLPicture:
    """HTML with the styles of the panels, for a page without a kernel."""
    return HTMLPicture(f"<div class=ifttn>{html}</div><style>{PANEL_CSS}</style>")


def row(*parts: Widget, **layout: str) -> HBox:
    """Parts side by side, wrapped where a line is full."""
    return HBox(parts, layout=Layout(**{"flex_flow": "row wrap", "align_items": "center", "grid_gap": "6px"} | layout))


def ends(left: Sequence[Widget], right: Sequence[Widget]) -> HBox:
    """A row with one group of parts at each end."""
    return row(row(*left), row(*right), justify_content="space-between", width="100%")


def columns(*parts: Widget) -> Box:
    """Parts side by side where there is room, else below each other at the full width of the panel."""
    made = Box(parts, layout=Layout(width="100%"))
    made.add_class("ifttn-columns")
    return made


def labelled(text: str, widget: Any) -> Any:
    """Give a control a description of natural width, and return the control."""
    widget.description = text
    widget.style.description_width = "initial"
    return widget


def refill(control: Any, options: Sequence[Any], value: object) -> None:
    """Set the options and the value of a control in one message.

    ipywidgets would send the options first, and the page would look up the old value among the new options.
    """
    with control.hold_sync():
        control.options, control.value = options, value


def set_range(slider: FloatRangeSlider, low: float, high: float, value: tuple[float, float] | tuple[()]) -> None:
    """Set the ends and the value of a slider; an empty value selects the whole range."""
    with slider.hold_sync():
        slider.min, slider.max = min(low, slider.max), high
        slider.min, slider.value = low, value or (low, high)


def dropdown(text: str, options: Sequence[Any] = (), **layout: Any) -> widgets.Dropdown:
    """A labelled dropdown."""
    return labelled(text, widgets.Dropdown(options=options, layout=Layout(width="auto", **layout)))
