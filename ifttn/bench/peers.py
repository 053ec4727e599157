"""Programs to measure against that cannot live in our environment: each gets one of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError


def folder() -> Path:
    """Where peers live: IFTTN_PEERS, or ifttn/peers in the user's cache folder (XDG_CACHE_HOME, ~/.cache)."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("IFTTN_PEERS") or cache / "ifttn" / "peers")


def python_of(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment with these packages, made on the first call; IfttnError where it cannot be made.

    A call with other requirements makes the environment anew.
    """
    place = folder() / name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = place / "requirements.txt"  # written last: an environment without it is half made
    wanted = "\n".join(requirements)
    if complete.is_file() and complete.read_text() == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    uv = _uv()
    if uv:
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(place)]
        install = [uv, "pip", "install", "--quiet", "--python", str(python), *requirements]
    else:
        make = [sys.executable, "-m", "venv", str(place)]
        install = [str(python), "-m", "pip", "install", "--quiet", *requirements]
    for command in (make, install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = re.sub(r"\s+", " ", done.stderr).strip()[-300:]
            raise IfttnError(f"cannot make the environment {place} with {', '.join(requirements)}: {said}")
    write_whole(complete, wanted.encode())
    return python


def _uv() -> str | None:
    beside = Path(sys.executable).parent / ("uv.exe" if os.name == "nt" else "uv")
    return str(beside) if beside.is_file() else shutil.which("uv")
