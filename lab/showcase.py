"""The small pictures of the README: a clip with its motion, the steps of a drawing, figures, screenshots.

Shapes: H x W pixels of a picture.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ifttn.experiment.work import Work
from ifttn.files import write_whole
from ifttn.insight.deepdraw import draw
from ifttn.insight.drawing_settings import usual_recipe
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import IfttnError
from lab import pictures
from lab.clip import Clip, load_clip
from lab.drawings import tiles
from lab.figures import flow_colours
from lab.layers import VECTOR_INK
from lab.pictures import Picture

LIMIT = 300_000
"""Largest size of a picture (bytes), because a page loads six."""
FIGURES = ("figure_1_7", "figure_1_7_all", "figure_6")
SHOTS = ("inspector", "cam_explorer")
TILE_SIZE = 200, 150
"""Width and height of a tile of a film (px)."""
TITLE_HEIGHT = 18
"""Height of the line above a tile (px)."""


def write_showcase(work: Work, run: str, figures: Path, out: Path, shots: Path) -> Iterator[Path]:
    """Write the pictures, each smaller than LIMIT, and yield each path. A missing figure or screenshot is left out.

    Args:
        work: a split, its store and its runs.
        run: name of the run, such as "if-ttn".
        figures: folder that `ifttn.gallery.draw_figures` wrote.
        out: folder for the pictures.
        shots: folder with the screenshots of the browser tests.
    """
    recognizer = Recognizer.load(work.run(run).folder, work.device)
    yield _written(out / "clip.gif", small_gif(clip_film(work, recognizer), 12.5))
    yield _written(out / "deepdraw.gif", small_gif(drawing_film(work, recognizer), 10.0))
    sources = {name: figures / f"{name}.png" for name in FIGURES}
    sources |= {name: shots / f"small_{name}.png" for name in SHOTS}
    for name, source in sources.items():
        if source.exists():
            yield _written(out / f"{name}.png", small_png(source))


def _written(path: Path, content: bytes) -> Path:
    write_whole(path, content)
    return path


def clip_film(work: Work, recognizer: Recognizer) -> list[Picture]:
    """Frames of the first test video with their optical flow and motion vectors."""
    video = work.split.test[0]
    clip = _result(load_clip(video.path, video.name, video.action, recognizer.preset.store, work.store))
    colours = flow_colours(clip.levels)
    width, height = TILE_SIZE
    scale = width / clip.frames.shape[2]
    film = []
    for index in range(0, len(clip.frames), 2):
        frame = pictures.resized(clip.frames[index], width, height)
        flow = pictures.over(frame, pictures.tint(colours[index]), 0.8)
        vectors = pictures.over(
            frame, pictures.arrows(scale * clip.vectors[index], width, height, VECTOR_INK, every=10), 1.0
        )
        film.append(titled_row([frame, flow, vectors], [video.action, "optical flow", "motion vectors of the codec"]))
    return film


def _result(steps: Iterator) -> Clip:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def drawing_film(work: Work, recognizer: Recognizer, frames: int = 24) -> list[Picture]:
    """The steps of an ordered pair, drawn as in Figures 1 and 7: with a denoiser if one is trained."""
    network, split, action = recognizer.network, work.split, recognizer.actions[0]
    modalities, size = network.settings.modalities, recognizer.preset.size
    settings, denoiser, head, _ = usual_recipe(work.runs, split.dataset, split.number, modalities, size, work.device)
    steps = sum(octave.steps for octave in settings.octaves)
    shown = set(np.linspace(1, steps, min(frames, steps)).round().astype(int).tolist())
    film = []
    for drawn in draw(network, 0, settings, head=head, denoiser=denoiser):
        if drawn.step in shown:
            four = [pictures.resized(tile, *TILE_SIZE) for tile in tiles(drawn) if tile is not None]
            motion = f"B: motion, step {drawn.step}, p = {drawn.probability:.2f}"
            film.append(titled_row(four, [f"A: {action}", "B", "A: motion", motion]))
    return film + film[-1:] * 15  # the last picture stays for 1.5 s


def titled_row(row: Sequence[Picture], titles: Sequence[str]) -> UInt8[np.ndarray, "_ _ 3"]:
    """Tiles side by side under their titles."""
    height, width, _ = row[0].shape
    image = Image.new("RGB", ((width + 4) * len(row) - 4, height + TITLE_HEIGHT), "white")
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(size=11)
    for column, (picture, title) in enumerate(zip(row, titles, strict=True)):
        image.paste(Image.fromarray(picture), ((width + 4) * column, TITLE_HEIGHT))
        pen.text(((width + 4) * column, 2), title, fill="#333", font=font)
    return np.asarray(image)


def small_gif(film: Sequence[Picture], fps: float) -> bytes:
    """A GIF smaller than LIMIT: first with fewer colours, then with smaller and fewer pictures.

    Raises:
        IfttnError: the GIF is too large at the lowest quality.
    """
    for colours, size, every in ((96, 1.0, 1), (48, 1.0, 1), (48, 0.8, 1), (48, 0.8, 2), (32, 0.6, 2), (32, 0.6, 3)):
        images = [Image.fromarray(picture) for picture in film[::every]]
        scaled = [image.resize((round(image.width * size), round(image.height * size))) for image in images]
        content = pictures.gif([np.asarray(image) for image in scaled], fps / every, colours)
        if len(content) < LIMIT:
            return content
    raise IfttnError(f"a film of {len(film)} pictures does not fit into {LIMIT} bytes: show fewer pictures")


def small_png(path: Path) -> bytes:
    """A PNG smaller than LIMIT and at most 1100 px wide.

    Raises:
        IfttnError: the file is missing, or is too large at the lowest quality.
    """
    if not path.exists():
        raise IfttnError(f"{path} is not there: `ifttn figures` or `make browser` makes it")
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    for width, colours in ((1100, 256), (1100, 96), (900, 96), (700, 64)):
        small = image if image.width <= width else image.resize((width, round(image.height * width / image.width)))
        memory = io.BytesIO()
        small.quantize(colours, dither=Image.Dither.NONE).save(memory, "PNG", optimize=True)
        if memory.tell() < LIMIT:
            return memory.getvalue()
    raise IfttnError(f"{path} does not fit into {LIMIT} bytes")
