"""A panel that lists videos and opens one in an inspector."""

from pathlib import Path

from ipywidgets import HTML
from traitlets import HasTraits

from lab.inspector import Inspector
from lab.panel import Panel
from lab.shelf import Shelf


class Opener(Panel):
    """Opens videos in an inspector. Without one, the first video makes an inspector below the panel."""

    def __init__(
        self, title: str, state: HasTraits, results: Shelf | Path | str, inspector: Inspector | None = None
    ) -> None:
        super().__init__(title, state, results)
        self.inspector, self._note = inspector, HTML()

    def open_video(self, dataset: str, split: int, video: str, run: str | None = None) -> None:
        """Show a video of a data set, with the predictions of a run."""
        if self.inspector is None:
            self.inspector = Inspector(self.shelf)
            self.fill(self.inspector)
        note = self.inspector.show(dataset, split, video, run)
        self._note.value = f"<small role=status>{note}</small>"
