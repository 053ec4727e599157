"""Two inspectors side by side that show the same moment of their clips."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anywidget import AnyWidget
from traitlets import HasTraits

from lab.inspector import Inspector
from lab.panel import Panel, columns, in_page
from lab.shelf import Shelf


class FrameLink(AnyWidget):
    """Links the frames of all players in its panel, in the page alone (`pair.js`). It is invisible."""

    _esm = in_page("keys.js", "pair.js")


class SideBySide(Panel):
    """`SideBySide("results", {"run": "spatial"}, {"run": "if-ttn"})` in a cell compares two clips, runs or orders.

    Both players are at the same fraction of their clips, because segments divide a clip of any length.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        left: traits of the first `InspectorState`.
        right: traits of the second one that differ from the first.
    """

    def __init__(
        self, results: Shelf | Path | str, left: Mapping[str, Any], right: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__("Side by side", HasTraits(), results)
        self.both = Inspector(self.shelf, **left), Inspector(self.shelf, **{**left, **(right or {})})
        self.fill(FrameLink(), columns(*self.both))

    def wait(self, timeout: float | int | None = 60) -> bool:
        """Wait until both inspectors have nothing to do."""
        return all([inspector.wait(timeout) for inspector in self.both])
