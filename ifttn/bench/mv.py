"""Compares reading frames and motion vectors in one pass with decoding the same files and nothing else.

Decoding alone and ours run in this process, in turns, 32 frames at a time. Times are processor times: the shortest of
several turns for each 32 frames, summed. Other programs measure their own processor time, and the best turn counts.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import av
import numpy as np
from jaxtyping import Shaped

from ifttn.bench.clock import Clock, PrintedTable, one_core, use_one_core
from ifttn.bench.peers import python_of
from ifttn.data.doctor import CODECS, pan, write_video
from ifttn.data.video import Reader, exported
from ifttn.vocabulary import IfttnError

EXTRACTOR = ("motion-vector-extractor==2.0.0", "opencv-python-headless<5")
EXAMPLES = ("MPEG-4", "H.264, one reference")
"""The codecs of the example videos. Both are read without re-encoding."""
STEP_FRAMES = 32
"""Frames that are timed together."""
RGB_FRAMES = 7
"""Frames of a video that are converted to RGB: the paper's K."""
DECODING = "decoding alone"
EXPORTING = "decoding that exports vectors"
OURS = f"ours: vectors painted, {RGB_FRAMES} frames RGB"
FFMPEG = "ffmpeg -threads 1 -f null -"
EXTRACTOR_FIELDS = (
    *("source", "w", "h", "src_x", "src_y", "dst_x", "dst_y"),
    *("motion_x", "motion_y", "motion_scale"),
)
"""The fields of a row of motion-vector-extractor, in order."""
_DEFINED = ("source", "w", "h", "dst_x", "dst_y", "motion_scale")
# The script runs on one core, so that its processor time is that of one core.
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
    """The result of motion-vector-extractor for a video."""

    rows: list[Shaped[np.ndarray, "_ 10"]]
    """The vectors of each frame, with EXTRACTOR_FIELDS."""
    kinds: str
    """The type of each frame: I, P or B."""
    seconds: float
    """Processor time in its fastest mode: vectors without frames."""


def run(o: argparse.Namespace) -> int:
    """Print a table for each video. The exit code is 1 if motion-vector-extractor reads other vectors than we do."""
    use_one_core()
    ffmpeg = shutil.which("ffmpeg")
    versions = [f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}", f"ffmpeg {_version(ffmpeg)}"]
    print(f"{one_core()}; {', '.join(versions)}; {o.repetitions} turns; microseconds per frame")
    differ = False
    with tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        for video in o.videos or examples(Path(folder), o.frames):
            differ |= print_readings(video, o, ffmpeg)
    return int(differ)


def examples(folder: Path, frames: int) -> list[Path]:
    """A textured pan with a little noise at 320x240, in each codec of EXAMPLES."""
    rng, clean = np.random.default_rng(0), pan(frames, 320, 240, (3, 1))
    noisy = np.stack([np.clip(frame + rng.normal(0, 1, frame.shape), 0, 255).astype(np.uint8) for frame in clean])
    codecs = [CODECS[name] for name in EXAMPLES]
    return [write_video(folder / f"{codec.encoder}{codec.suffix}", noisy, codec) for codec in codecs]


def print_readings(video: Path, o: argparse.Namespace, ffmpeg: str | None) -> bool:
    """Print the time of each way to read a video. Returns whether motion-vector-extractor reads other vectors."""
    reader = Reader(video)
    count = sum(len(piece.kinds) for piece in reader.chunks(lambda total: []))
    with av.open(video, metadata_errors="replace") as container:
        codec = container.streams.video[0].codec_context.name
    how = f"re-encoded: {reader.transcoded}" if reader.transcoded else "read without re-encoding"
    print(f"\n{video.name}: {codec} {reader.coded[0]}x{reader.coded[1]}, {count} frames, {how}")
    table = PrintedTable("", "us/frame", "rate", first=40)
    seconds = reading_seconds(video, o.repetitions)
    if ffmpeg:
        seconds[FFMPEG] = min(ffmpeg_seconds(ffmpeg, video, count) for _ in range(o.repetitions))
    other = None if o.no_extractor else _extracted(video, o.repetitions)
    if other:
        seconds["motion-vector-extractor, no frames"] = other.seconds
    for name, own in seconds.items():
        table.row(name, f"{own / count * 1e6:.1f}", f"{seconds[DECODING] / own:.2f}")
    written, painted = (
        (seconds[more] - seconds[less]) / count * 1e6 for less, more in ((DECODING, EXPORTING), (EXPORTING, OURS))
    )
    print(
        f"beyond decoding alone, per frame: {written:.1f} us for FFmpeg's export of the vectors, which every reader "
        f"needs, and {painted:.1f} us for ours"
    )
    if ffmpeg:
        print(f"our rate divided by that of the program ffmpeg: {seconds[FFMPEG] / seconds[OURS]:.2f}")
    if other is None:
        return False
    differ, readings = compared_again(video, other)
    total, times = sum(map(len, other.rows)), "" if readings == 1 else f", which reads {readings} times"
    result = f"{differ} frames differ" if differ else "yes"
    print(f"same vectors ({total}) as motion-vector-extractor{times}: {result}")
    return differ > 0


def reading_seconds(video: Path, repetitions: int) -> dict[str, float]:
    """Processor time in seconds of each way to read a video in this process. `Reader` may re-encode it."""
    ways = {
        DECODING: lambda: _decoded(video, {}),
        EXPORTING: lambda: _decoded(video, {"flags2": "+export_mvs"}),
        OURS: lambda: Reader(video).chunks(_evenly, STEP_FRAMES),
        "ours: vectors painted, all frames RGB": lambda: Reader(video).chunks(None, STEP_FRAMES),
    }
    return Clock().best(ways, repetitions)


def _decoded(video: Path, options: dict[str, str]) -> Iterator[object]:
    with av.open(video, metadata_errors="replace") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count, stream.codec_context.options = 1, options
        frames = container.decode(stream)
        while sum(1 for _ in islice(frames, STEP_FRAMES)) == STEP_FRAMES:
            yield None


def _evenly(count: int) -> Sequence[int]:
    return [(2 * k + 1) * count // (2 * RGB_FRAMES) for k in range(RGB_FRAMES)]


def extract(video: Path, repetitions: int = 1) -> Extracted:
    """Read a video with motion-vector-extractor in its own environment. Raises IfttnError if it cannot be installed."""
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


def _extracted(video: Path, repetitions: int) -> Extracted | None:
    try:
        return extract(video, repetitions)
    except IfttnError as error:
        print(f"no motion-vector-extractor: {error}")
        return None


def differing_frames(video: Path, *readings: Extracted) -> int:
    """The number of frames whose type or vectors differ from every reading, or that one side does not have.

    For a B-frame of MPEG-4, only the blocks are compared: for a block without its own vector (direct mode), FFmpeg
    exports random memory. This is one reason to re-encode such videos.
    """
    with av.open(video, metadata_errors="replace") as container:
        undefined = "B" if container.streams.video[0].codec_context.name == "mpeg4" else ""
    same, count = 0, 0
    for t, (kind, blocks) in enumerate(exported(video)):
        count += 1
        fields = [EXTRACTOR_FIELDS.index(field) for field in (_DEFINED if kind == undefined else EXTRACTOR_FIELDS)]
        ours = np.stack([blocks[field].astype(np.int64) for field in EXTRACTOR_FIELDS], axis=1)
        same += any(
            other.kinds[t : t + 1] == kind and np.array_equal(ours[:, fields], other.rows[t][:, fields])
            for other in readings
        )
    return max(count, *(len(other.kinds) for other in readings)) - same


def compared_again(video: Path, first: Extracted, most: int = 12) -> tuple[int, int]:
    """`differing_frames` after readings until no frame differs, at most `most`; and the number of readings.

    motion-vector-extractor decodes with several threads, and its vectors of some B-frames of H.264 change from one
    reading to the next. Ours never change.
    """
    readings = [first]
    while (differ := differing_frames(video, *readings)) and len(readings) < most:
        readings.append(extract(video))
    return differ, len(readings)


def ffmpeg_seconds(ffmpeg: str, video: Path, frames: int) -> float:
    """Seconds of one pass. The file is repeated up to 3,000 frames, so that the start of the program hardly counts."""
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
    words = subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=False).stdout.split()
    return words[2] if len(words) > 2 else "of unknown version"
