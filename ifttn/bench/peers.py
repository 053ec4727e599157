"""Separate environments for programs that we compare with and that cannot be installed in our environment."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError


def python_of(name: str, requirements: Sequence[str]) -> Path:
    """The Python of an environment with these packages. The first call makes the environment.

    Environments are in the folder IFTTN_PEERS, by default ifttn/peers in the user's cache folder (XDG_CACHE_HOME, or
    ~/.cache). A call with other requirements replaces the environment.

    Raises:
        IfttnError: the environment cannot be made.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = Path(os.environ.get("IFTTN_PEERS") or cache / "ifttn" / "peers") / name
    python = place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    complete = place / "requirements.txt"  # written last: an environment without it is incomplete
    wanted = "\n".join(requirements)
    if complete.is_file() and complete.read_text() == wanted:
        return python
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(sys.executable).with_name("uv.exe" if os.name == "nt" else "uv")
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv:
        make = [uv, "venv", "--quiet", "--python", sys.executable, str(place)]
        install = [uv, "pip", "install", "--quiet", "--python", str(python), *requirements]
    else:
        make = [sys.executable, "-m", "venv", str(place)]
        install = [str(python), "-m", "pip", "install", "--quiet", *requirements]
    for command in (make, install):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = re.sub(r"\s+", " ", done.stderr).strip()[-300:]
            raise IfttnError(f"cannot make the environment {place} with {', '.join(requirements)}: {reason}")
    write_whole(complete, wanted.encode())
    return python
