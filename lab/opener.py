"""A panel that lists videos and opens one of them in an inspector."""

from pathlib import Path

from ipywidgets import HTML
from traitlets import HasTraits

from lab.inspector import Inspector
from lab.panel import Panel
from lab.shelf import Shelf


class Opener(Panel):
    """Opens videos in the inspector that it was given, or in one of its own below itself.

    Args:
        title: its heading.
        state: all that a person chooses.
        results: a Shelf, or the folder that `ifttn reproduce` wrote.
        inspector: shows the videos; without one, the panel makes its own with the first video.
    """

    def __init__(
        self, title: str, state: HasTraits, results: Shelf | Path | str, inspector: Inspector | None = None
    ) -> None:
        super().__init__(title, state, results)
        self.inspector, self._note = inspector, HTML()

    def open_video(self, dataset: str, split: int, video: str, run: str | None = None) -> None:
        """Show a video of a data set, and what a run says of it."""
        if self.inspector is None:
            self.inspector = Inspector(self.shelf)
            self.fill(self.inspector)
        note = self.inspector.show(dataset, split, video, run)
        self._note.value = f"<small role=status>{note}</small>"
