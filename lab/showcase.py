"""The small pictures of a README, from trained runs: a clip with its motion, maps, a drawing as it comes about.

Shapes: T pictures, H x W pixels.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ifttn.data.loading import whole_snippets
from ifttn.experiment.training import Work
from ifttn.files import write_whole
from ifttn.insight import deepdraw
from ifttn.insight.deepdraw import Material, Palette
from ifttn.insight.denoiser import denoiser_file, load_denoiser
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError
from lab import pictures
from lab.clip import Clip, load_clip
from lab.drawings import tiles
from lab.figures import flow_colours
from lab.layers import VECTOR_INK

LIMIT = 300_000
"""Most bytes of a picture: a page of six loads at once."""
FIGURES = ("figure_1_7", "figure_6", "order")
SHOTS = {"inspector": "inspector_layers", "deepdraw_studio": "deepdraw", "tables": "tables"}
"""Name here -> name of the screenshot."""
TILE = 200, 150
"""Pixels of a tile of a film, across and down."""
BAR = 18
"""Pixels of the line above a tile."""


def write(work: Work, run: str, figures: Path, out: Path, shots: Path) -> Iterator[Path]:
    """The pictures, one by one as they are written; each is smaller than LIMIT.

    Args:
        work: a split, its store and its runs.
        run: whose network is shown, such as "if-ttn".
        figures: folder that `ifttn.gallery.draw` wrote.
        out: folder.
        shots: folder of the screenshots that the browser tests take; may be missing.
    """
    recognizer = Recognizer.load(work.run(run).folder, work.device)
    yield _written(out / "clip.gif", film(clip_film(work, recognizer), 12.5))
    yield _written(out / "deepdraw.gif", film(drawing_film(work, recognizer), 10.0))
    for name in FIGURES:
        yield _written(out / f"{name}.png", still(figures / f"{name}.png"))
    for name, shot in SHOTS.items():
        if (shots / f"{shot}.png").exists():
            yield _written(out / f"{name}.png", still(shots / f"{shot}.png"))


def _written(path: Path, content: bytes) -> Path:
    write_whole(path, content)
    return path


def clip_film(work: Work, recognizer: Recognizer) -> list[UInt8[np.ndarray, "H W 3"]]:
    """Frames of the first test video, beside its optical flow and its motion vectors."""
    video = work.split.test[0]
    steps = load_clip(video.path, video.name, video.action, recognizer.preset.store, work.store)
    clip = _end(steps)
    colours = flow_colours(clip.levels)
    width, height = TILE
    scale = width / clip.frames.shape[2]
    shown = []
    for index in range(0, len(clip.frames), 2):
        frame = pictures.resized(clip.frames[index], width, height)
        flow = pictures.tinted(frame, pictures.resized(colours[index], width, height), 0.8)
        vectors = pictures.with_arrows(frame, scale * clip.vectors[index], 1.0, VECTOR_INK, every=10)
        shown.append(beside([frame, flow, vectors], [video.action, "optical flow", "motion vectors of the codec"]))
    return shown


def _end(steps: Iterator) -> Clip:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def drawing_film(work: Work, recognizer: Recognizer, frames: int = 24) -> list[UInt8[np.ndarray, "H W 3"]]:
    """An ordered pair as the TTN branch draws it, from noise: through a denoiser, where one is trained, or in the
    colours of real frames. The end stays a while."""
    network, preset = recognizer.network, recognizer.preset
    train, modalities, action = work.split.train, network.settings.modalities, recognizer.actions[0]
    denoiser = denoiser_file(work.runs, work.split.dataset, work.split.number, modalities)
    if denoiser.exists():
        settings, material = deepdraw.PRESETS["tiny-denoised"], Material(denoiser=load_denoiser(denoiser, work.device))
    else:
        seen = [whole_snippets(work.store, v, modalities, preset.segments) for v in train[:: max(1, len(train) // 48)]]
        settings = deepdraw.preset_for(preset.size)
        material = Material({m: Palette.of(torch.cat([each[m] for each in seen])) for m in modalities})
    steps = sum(octave.steps for octave in settings.octaves)
    kept = set(np.linspace(1, steps, min(frames, steps)).round().astype(int).tolist())
    shown = []
    for drawn in deepdraw.draw(network, 0, settings, head=network.temporal_heads[0], material=material):
        if drawn.step in kept:
            four = [pictures.resized(tile, *TILE) for tile in tiles(drawn) if tile is not None]
            told = f"B: motion, step {drawn.step}, p = {drawn.probability:.2f}"
            shown.append(beside(four, [f"A: {action}", "B", "A: motion", told]))
    return shown + shown[-1:] * 15


def beside(row: Sequence[UInt8[np.ndarray, "H W 3"]], titles: Sequence[str]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Tiles in a row, each under its title."""
    height, width, _ = row[0].shape
    sheet = Image.new("RGB", ((width + 4) * len(row) - 4, height + BAR), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for column, (picture, title) in enumerate(zip(row, titles, strict=True)):
        sheet.paste(Image.fromarray(picture), ((width + 4) * column, BAR))
        pen.text(((width + 4) * column, 2), title, fill="#333", font=font)
    return np.asarray(sheet)


def film(shown: Sequence[UInt8[np.ndarray, "H W 3"]], fps: float) -> bytes:
    """A GIF under LIMIT: fewer colours first, then smaller, then fewer pictures.

    Raises:
        IfttnError: even the poorest is larger.
    """
    for colours, size, every in ((96, 1.0, 1), (48, 1.0, 1), (48, 0.8, 1), (48, 0.8, 2), (32, 0.6, 2), (32, 0.6, 3)):
        images = [Image.fromarray(picture) for picture in shown[::every]]
        if size < 1:
            images = [image.resize((round(image.width * size), round(image.height * size))) for image in images]
        palette = images[len(images) // 2].quantize(colours)
        # One palette and no dithering: what stays still from picture to picture costs nothing.
        flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
        memory = io.BytesIO()
        duration = round(1000 * every / fps)
        flat[0].save(memory, "GIF", save_all=True, append_images=flat[1:], duration=duration, loop=0, optimize=True)
        if memory.tell() < LIMIT:
            return memory.getvalue()
    raise IfttnError(f"a film of {len(shown)} pictures does not fit into {LIMIT} bytes: show fewer")


def still(path: Path) -> bytes:
    """A PNG under LIMIT, at most 1100 px across.

    Raises:
        IfttnError: it is missing, or too large even so.
    """
    if not path.exists():
        raise IfttnError(f"{path} is not there: `ifttn figures` draws it")
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    for width, colours in ((1100, 256), (1100, 96), (900, 96), (700, 64)):
        small = image if image.width <= width else image.resize((width, round(image.height * width / image.width)))
        memory = io.BytesIO()
        small.quantize(colours, dither=Image.Dither.NONE).save(memory, "PNG", optimize=True)
        if memory.tell() < LIMIT:
            return memory.getvalue()
    raise IfttnError(f"{path} does not fit into {LIMIT} bytes")
