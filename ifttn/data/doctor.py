"""Checks flow and motion vectors on this machine: a known pan is encoded with every codec and measured."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pandas as pd
import torch
from av.codec.codec import UnknownCodecError
from av.video.stream import VideoStream
from jaxtyping import UInt8

from ifttn.data.flow import FLOWS, device_for, flow_of, to_bytes
from ifttn.data.video import Decoded, decode
from ifttn.vocabulary import IfttnError

STEP = (4, 2)
"""Motion of the pan in pixels per frame: to the right and down."""
MEDIAN_ERROR = 0.25
"""Largest error of the median of a field in pixels."""
TABLE_COLUMNS = ("extractor", "codec", "expected", "x", "y", "sign", "size", "zero", "frames", "transcoded", "verdict")


@dataclass(frozen=True)
class Codec:
    """A way to encode a video."""

    encoder: str
    """Name of the encoder in FFmpeg."""
    suffix: str = ".mp4"
    options: dict[str, str] = field(default_factory=dict)
    b_frames: int = 0


CODECS = {
    "MPEG-4": Codec("mpeg4", ".avi"),
    "MPEG-4, quarter pixels": Codec("mpeg4", ".avi", {"flags": "+qpel"}),
    "MPEG-4, B-frames": Codec("mpeg4", ".avi", b_frames=2),
    "Xvid": Codec("libxvid", ".avi"),
    "H.264, one reference": Codec("libx264", options={"refs": "1"}),
    "H.264, several references": Codec("libx264", options={"refs": "4"}),
    "H.264, B-frames": Codec("libx264", b_frames=3),
    "HEVC": Codec("libx265", options={"x265-params": "log-level=none"}),
    "VP9": Codec("libvpx-vp9", ".mkv", {"cpu-used": "8", "deadline": "realtime"}),
    "motion JPEG": Codec("mjpeg", ".avi"),
}


def doctor(folder: Path | None = None) -> pd.DataFrame:
    """A table with a row for each extractor and each codec of CODECS. The videos are written to `folder`.

    Extractors are the motion vectors, every flow of FLOWS, and on each GPU every flow that it can compute. Without a
    GPU, one row says so. If FFmpeg cannot encode a codec here, its row has only that verdict.

    Columns: extractor ("vectors", "tvl1", "tvl1 on cuda:0", ...), codec, expected ("+4 +2"), x and y (median of the
    inner fields in pixels), sign and size (whether they are right), zero (the bytes for a still video: 128), frames
    (types of the frames), transcoded (the reason, if the video was re-encoded), verdict ("ok", or the error).
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="ifttn-doctor-") as temporary:
            return doctor(Path(temporary))
    rows, gpus = [], [f"cuda:{number}" for number in range(torch.cuda.device_count() * torch.cuda.is_available())]
    extractors = [("vectors", "cpu"), *((flow, "cpu") for flow in FLOWS)]
    extractors += [(flow, gpu) for gpu in gpus for flow in FLOWS if device_for(flow, gpu) == gpu]
    for name, codec in CODECS.items():
        try:
            av.Codec(codec.encoder, "w")
        except UnknownCodecError:
            rows.append({"extractor": "none", "codec": name, "verdict": f"no encoder {codec.encoder} here"})
            continue
        stem = codec.encoder + "".join(f"-{value.strip('+')}" for value in codec.options.values() if "=" not in value)
        stem += f"-b{codec.b_frames}" * bool(codec.b_frames)
        moving = decode(write_video(folder / f"pan-{stem}{codec.suffix}", pan(8), codec))
        still = decode(write_video(folder / f"still-{stem}{codec.suffix}", pan(1).repeat(8, 0), codec))
        rows += [_row(name, extractor, moving, still) for extractor in extractors]
    if not gpus:
        rows.append({"extractor": "flow on a GPU", "verdict": "no GPU here"})
    return pd.DataFrame(rows, columns=list(TABLE_COLUMNS))


def run(o: argparse.Namespace) -> int:
    """`ifttn doctor`: print the table. The exit code is 1 if a row is wrong."""
    table = doctor(o.folder)
    print(table.to_string(index=False, na_rep="", float_format="{:+.2f}".format))
    wrong = table[~table.verdict.str.startswith(("ok", "no encoder", "no GPU"))]
    print(f"\n{len(wrong)} of {len(table)} rows are wrong." if len(wrong) else "\nEverything is right.")
    return 1 if len(wrong) else 0


def pan(count: int, width: int = 192, height: int = 144, step: tuple[int, int] = STEP) -> UInt8[np.ndarray, "T H W 3"]:
    """RGB frames of a smooth random texture that moves by `step` = (x, y) pixels per frame, the same in every call."""
    spare = (abs(step[0]) * count, abs(step[1]) * count)
    noise = np.random.default_rng(0).random((height + 2 * spare[1], width + 2 * spare[0], 3), np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    texture = np.interp(smooth, (smooth.min(), smooth.max()), (0, 255)).astype(np.uint8)
    corners = [(spare[1] - step[1] * i, spare[0] - step[0] * i) for i in range(count)]
    return np.stack([texture[top : top + height, left : left + width] for top, left in corners])


def write_video(path: Path, frames: Sequence[np.ndarray] | UInt8[np.ndarray, "T H W 3"], codec: Codec) -> Path:
    """Write the frames to a file with 25 frames per second and an I-frame every 12 frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
        stream = container.add_stream(codec.encoder, rate=25)
        assert isinstance(stream, VideoStream)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec.encoder == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, codec.b_frames
        stream.codec_context.options = {"b": "4000000", **codec.options}
        for index, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def _row(codec: str, extractor: tuple[str, str], moving: Decoded, still: Decoded) -> dict[str, object]:
    name, device = extractor
    title = name if device == "cpu" else f"{name} on {device}"
    if name == "vectors":
        motion, rest = moving.vectors, still.vectors
    else:  # a still video is one frame twice, because a lossy codec makes a still video move a little
        try:
            motion, rest = (flow_of(name, frames, device) for frames in (moving.frames, still.frames[:1].repeat(2, 0)))
        except (IfttnError, RuntimeError, ValueError) as error:  # such as a driver or a compiler that does not fit
            return {"extractor": title, "codec": codec, "verdict": f"failed: {' '.join(str(error).split())[:200]}"}
    x, y = np.median(motion[:, :, 24:-24, 24:-24], axis=(0, 2, 3)).tolist()
    sign = x * STEP[0] > 0 and y * STEP[1] > 0
    size = max(abs(abs(x) - STEP[0]), abs(abs(y) - STEP[1])) <= MEDIAN_ERROR
    levels = to_bytes(rest, bound=20.0)
    low, high = int(levels.min()), int(levels.max())
    wrong = [text for good, text in ((sign, "sign"), (size, "size"), (low == high == 128, "zero")) if not good]
    return {
        "extractor": title,
        "codec": codec,
        "expected": "{:+d} {:+d}".format(*STEP),
        "x": x,
        "y": y,
        "sign": sign,
        "size": size,
        "zero": str(low) if low == high else f"{low}..{high}",
        "frames": moving.kinds,
        "transcoded": moving.transcoded,
        "verdict": f"wrong {', '.join(wrong)}" if wrong else "ok",
    }
