"""Two inspectors side by side whose clips are scrubbed and played together."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anywidget import AnyWidget
from traitlets import HasTraits

from lab.inspector import Inspector
from lab.panel import Panel, columns, in_page
from lab.shelf import Shelf


class FrameLink(AnyWidget):
    """Links the frames of all players in its panel (`pair.js`), without a message. It shows nothing."""

    _esm = in_page("keys.js", "pair.js")


class SideBySide(Panel):
    """`SideBySide("results", {"run": "spatial"}, {"run": "if-ttn"})` in a cell: two clips, runs or orders of one clip.

    Both players stand at the same share of their clips, as segments do.

    Args:
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        left: traits of `InspectorState` to begin with.
        right: those that differ.
    """

    def __init__(
        self, results: Shelf | Path | str, left: Mapping[str, Any], right: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__("Side by side", HasTraits(), results)
        self.both = Inspector(self.shelf, **left), Inspector(self.shelf, **{**left, **(right or {})})
        self.fill(FrameLink(), columns(*self.both))

    def wait(self, timeout: float | int | None = 60) -> bool:
        """Until both inspectors have nothing to do."""
        return all([inspector.wait(timeout) for inspector in self.both])
