"""A field in a panel on which a person drops a video."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anywidget import AnyWidget
from traitlets import Int

from lab.panel import in_page

LARGEST = 500
"""Largest file that the page sends (megabytes). A person types the path of a larger one."""


class Upload(AnyWidget):
    """Lets a person drop or choose a file (`upload.js`), and stores it in `folder`.

    The page sends a file in parts, because the server of a notebook refuses large messages.
    """

    _esm = in_page("elements.js", "upload.js")
    most = Int(LARGEST).tag(sync=True)

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def receive(self, message: Mapping[str, Any], part: memoryview) -> Path | None:
        """Write a part of a file, and ask the page for the next part.

        Args:
            message: `name` of the file, `at` of the part's first byte, and `size` of the file in bytes.
            part: its bytes.

        Returns:
            The path once the file is complete, before that None.
        """
        path, end = self.folder / Path(message["name"]).name, message["at"] + len(part)
        self.folder.mkdir(parents=True, exist_ok=True)
        coming = path.with_name(f".{path.name}.part")
        with coming.open("r+b" if message["at"] else "wb") as file:
            file.seek(message["at"])
            file.write(part)
        self.send({"at": end})
        return coming.replace(path) if end >= message["size"] else None
