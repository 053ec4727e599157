"""The file that an entry of a store was made of."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from ifttn.vocabulary import IfttnError


@dataclass(frozen=True)
class Origin:
    """What tells a video file from another one of the same name, also after its data set was moved or copied."""

    path: str = ""
    """Relative to the folder of the data set."""
    bytes: int = 0
    mtime_ns: int = 0
    """When it was last changed, in nanoseconds since 1970."""
    sha256: str = ""
    """Of its content, in hexadecimal; "" where frames were stored that came from no file."""

    @classmethod
    def of(cls, file: Path, root: Path) -> "Origin":
        """What a file of the data set at `root` is now; it is read once.

        Raises:
            IfttnError: it cannot be read.
        """
        try:
            facts = file.stat()  # before its content: what is written in between shows as a later time
            # A name that is not UTF-8 stands as it does in the report.
            path = os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
            return cls(path, facts.st_size, facts.st_mtime_ns, _digest(file))
        except OSError as error:
            raise IfttnError(f"{file}: cannot be read ({error.strerror})") from error

    def mtime_if_same(self, file: Path) -> int | None:
        """When `file` was last changed, if its content is this one; else None. It is read only where its time differs.

        Raises:
            OSError: it is not there, or cannot be read.
        """
        facts = file.stat()
        if facts.st_size != self.bytes:
            return None
        is_same = facts.st_mtime_ns == self.mtime_ns or _digest(file) == self.sha256
        return facts.st_mtime_ns if is_same else None


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
