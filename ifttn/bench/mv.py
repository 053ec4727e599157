"""Frames and motion vectors in one pass, beside the same files decoded with nothing else done.

Decoding alone and ours run in this process, in turns, frames 32 at a time; the figures are of processor time, the
least of several turns of each 32, summed. Programs of others count their own processor time; the best turn counts.
"""

import argparse
import json
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Float64, Shaped

from ifttn.bench.peers import python_of
from ifttn.data.doctor import CODECS, pan, write
from ifttn.data.video import Reader, exported
from ifttn.vocabulary import IfttnError

EXTRACTOR = ("motion-vector-extractor==2.0.0", "opencv-python-headless<5")
EXAMPLES = ("MPEG-4", "H.264, one reference")
"""The codecs of the example videos: read as they are, without being encoded anew."""
PIECE = 32
SEGMENTS = 7
"""Frames of a video converted to RGB: the paper's K."""
EXPORTS = "decoding that exports vectors"
OURS = f"ours: vectors painted, {SEGMENTS} frames RGB"
FIELDS = ("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
"""Of a row of motion-vector-extractor, which has them in this order."""
_DEFINED = ("source", "w", "h", "dst_x", "dst_y", "motion_scale")
# On one core, for its processor time to be that of one.
_SCRIPT = """
import json, os, sys, time
import numpy as np
from mvextractor.videocap import VideoCap
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
best = float("inf")
for _ in range(int(sys.argv[3])):
    began, rows, kinds, video = time.process_time(), [], "", VideoCap()
    if not video.open(sys.argv[1]):
        sys.exit("cannot open " + sys.argv[1])
    video.set_decode_frames(False)
    while True:
        good, _, vectors, kind = video.read()
        if not good:
            break
        rows.append(vectors)
        kinds += kind or "?"
    best = min(best, time.process_time() - began)
    video.release()
rows = [row.reshape(-1, 10) for row in rows]
np.save(sys.argv[2], np.concatenate([np.insert(row, 0, t, axis=1) for t, row in enumerate(rows)]))
print(json.dumps([best, kinds]))
"""


@dataclass(frozen=True)
class Extracted:
    """What motion-vector-extractor reads of a video."""

    rows: list[Shaped[np.ndarray, "_ 10"]]
    """The vectors of each frame, in the order of FIELDS."""
    kinds: str
    seconds: float
    """Processor time, in its fastest mode: vectors and no frames."""


def run(o: argparse.Namespace) -> int:
    """Print a table for each video. Exit code 1 when motion-vector-extractor reads other vectors than we do."""
    cv2.setNumThreads(0)  # the rates are those of one core
    ffmpeg = shutil.which("ffmpeg")
    versions = [f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}", f"ffmpeg {_version(ffmpeg)}"]
    print(f"{_processor()}, one core; {', '.join(versions)}; {o.repetitions} turns; microseconds a frame")
    differ = False
    with tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        for video in o.videos or examples(Path(folder), o.frames):
            differ |= _table(video, o, ffmpeg)
    return int(differ)


def examples(folder: Path, frames: int) -> list[Path]:
    """A textured pan with a little noise at 320x240, in each of EXAMPLES."""
    rng, clean = np.random.default_rng(0), pan(frames, 320, 240, (3, 1))
    noisy = np.stack([np.clip(frame + rng.normal(0, 1, frame.shape), 0, 255).astype(np.uint8) for frame in clean])
    codecs = [CODECS[name] for name in EXAMPLES]
    return [write(folder / f"{codec.encoder}{codec.suffix}", noisy, codec) for codec in codecs]


def measure(video: Path, repetitions: int) -> dict[str, float]:
    """Processor seconds of each way to read a video in this process; `Reader` reads it as it is or encodes it anew."""
    ways: Mapping[str, Callable[[], Iterator[object]]] = {
        "decoding alone": lambda: _decoded(video, {}),
        EXPORTS: lambda: _decoded(video, {"flags2": "+export_mvs"}),
        OURS: lambda: Reader(video).chunks(_spread, PIECE),
        "ours: vectors painted, all frames RGB": lambda: Reader(video).chunks(None, PIECE),
    }
    best: dict[str, Float64[np.ndarray, " n"]] = {}
    for _ in range(repetitions):
        for name, way in ways.items():
            spent = _timed(way())
            best[name] = np.minimum(best.get(name, spent), spent)
    return {name: float(spent.sum()) for name, spent in best.items()}


def extract(video: Path, repetitions: int = 1) -> Extracted:
    """Read a video with motion-vector-extractor, in an environment of its own; IfttnError where it cannot be had."""
    python = python_of("motion-vector-extractor", EXTRACTOR)
    with tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        saved = Path(folder) / "rows.npy"
        command = [str(python), "-c", _SCRIPT, str(video), str(saved), str(repetitions)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise IfttnError(f"{video}: motion-vector-extractor fails ({done.stderr.strip()[-200:]})")
        seconds, kinds = json.loads(done.stdout)
        rows = np.load(saved)
    return Extracted([rows[rows[:, 0] == t, 1:] for t in range(len(kinds))], kinds, seconds)


def differences(video: Path, *readings: Extracted) -> int:
    """Frames whose type or vectors differ, row by row and in every field, from each reading, or that one of us lacks.

    Of a B-frame of MPEG-4 only the blocks are compared: where a block has no vector of its own (direct mode), FFmpeg
    exports what happens to lie in memory, which is one reason to encode such videos anew.
    """
    with av.open(video, metadata_errors="replace") as container:
        undefined = "B" if container.streams.video[0].codec_context.name == "mpeg4" else ""
    same, count, most = 0, 0, max(len(other.kinds) for other in readings)
    for t, (kind, blocks) in enumerate(exported(video)):
        count += 1
        fields = [FIELDS.index(field) for field in FIELDS if kind != undefined or field in _DEFINED]
        ours = np.stack([blocks[field].astype(np.int64) for field in FIELDS], axis=1)
        same += any(
            other.kinds[t : t + 1] == kind and np.array_equal(ours[:, fields], other.rows[t][:, fields])
            for other in readings
        )
    return max(count, most) - same


def compared(video: Path, first: Extracted, most: int = 12) -> tuple[int, int]:
    """`differences` to so many readings at most, as few as agree; and how many those were.

    motion-vector-extractor decodes with threads of its own, and reads other vectors of some B-frames of H.264 from one
    time to the next; ours are the same every time.
    """
    readings = [first]
    while (differ := differences(video, *readings)) and len(readings) < most:
        readings.append(extract(video))
    return differ, len(readings)


def _table(video: Path, o: argparse.Namespace, ffmpeg: str | None) -> bool:
    reader = Reader(video)
    count = sum(len(piece.kinds) for piece in reader.chunks(lambda total: []))
    with av.open(video, metadata_errors="replace") as container:
        codec = container.streams.video[0].codec_context.name
    how = f"encoded anew: {reader.transcoded}" if reader.transcoded else "read as it is"
    print(f"\n{video.name}: {codec} {reader.coded[0]}x{reader.coded[1]}, {count} frames, {how}")
    print(f"{'':40}{'us a frame':>12}{'rate':>8}")
    spent = measure(video, o.repetitions)
    alone = spent["decoding alone"]
    if ffmpeg:
        spent["ffmpeg -threads 1 -f null -"] = min(_ffmpeg(ffmpeg, video, count) for _ in range(o.repetitions))
    other = None
    if not o.no_extractor:
        try:
            other = extract(video, o.repetitions)
            spent["motion-vector-extractor, no frames"] = other.seconds
        except IfttnError as error:
            print(f"no motion-vector-extractor: {error}")
    for name, seconds in spent.items():
        print(f"{name:40}{seconds / count * 1e6:12.1f}{alone / seconds:8.2f}")
    writing, own = spent[EXPORTS] - alone, spent[OURS] - spent[EXPORTS]
    print(
        f"beyond decoding alone: {writing / count * 1e6:.1f} us a frame is FFmpeg writing the vectors down, which any "
        f"reader pays, {own / count * 1e6:.1f} us is ours"
    )
    if ffmpeg:
        print(f"ours, at the rate of the program ffmpeg: {spent['ffmpeg -threads 1 -f null -'] / spent[OURS]:.2f}")
    if other is None:
        return False
    differ, readings = compared(video, other)
    total, times = sum(map(len, other.rows)), "" if readings == 1 else f", where it reads {readings} times"
    told = f"{differ} frames differ" if differ else "yes"
    print(f"vectors as motion-vector-extractor reads them ({total}){times}: {told}")
    return differ > 0


def _decoded(video: Path, options: dict[str, str]) -> Iterator[object]:
    with av.open(video, metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.options = 1, options
        frames = container.decode(stream)
        while sum(1 for _ in islice(frames, PIECE)) == PIECE:
            yield None


def _spread(count: int) -> Sequence[int]:
    return [(2 * k + 1) * count // (2 * SEGMENTS) for k in range(SEGMENTS)]


def _timed(steps: Iterator[object]) -> Float64[np.ndarray, " n"]:
    """Processor seconds of each step, of opening with the first and of closing with the last."""
    marks = [time.thread_time()]
    marks.extend(time.thread_time() for _ in steps)
    marks.append(time.thread_time())
    return np.diff(marks)


def _ffmpeg(ffmpeg: str, video: Path, frames: int) -> float:
    """Seconds of one pass; the file is read until 3,000 frames are through, so that starting hardly counts."""
    loops = -(-3000 // frames)
    command = [ffmpeg, "-nostdin", "-hide_banner", "-benchmark", "-threads", "1", "-stream_loop", str(loops - 1)]
    command += ["-i", str(video), "-map", "0:v:0", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = re.search(r"bench: utime=([\d.]+)s stime=([\d.]+)s", done.stderr)
    if found is None:
        raise IfttnError(f"{video}: ffmpeg fails ({done.stderr.strip()[-200:]})")
    return (float(found[1]) + float(found[2])) / loops


def _version(ffmpeg: str | None) -> str:
    if ffmpeg is None:
        return "not installed"
    said = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=False).stdout
    return said.split()[2] if len(said.split()) > 2 else "of unknown version"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.is_file() else None
    return found[1] if found else platform.processor() or platform.machine()
