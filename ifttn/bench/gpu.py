"""Everything that needs a GPU: tests of correct results, and all GPU figures of the docs.

    python -m ifttn bench gpu                     the checkout on PYTHONPATH, nothing installed, no network
    python -m ifttn bench gpu --minutes 4 --parts tests flow train
    python -m ifttn bench gpu --docs              update docs/speed.md from docs/gpu-*.json

Each part is a process with a time limit. Its rows are written to the JSON file as soon as they are measured. A part may
take twice its share of the remaining time. On a CPU, every part runs at a tiny size, which only shows that it works.
"""

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import math
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ifttn.bench.clock import device_name
from ifttn.bench.options import GPU_PARTS
from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    *("torch", "torchvision", "triton", "cuda-bindings", "numpy", "numba", "opencv-python-headless", "av", "grad-cam"),
)
LAST_SECONDS = 10.0
"""Seconds for an interrupted part to print its results."""
BEGIN, END = "<!-- made by `ifttn bench gpu --docs` from docs/gpu-*.json -->", "<!-- until here -->"
NO_RUN = "No run of `ifttn bench gpu` is kept in docs/ yet."


@dataclass(frozen=True)
class Place:
    """The device of a part, and the folder and time that it may use."""

    device: str
    folder: Path
    """A folder for all parts, with the drawn stores and the file of rows."""
    seconds: float = math.inf
    """Time limit."""

    @property
    def rows(self) -> Path:
        """The file for the rows of a part."""
        return self.folder / "rows.jsonl"

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU. Then sizes are those of the paper."""
        return self.device.startswith("cuda")

    @property
    def preset(self) -> str:
        """The preset of training."""
        return "paper" if self.on_gpu else "smallest"

    @property
    def workers(self) -> int:
        """Processes that load batches: one per core except one core, at least one."""
        return max(1, len(os.sched_getaffinity(0)) - 1)

    @property
    def minutes(self) -> float:
        """Minutes for the measurements of `bench speed`. It builds its networks in the rest of the time."""
        return self.seconds / 180


@dataclass(frozen=True)
class Part:
    """A part of the benchmark, which runs in its own process."""

    answers: str
    weight: int
    """Approximate duration on an H100 in seconds."""
    words: Callable[[Place], Sequence[str]]
    """Makes the words after `python -m` on the command line."""
    needs: tuple[str, ...] = ()
    """Packages that the part needs."""


def _bench(words: str, full: str = "", tiny: str = "") -> Callable[[Place], Sequence[str]]:
    """The words of `ifttn bench WORDS`, then `full` on a GPU or `tiny` on a CPU. Fields of the place are filled in."""
    return lambda place: (
        *(word.format(place) for word in f"ifttn bench {words} {full if place.on_gpu else tiny}".split()),
        *("--json", str(place.rows)),
    )


_TRAIN = "train --preset {0.preset} --device {0.device}"


def _memory(more: str = "") -> Callable[[Place], Sequence[str]]:
    """`bench train` without data."""
    few = "--steps 1 --repetitions 1 --batch 2 --stages temporal"
    return _bench(f"{_TRAIN} --from-memory {more}", "--steps 4 --repetitions 3", few)


def _with_data(more: str = "", workers: int | None = None) -> Callable[[Place], Sequence[str]]:
    """`bench train` with its data, by default with a process for each core but one."""
    return _bench(
        f"{_TRAIN} --folder {{0.folder}}/train {more}",
        f"--workers {workers or '{0.workers}'} --videos 64 --steps 4 --repetitions 2",
        "--workers 0 --videos 16 --steps 1 --repetitions 1",
    )


def _own(name: str) -> Callable[[Place], Sequence[str]]:
    """A part of `ifttn.bench.gpu_parts`."""
    return lambda place: ("ifttn.bench.gpu_parts", name, place.device, str(place.folder))


QUESTIONS: Mapping[str, Part] = {
    "tests": Part("Do the tests that need a GPU pass?", 90, _own("tests"), ("pytest",)),
    "resume": Part("Does a training that was killed several times end with the same bits?", 60, _own("resume")),
    "flow": Part(
        "How many pairs/s does TV-L1 compute, and how far is it from the CPU's flow?",
        40,
        _bench("flow --gpu", tiny="--sizes 48x32"),
    ),
    "train": Part("How fast is each stage of training, with its data and from memory?", 60, _with_data()),
    "four": Part("How fast is each stage of training, if the machine has four cores?", 60, _with_data("--cores 4", 4)),
    "memory": Part("How fast is training from memory, compared with torchvision's network?", 40, _memory()),
    "loader": Part("How many videos/s does the loader give, with 4, 8 and all cores?", 50, _own("loader")),
    "study": Part("Does a small study reach the accuracies of docs/results.md?", 80, _own("study")),
    "largest": Part("How large can a batch of the joint stage be?", 60, _bench(f"{_TRAIN} --largest-batch")),
    "jpeg": Part("How fast does nvJPEG decode the store's JPEGs, compared with one core?", 20, _own("jpeg")),
    "speed": Part(
        "How fast is each system of Table 5?",
        90,
        _bench(
            "speed --device {0.device} --minutes {0.minutes:.2f} --repetitions 5",
            tiny="--size small --rows mv-if-ttn --segments 2",
        ),
    ),
    "compile": Part("How fast is training from memory with torch.compile?", 120, _memory("--compile")),
    "insight": Part(
        "How many class activation maps and DeepDraw steps per second?",
        60,
        _bench("insight --device {0.device}", "--presets paper tiny", "--batch 1 --repeat 1"),
    ),
    "peers": Part("How fast are OpenCV's flows, if they are installed?", 20, _own("peers")),
}


def run(o: argparse.Namespace) -> int:
    """Measure the parts and write both files. The exit code is 1 if a part failed."""
    if o.docs:
        page = ROOT / "docs" / "speed.md"
        write_whole(page, renewed(page.read_text(), kept_runs()).encode())
        print(f"updated: {page}")
        return 0
    out: Path = o.json or Path("results/gpu.json")
    chosen = [name for name in GPU_PARTS if name in o.parts]
    found: dict[str, Any] = {**about(o.device), "minutes": o.minutes, "parts": []}
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the part and keeps its results
    try:
        with tempfile.TemporaryDirectory(prefix="ifttn-gpu-", ignore_cleanup_errors=True) as folder:
            for part in measured(chosen, o.device, Path(folder), 60 * o.minutes):
                found["parts"] = [p for p in found["parts"] if p["part"] != part["part"]] + [part]
                write_both(out, found)
                if part["status"] != "running":
                    print("\n".join([f"{part['part']} {_ending(part)}", *part["printed"]]), flush=True)
    finally:
        signal.signal(signal.SIGTERM, before)
        for part in found["parts"]:  # of a run that was interrupted
            part["status"] = part["status"].replace("running", "cut off")
        write_both(out, found)
    print(f"results: {out} and {out.with_suffix('.md')}")
    return int(any(part["status"] == "failed" for part in found["parts"]))


def about(device: str) -> dict[str, Any]:
    """Device, versions and commit (from git, or from IFTTN_COMMIT). This takes no memory of the GPU."""
    import torch

    versions = {"python": platform.python_version(), "CUDA": torch.version.cuda or "absent"}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    number = device.partition(":")[2] or "0"
    gpu = _output("nvidia-smi", "-i", number, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    described = _output("git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12")
    return {
        "device": gpu or device if device.startswith("cuda") else "no GPU: tiny sizes, to show that the parts run",
        "processor": f"{device_name('cpu')}, {len(os.sched_getaffinity(0))} cores",
        "versions": versions,
        "commit": described or os.environ.get("IFTTN_COMMIT", "unknown"),
        "date": datetime.date.today().isoformat(),
    }


def _output(*command: str) -> str:
    """The output of a program, or "" if it is not installed or fails."""
    with contextlib.suppress(OSError):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return "" if done.returncode else done.stdout.strip()
    return ""


def measured(chosen: Sequence[str], device: str, folder: Path, seconds: float) -> Iterator[dict[str, Any]]:
    """The results of each part, whenever it has a new row and at its end."""
    end = time.monotonic() + seconds
    for number, name in enumerate(chosen):
        part, left = QUESTIONS[name], end - time.monotonic()
        found = {"part": name, "answers": part.answers, "seconds": 0.0, "tables": [], "printed": []}
        if absent := [need for need in part.needs if not find_spec(need)]:
            yield found | {"status": "absent", "reason": f"{', '.join(absent)} is not installed"}
        elif name == "largest" and not device.startswith("cuda"):
            yield found | {"status": "absent", "reason": "it fills the memory of a GPU, and this machine has no GPU"}
        elif left < LAST_SECONDS:
            yield found | {"status": "cut off", "reason": "no time was left"}
        else:
            share = left * part.weight / sum(QUESTIONS[each].weight for each in chosen[number:])
            place = Place(device, folder, min(left, 2 * share))
            title, ahead = f"{number + 1}/{len(chosen)} {name}", f"then {', '.join(chosen[number + 1 :]) or 'done'}"
            often = 0.5 if sys.stderr.isatty() else 20  # a log keeps every line
            with tqdm(total=round(place.seconds), desc=title, unit="s", leave=False, mininterval=often) as bar:
                bar.set_postfix_str(ahead, refresh=False)
                for state in process(part.words(place), place, bar):
                    yield found | state


def process(words: Sequence[str], place: Place, bar: tqdm) -> Iterator[dict[str, Any]]:
    """Run `python -m WORDS` until its time limit. Yields the rows after each new row, and at the end the status."""
    place.rows.unlink(missing_ok=True)
    output, errors = place.folder / "stdout", place.folder / "stderr"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    began, known = time.monotonic(), 0
    with output.open("w") as stdout, errors.open("w") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", *words],
            **{"stdout": stdout, "stderr": stderr, "start_new_session": True},
            env=os.environ | {"PYTHONPATH": path},
        )
        try:
            yield _state("running", began, place)
            while (code := child.poll()) is None and time.monotonic() - began < place.seconds:
                time.sleep(0.2)
                bar.update(round(time.monotonic() - began) - bar.n)
                size = place.rows.stat().st_size if place.rows.exists() else 0
                if size > known:
                    known = size
                    yield _state("running", began, place)
            if code is None:
                child.send_signal(signal.SIGINT)  # it may still print its results
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(LAST_SECONDS)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    state = _state("done", began, place)
    if code is None:
        state |= {"status": "cut off", "reason": f"its limit was {place.seconds:.0f} s"}
    elif code:
        lines = [line for line in re.split(r"[\r\n]+", errors.read_text(errors="replace")) if line.strip()]
        state |= {"status": "failed", "reason": "\n".join(lines[-12:]) or f"exit code {code}"}
    yield state


def _state(status: str, began: float, place: Place) -> dict[str, Any]:
    tables: list[dict[str, Any]] = []
    lines = place.rows.read_text().splitlines() if place.rows.exists() else []
    for line in lines:
        with contextlib.suppress(ValueError):  # a line that was cut off
            entry = json.loads(line)
            if "headings" in entry:
                tables.append({"headings": entry["headings"], "rows": []})
            else:
                tables[-1]["rows"].append(entry["row"])
    printed = (place.folder / "stdout").read_text(errors="replace").splitlines()
    return {"status": status, "seconds": round(time.monotonic() - began, 1), "tables": tables, "printed": printed}


def write_both(out: Path, found: Mapping[str, Any]) -> None:
    """Write the JSON file, and the Markdown file beside it."""
    write_whole(out, json.dumps(found, indent=1).encode())
    write_whole(out.with_suffix(".md"), as_markdown(found).encode())


# Markdown


def kept_runs() -> list[dict[str, Any]]:
    """The runs in docs/, one per device."""
    return [json.loads(path.read_text()) for path in sorted((ROOT / "docs").glob("gpu-*.json"))]


def renewed(page: str, runs: Sequence[Mapping[str, Any]]) -> str:
    """A page of the docs with the tables of these runs between two marks. Raises IfttnError if a mark is missing."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise IfttnError(f"docs/speed.md needs the lines {BEGIN} and {END} before and after its tables")
    made = "\n".join(as_markdown(found) for found in runs) or f"{NO_RUN}\n"
    return f"{before}{BEGIN}\n\n{made}\n{END}{after}"


def as_markdown(found: Mapping[str, Any]) -> str:
    """A run as Markdown: its device, and the status and tables of each part."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    lines = [
        f"### {found['device']}",
        "",
        f"{found['processor']}. Commit {found['commit']}, {found['date']}.",
        f"{versions[0].upper()}{versions[1:]}.",
    ]
    for part in found["parts"]:
        lines += ["", f"**{part['part']}**: {part['answers']} {_ending(part)}"]
        for table in part["tables"]:
            lines += ["", *_rows(table["headings"], table["rows"])]
        if not part["tables"] and part["printed"]:
            lines += ["", *(f"- {_cell(line)}" for line in part["printed"] if line.strip())]
    return "\n".join(lines) + "\n"


def _ending(part: Mapping[str, Any]) -> str:
    reason = f": {_cell(part['reason'].splitlines()[-1])}" if part.get("reason") else ""
    return f"({part['status']}{reason}; {part['seconds']:.0f} s)"


def _rows(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (headings, ["---"] * len(headings), *rows):
        yield f"| {' | '.join(_cell(cell) for cell in [*cells, *[''] * (len(headings) - len(cells))])} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
