"""Drawings as files: a PNG that says how it was made, a GIF or MP4 of how it came about.

Shapes: T pictures, M snippets, C motion planes, H x W pixels.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
import torch
from av.video.stream import VideoStream
from jaxtyping import Float, UInt8
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor
from torchvision.utils import flow_to_image

from ifttn.files import write_whole
from ifttn.insight.deepdraw import Settings, State
from ifttn.vocabulary import IfttnError


def sheet(state: State) -> UInt8[np.ndarray, "h w 3"]:
    """All of a drawing in one picture: its snippets side by side, above RGB, below motion (hue is direction)."""
    rows = []
    if state.rgb is not None:
        rows.append(_beside(state.rgb.round().clamp(0, 255).byte()))
    if state.motion is not None:
        rows.append(_beside(flow_to_image(_field(state.motion))))
    return np.concatenate(rows)


def _field(motion: Float[Tensor, "M C H W"]) -> Float[Tensor, "M 2 H W"]:
    """The mean field of each stack."""
    centred = motion.float().cpu() - 128
    return torch.stack([centred[:, 0::2].mean(1), centred[:, 1::2].mean(1)], 1)


def _beside(images: UInt8[Tensor, "M 3 H W"]) -> UInt8[np.ndarray, "H MW 3"]:
    return np.ascontiguousarray(torch.cat(list(images.cpu()), dim=2).permute(1, 2, 0).numpy())


def facts(settings: Settings, *, action: str, seed: int, head: str, run: str) -> dict[str, str]:
    """What makes a drawing again, as texts of a PNG."""
    return {"action": action, "seed": str(seed), "head": head, "run": run, "settings": json.dumps(asdict(settings))}


def write_png(path: Path, picture: UInt8[np.ndarray, "H W 3"], said: Mapping[str, str]) -> None:
    """A PNG with text chunks; `Image.open(path).text` reads them."""
    info, content = PngInfo(), BytesIO()
    for key, value in said.items():
        info.add_itxt(key, value)
    Image.fromarray(picture).save(content, "PNG", pnginfo=info)
    write_whole(path, content.getvalue())


def every(states: Iterable[State], step: int) -> list[UInt8[np.ndarray, "h w 3"]]:
    """The sheets of every step-th state, all of one size: that of the last."""
    sheets = [sheet(state) for state in islice(states, step - 1, None, step)]
    height, width, _ = sheets[-1].shape
    return [np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC)) for each in sheets]


def write_film(path: Path, pictures: Sequence[UInt8[np.ndarray, "H W 3"]], fps: int = 12) -> None:
    """Pictures of one size as .gif or .mp4 (H.264), by the suffix of the path.

    Raises:
        IfttnError: another suffix.
    """
    if path.suffix not in _FILMS:
        raise IfttnError(f"{path}: no such film: choose from {', '.join(_FILMS)}")
    write_whole(path, _FILMS[path.suffix](pictures, fps))


def _gif(pictures: Sequence[np.ndarray], fps: int) -> bytes:
    first, *others = [Image.fromarray(picture) for picture in pictures]
    content = BytesIO()
    first.save(content, "GIF", save_all=True, append_images=others, duration=1000 // fps, loop=0)
    return content.getvalue()


def _mp4(pictures: Sequence[np.ndarray], fps: int) -> bytes:
    content = BytesIO()
    with cast(Any, av.open(content, "w", format="mp4")) as container:
        stream = cast(VideoStream, container.add_stream("libx264", rate=fps))
        height, width = (side - side % 2 for side in pictures[0].shape[:2])  # yuv420p halves both
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return content.getvalue()


_FILMS = {".gif": _gif, ".mp4": _mp4}
