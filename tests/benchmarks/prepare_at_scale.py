"""How preparation copes with whole data sets: time, memory, and the faults that real lists come with.

Small stand-in videos (64x48, 8 frames) stand under the official names, so that what is measured is everything but the
decoding: `python tests/benchmarks/prepare_at_scale.py --lists ucf101_splits hmdb51_splits --sizes 100 1000 10000`.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd

from ifttn.data.list_formats import parse_lists
from ifttn.data.preparation import prepare
from ifttn.data.store import StoreSettings

SETTINGS = StoreSettings(32, 24, 5.0, flow="dis")

FAULTS: Mapping[str, str] = {
    "missing": "not in the folder",
    "empty": "is empty",
    "text": "cannot be decoded",
    "zero frames": "none of its frames",
    "truncated": "has only one frame",
    "unknown codec": "codec",
    "sound only": "no video stream",
    "one frame": "has only one frame",
    "link out": "outside the data set",
    "dangling link": "outside the data set",
    "folder": "not in the folder",
}
"""Fault -> what its line in the report says."""
ODDITIES = ("two frames", "bad metadata", "H.264")
"""Looks like a fault, and works."""


def encode(path: Path, frames: int, codec: str = "mpeg4", title: str = "") -> bytes:
    """A small AVI, also as bytes."""
    texture = np.random.default_rng(0).integers(0, 256, (12, 16 + 8, 3), dtype=np.uint8)
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream(codec, rate=25, width=64, height=48, pix_fmt="yuv420p")
        container.metadata["title"] = title
        container.start_encoding()
        for index in range(frames):
            picture = np.kron(texture[:, index : index + 16], np.ones((4, 4, 1), np.uint8))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def encode_sound(path: Path) -> bytes:
    """An AVI with a second of silence and no picture."""
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        silence.rate = 8000
        container.mux(stream.encode(silence))
    return path.read_bytes()


def stand_ins(folder: Path) -> dict[str, bytes]:
    """The content of a sound video ("") and of every oddity and fault that is one of content."""
    video = encode(folder / "video.avi", 8)
    return {
        "": video,
        "empty": b"",
        "text": b"<html>404 Not Found</html>" * 40,
        "zero frames": encode(folder / "none.avi", 0),
        "truncated": video[: video.index(b"movi") + 2000],
        "unknown codec": video.replace(b"FMP4", b"QQQQ"),
        "sound only": encode_sound(folder / "sound.avi"),
        "one frame": encode(folder / "one.avi", 1),
        "two frames": encode(folder / "two.avi", 2),
        "bad metadata": encode(folder / "metadata.avi", 8, title="TITLE").replace(b"TITLE", b"\xff\xfe\xe9\xc0!"),
        "H.264": encode(folder / "h264.avi", 8, "libx264"),
    }


def populate(root: Path, names: Iterable[str], planted: Mapping[str, str]) -> None:
    """Stand-ins under all names ("<class>/<file>") in `root`; `planted`: name -> fault or oddity."""
    kinds = root.parent / f"{root.name}-kinds"
    kinds.mkdir(parents=True)
    contents = stand_ins(kinds)
    for kind, content in contents.items():
        (kinds / f"{kind or 'sound'}.bin").write_bytes(content)
    for name in names:
        kind, path = planted.get(name, ""), root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind in contents:
            os.link(kinds / f"{kind or 'sound'}.bin", path)
        elif kind == "folder":
            path.mkdir()
        elif kind.endswith("link") or kind.startswith("link"):
            path.symlink_to(kinds / ("sound.bin" if kind == "link out" else "nothing.bin"))


def official(root: Path, lists: Path) -> tuple[int, dict[str, str]]:
    """A data set under all the names that `lists` hold, one fault or oddity of each kind among them (returned)."""
    names = [row.path for row in parse_lists(lists, 1).rows]
    odd = [name for name in names if set(name) & set("[]()!#&;~")]
    usual = [name for name in names[:: len(names) // 40] if name not in odd]
    kinds = [*FAULTS, *ODDITIES]
    planted = dict(zip(usual, kinds, strict=False)) | dict(zip(odd[:: max(1, len(odd) // 20)], kinds, strict=False))
    populate(root, names, planted)
    shutil.copytree(lists, root / "lists")
    return len(names), planted


def wrong(report: pd.DataFrame, planted: Mapping[str, str]) -> list[str]:
    """What the report should say and does not."""
    rows = report.set_index("video")
    problems = []
    for name, kind in planted.items():
        row = rows.loc[name.rpartition(".")[0]]
        if row.status in ("done", "skipped") if kind in FAULTS else row.status not in ("done", "skipped"):
            problems.append(f"{name}, planted as {kind}: {row.status} {row.reason}")
        elif kind in FAULTS and FAULTS[kind] not in row.reason:
            problems.append(f"{name}, planted as {kind}: {row.reason}")
    named = {name.rpartition(".")[0] for name in planted}
    failed = report[report.status.isin(("failed", "missing")) & ~report.video.isin(named)]
    return problems + [f"{name} failed: {reason}" for name, reason in zip(failed.video, failed.reason, strict=True)]


def peak() -> float:
    """The most memory in MiB that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << (10 if sys.platform != "darwin" else 20))


def measure(label: str, root: Path, store: Path, jobs: int | None) -> tuple[dict[str, object], pd.DataFrame]:
    """Prepare twice; a row of figures, and the first report."""
    began = time.perf_counter()
    report = prepare(root, store, SETTINGS, jobs=jobs, progress=sys.stderr.isatty())
    middle, own = time.perf_counter(), time.process_time()
    again = prepare(root, store, SETTINGS, jobs=jobs, progress=False)
    counts = report.status.value_counts()
    row: dict[str, object] = {"data set": label, "videos": len(report)}
    row |= {status: int(counts.get(status, 0)) for status in ("done", "failed", "missing")}
    row |= {"seconds": round(middle - began, 1), "again": round(time.perf_counter() - middle, 1)}
    row |= {"again, CPU": round(time.process_time() - own, 1)}
    row |= {"done again": int((again.status == "done").sum()), "peak MiB": round(peak())}
    print(row, file=sys.stderr)
    return row, report


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where a planted fault was not found, or a sound video failed."""
    p = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    p.add_argument("--lists", type=Path, nargs="*", default=[], help="folders of official lists")
    p.add_argument("--sizes", type=int, nargs="*", default=[100, 1000, 10000], help="videos without lists")
    p.add_argument("--jobs", type=int, help="by default one a core")
    p.add_argument("--json", type=Path, help="write the rows and what is wrong to this file as well")
    o = p.parse_args(arguments)
    problems, rows = [], [{"data set": "nothing yet", "peak MiB": round(peak())}]
    with tempfile.TemporaryDirectory() as scratch:
        for size in o.sizes:
            root = Path(scratch) / f"plain-{size}"
            populate(root, (f"class{i % 100:03}/video {i} (é).avi" for i in range(size)), {})
            row, report = measure(root.name, root, Path(scratch) / "stores" / root.name, o.jobs)
            rows.append(row)
            problems += wrong(report, {})
        for lists in o.lists:
            root = Path(scratch) / lists.name
            _, planted = official(root, lists)
            row, report = measure(root.name, root, Path(scratch) / "stores" / root.name, o.jobs)
            rows.append(row)
            problems += wrong(report, planted)
    print(pd.DataFrame(rows).to_string(index=False, na_rep=""))
    print("\n".join(problems) or "every planted fault was found, and nothing else failed")
    if o.json:
        o.json.write_text(json.dumps({"rows": rows, "problems": problems}))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
