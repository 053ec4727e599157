"""A place in a panel to drop a video on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anywidget import AnyWidget
from traitlets import Int

from lab.panel import in_page

LARGEST = 500
"""Megabytes of a file that is sent; a larger one is opened by its path."""


class Upload(AnyWidget):
    """Lets a person drop or choose a file (`upload.js`). It comes in parts: a notebook's server takes no large message.

    Args:
        folder: where the files go.
    """

    _esm = in_page("elements.js", "upload.js")
    most = Int(LARGEST).tag(sync=True)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def receive(self, said: Mapping[str, Any], part: memoryview) -> Path | None:
        """Keep a part of a file, and ask for the next one.

        Args:
            said: the name of the file, where its part begins (`at`), and how many bytes it has in all (`of`).
            part: its bytes.

        Returns:
            The file when all of it is there.
        """
        path, end = self.folder / Path(said["name"]).name, said["at"] + len(part)
        self.folder.mkdir(parents=True, exist_ok=True)
        coming = path.with_name(f".{path.name}.part")
        with coming.open("r+b" if said["at"] else "wb") as file:
            file.seek(said["at"])
            file.write(part)
        self.send({"at": end})
        return coming.replace(path) if end >= said["of"] else None
