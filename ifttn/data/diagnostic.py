"""The embedded data set: two balls move in a textured scene. An action is a combination of four factors of two values.

    scene    two hues of the background        visible in appearance: the spatial stream
    speed    slow, fast                        visible in motion: the temporal stream
    binding  red along x and blue along y,     visible in colour and motion at the same place: the fusion
             or the reverse
    order    rings then discs, or the reverse  visible in the order of snippets

No factor leaks into a modality that should not show it. Materials differ by RGB offsets of zero luma, so that the hue
never changes luminance. Positions are uniform and stay uniform, because balls have constant speed and are reflected at
the border: one frame says nothing about motion. Positions are drawn again after each cut, and a shot is shorter than
the distance between two test snippets. The code uses only integer draws, uniform draws and + - * / sqrt, which give
the same numbers on every machine.

Shapes: T frames, H x W pixels; a centre is (x, y) in pixels; the balls are (red, blue).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, UInt8
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from ifttn.data.diagnostic_lists import hmdb_lists, something_lists, ucf_lists
from ifttn.data.factors import FACTORS, TABLE
from ifttn.files import held, remove_leftovers, write_whole, written_whole
from ifttn.vocabulary import IfttnError

WIDTH, HEIGHT, FPS = 160, 120, 25
FRAME_COUNTS = (72, 80)
"""Frames of the shortest and of the longest video."""
SHOT = (13, 16)
"""Frames of the shortest and longest shot. K = 4 test snippets are at least floor((72 - 5) / 4) = 16 frames apart."""
BALL_SPEEDS = ((1.0, 1.4), (2.8, 3.4))
"""Ranges of slow and fast, in pixels per frame."""
HOLE = 0.55
"""Inner radius of a ring divided by its outer radius."""
LUMA = (39, 151)
"""Range of luminance before noise. With the offsets below and noise of at most 8, every channel stays in 0..255."""
COLOURS = np.array(((67, -25, -47), (-48, 6, 95)), np.float32)
"""Red and blue. Like every material, they are RGB offsets from grey with .299 R + .587 G + .114 B = 0 exactly."""


@dataclass(frozen=True)
class Flavour:
    """One appearance of the data set, and the layout of its lists."""

    scenes: dict[str, tuple[int, int, int]]  # Name and material of the two backgrounds.
    groups: int  # Recordings. The videos of a recording share texture and ball size, the same for every action.
    octaves: tuple[tuple[int, int, float], ...]  # Of the texture: cell height, cell width, weight (the sum is 1).
    square: bool  # Squares and squares with a square hole, in place of discs and rings.
    contrast: float  # Contrast of luminance about level 90.
    shake: int  # Largest displacement of the camera in pixels.
    restless: float  # Probability that the camera tries a step of one pixel, per axis and frame.
    video_name: Callable[[str, int, int], str]  # (action, group, count within both, from 1) -> name without suffix.
    lists: Callable[[pd.DataFrame], dict[str, str]]  # The plan -> text of every list file, by path.
    folder: str = ""  # One folder for all videos, with numbers as names. "": each action has a folder.


FLAVOURS = {
    "ucf": Flavour(
        scenes={"Meadow": (-30, 18, -14), "Desert": (26, -8, -27)},
        groups=25,
        octaves=((40, 40, 0.4), (20, 20, 0.3), (10, 10, 0.2), (5, 5, 0.1)),
        square=False,
        contrast=0.95,
        shake=2,
        restless=0.04,
        video_name=lambda action, group, count: f"v_{action}_g{group:02d}_c{count:02d}",
        lists=ucf_lists,
    ),
    "hmdb": Flavour(
        scenes={"lagoon": (-26, 8, 27), "dusk": (19, -19, 48)},
        groups=30,
        octaves=((12, 48, 0.5), (6, 24, 0.3), (3, 6, 0.2)),
        square=True,
        contrast=0.7,
        shake=4,
        restless=0.3,
        # In the real data set, one name in twelve has characters that are special in a shell.
        video_name=lambda action, group, count: f"Reel_#{group:02d}_{action}_f_cm_np2_fr_med_{count - 1}",
        lists=hmdb_lists,
    ),
}
FLAVOURS["something"] = replace(
    FLAVOURS["ucf"],
    lists=something_lists,
    folder="20bn-something-something-v2",
)


def _generator(seed: int, flavour: str, *key: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, list(FLAVOURS).index(flavour), *key])))


# The plan: all random draws that decide the content of a video.


def actions(flavour: str) -> dict[str, tuple[int, ...]]:
    """The sixteen actions, such as MeadowSlowRedAcrossRingDisc, with their values of FACTORS. Raises IfttnError for an
    unknown flavour."""
    if flavour not in FLAVOURS:
        raise IfttnError(f"no flavour {flavour!r} of the embedded data set; there are {', '.join(FLAVOURS)}")
    words = (("Slow", "Fast"), ("RedAcross", "RedUpDown"), ("RingDisc", "DiscRing"))
    if flavour == "hmdb":
        words = (("_slow", "_fast"), ("_red_across", "_red_up_down"), ("_ring_disc", "_disc_ring"))
    if flavour == "something":
        words = (
            (", slow", ", fast"),
            (", red goes across", ", red goes up and down"),
            (", rings become discs", ", discs become rings"),
        )
    choices = [tuple(FLAVOURS[flavour].scenes), *words]
    return {
        "".join(choice[value] for choice, value in zip(choices, values, strict=True)): values
        for values in product((0, 1), repeat=4)
    }


def plan_videos(flavour: str, videos: int, seed: int, difficulty: float = 1.0) -> pd.DataFrame:
    """A complete description of all videos: a row for each, indexed by Video.name ("<action>/<file without suffix>").

    Columns: file, action, group, the factors as 0 or 1, and what `render` and `ball_masks` need; `centres` is
    (T, 2, 2) flattened (frame, ball, x and y on the screen), `shake` (T, 2), `cuts` the first frames of new shots.
    `difficulty` in 0..2 scales all variation that is independent of the action; at 0 there is no such variation.

    Raises:
        IfttnError: `videos` is no positive multiple of 16, or the difficulty is out of range.
    """
    names = actions(flavour)
    if videos <= 0 or videos % len(names):
        raise IfttnError(f"{videos} videos cannot be spread over {len(names)} actions; ask for a multiple")
    if not 0 <= difficulty <= 2:
        raise IfttnError(f"difficulty {difficulty} is not within 0..2")
    look, takes = FLAVOURS[flavour], videos // len(names)
    rows, counts = [], dict[tuple[str, int], int]()
    for index in range(videos):
        take, action = index // len(names), list(names)[index % len(names)]
        group = take * look.groups // takes + 1  # evenly over the groups, in order
        counts[action, group] = counts.get((action, group), 0) + 1
        own = str(index + 1) if look.folder else look.video_name(action, group, counts[action, group])
        file = f"{look.folder or action}/{own}.avi"
        about = dict(video=f"{action}/{own}", file=file, action=action, group=group, index=index)
        about |= dict(zip(FACTORS, names[action], strict=True), flavour=flavour, seed=seed, difficulty=difficulty)
        rows.append(about | _draw(about, look))
    return pd.DataFrame(rows).set_index("video")


def _draw(about: dict, look: Flavour) -> dict:
    """The draws of one video. Only `centres` depends on factors: on the speed of the balls, and which moves along x."""
    rng = _generator(about["seed"], about["flavour"], 0, about["index"])
    vary = about["difficulty"]
    frames = int(rng.integers(FRAME_COUNTS[0], FRAME_COUNTS[1] + 1))
    boundary = int(rng.integers(-(-2 * frames // 5), 3 * frames // 5 + 1))
    cuts = _cuts(boundary, frames, rng)
    strays = int(look.shake * vary)
    shake = _walk(frames, strays, look.restless, rng)
    radius = 20 + 2 * vary * (2 * _generator(about["seed"], about["flavour"], 1, about["group"]).random() - 1)
    slowest, fastest = BALL_SPEEDS[about["speed"]]
    speed = slowest + rng.random() * (fastest - slowest)
    inset = radius + strays  # keeps the complete ball on the screen for every position of the camera
    centres = _centres([0, *cuts, frames], speed, about["binding"], inset, rng) + shake[:, None]
    return dict(
        frames=frames,
        boundary=boundary,
        cuts=cuts,
        radius=radius,
        upper=int(rng.integers(2)),
        speed_px=speed,
        brightness=8 * vary * (2 * rng.random() - 1),
        contrast=look.contrast + 0.1 * vary * (2 * rng.random() - 1),
        view=[int(20 * vary * x) for x in rng.random(2)],
        still=[*(rng.random(2) * (WIDTH, HEIGHT)), vary * (6 + 6 * rng.random()), 60 + 60 * rng.random()],
        still_hollow=int(rng.integers(2)),
        strays=strays,
        shake=shake.ravel().tolist(),
        centres=centres.astype(np.float32).ravel(),
    )


def _cuts(boundary: int, frames: int, rng: np.random.Generator) -> list[int]:
    """First frames of all shots except the first. Shots are drawn from the phase boundary in both directions."""
    cuts = [boundary]
    while frames - cuts[-1] > SHOT[1]:
        cuts.append(cuts[-1] + int(rng.integers(SHOT[0], SHOT[1] + 1)))
    while cuts[0] > SHOT[1]:
        cuts.insert(0, cuts[0] - int(rng.integers(SHOT[0], SHOT[1] + 1)))
    return cuts


def _walk(frames: int, strays: int, restless: float, rng: np.random.Generator) -> Int[np.ndarray, "T 2"]:
    """Random walk within -strays..strays. It starts uniform and stays uniform, so that no frame shows the time."""
    steps = (rng.random((frames - 1, 2)) < restless) * (2 * rng.integers(0, 2, (frames - 1, 2)) - 1)
    path = rng.integers(-strays, strays + 1, (1, 2)).tolist()
    for step in steps.tolist():
        path.append([min(max(at + by, -strays), strays) for at, by in zip(path[-1], step, strict=True)])
    return np.array(path)


def _centres(
    edges: list[int], speed: float, binding: int, inset: float, rng: np.random.Generator
) -> Float[np.ndarray, "T 2 2"]:
    """Centres of the balls. They start uniform in a shot; then one ball moves along x and the other along y, reflected
    at the border. Balls may overlap: without overlaps, positions near the border would depend on the binding."""
    span = np.array((WIDTH - 1, HEIGHT - 1)) - 2 * inset
    shots = []
    for start, stop in pairwise(edges):
        velocity = np.zeros((2, 2))
        velocity[[0, 1], [binding, 1 - binding]] = speed * (2 * rng.integers(0, 2, 2) - 1)
        path = rng.random((2, 2)) * span + np.arange(stop - start)[:, None, None] * velocity
        shots.append(inset + span - np.abs(path % (2 * span) - span))
    return np.concatenate(shots)


# The picture.


def render(row: pd.Series) -> UInt8[np.ndarray, "T H W 3"]:
    """The frames of one row of the plan, with the same pixels on every machine."""
    video = _plain(row)
    look, lit = FLAVOURS[video.flavour], partial(_lit, video.contrast, video.brightness)
    canvas, centres, hollow = _canvas(video, look, lit), np.reshape(video.centres, (-1, 2, 2)), _hollow(video)
    rng = _generator(video.seed, video.flavour, 2, video.index)
    noise = video.difficulty * rng.integers(-1, 2, (4, HEIGHT + 32, WIDTH + 32)).sum(0)[..., None].astype(np.float32)
    offsets = rng.integers(0, 33, (video.frames, 2))
    frames = np.empty((video.frames, HEIGHT, WIDTH, 3), np.uint8)
    for t, corner in enumerate(video.strays - np.reshape(video.shake, (-1, 2))):
        frame = _screen(canvas, corner).copy()
        for ball in (1 - video.upper, video.upper):
            patch, dx, dy = _patch(frame, centres[t, ball], video.radius)
            # The middle is brighter, so that the motion inside a disc is visible.
            luma = lit(140 - 14 / (video.radius * video.radius) * (dx * dx + dy * dy))
            cover = _cover(dx, dy, video.radius, look.square, hollow[t])
            patch += cover[..., None] * (luma[..., None] + COLOURS[ball] - patch)
        frame += _screen(noise, offsets[t])
        frames[t] = frame + np.float32(0.5)  # the cast to bytes rounds down
    return frames


def ball_masks(row: pd.Series) -> Bool[np.ndarray, "T 2 H W"]:
    """Where each ball (red, blue) is visible: not in the hole of a ring, and not under the other ball."""
    video = _plain(row)
    centres, hollow = np.reshape(video.centres, (-1, 2, 2)), _hollow(video)
    square = FLAVOURS[video.flavour].square
    masks = np.zeros((video.frames, 2, HEIGHT, WIDTH), bool)
    for t, ball in np.ndindex(video.frames, 2):
        patch, dx, dy = _patch(masks[t, ball], centres[t, ball], video.radius)
        patch[:] = _cover(dx, dy, video.radius, square, hollow[t]) >= 0.5
    masks[:, 1 - video.upper] &= ~masks[:, video.upper]
    return masks


def _plain(row: pd.Series) -> SimpleNamespace:
    """A row with Python's numbers: a float64 of numpy would turn float32 arrays into float64."""
    return SimpleNamespace(**{str(name): x.item() if isinstance(x, np.generic) else x for name, x in row.items()})


def _canvas(video: SimpleNamespace, look: Flavour, lit: Callable) -> Float[np.ndarray, "h w 3"]:
    """The background, larger than the screen on each side by the largest displacement of the camera."""
    height, width = HEIGHT + 2 * video.strays, WIDTH + 2 * video.strays
    rng = _generator(video.seed, video.flavour, 3, video.group)
    texture = sum((weight * _value_noise(rng, cell) for *cell, weight in look.octaves), np.zeros(()))
    left, top = video.view
    luma = lit(66 + 36 * texture[top : top + height, left : left + width])
    canvas = luma[..., None] + list(look.scenes.values())[video.scene]
    x, y, radius, grey = video.still
    if radius:
        patch, dx, dy = _patch(canvas, np.array((x, y)) + video.strays, radius)
        cover = _cover(dx, dy, radius, look.square, bool(video.still_hollow))
        patch += cover[..., None] * (lit(np.array([grey])) - patch)
    return canvas.astype(np.float32)


def _value_noise(rng: np.random.Generator, cell: list[int]) -> Float[np.ndarray, "h w"]:
    """Random levels in -1..1 on a grid, smoothly interpolated. The result is larger than every canvas."""
    height, width = HEIGHT + 64, WIDTH + 64
    grid = rng.integers(-127, 128, (height // cell[0] + 2, width // cell[1] + 2)) / 127
    (row, v), (column, u) = (np.divmod(np.arange(n) / size, 1) for n, size in zip((height, width), cell, strict=True))
    v, u = (x * x * (3 - 2 * x) for x in (v[:, None], u[None]))
    row, column = row.astype(int)[:, None], column.astype(int)[None]
    above = grid[row, column] * (1 - u) + grid[row, column + 1] * u
    below = grid[row + 1, column] * (1 - u) + grid[row + 1, column + 1] * u
    return above * (1 - v) + below * v


def _lit(contrast: float, brightness: float, luma: np.ndarray) -> np.ndarray:
    """Apply contrast about level 90 and brightness, the same for every material."""
    return np.clip(90 + contrast * (luma - 90) + brightness, *LUMA)


def _screen(plane: np.ndarray, corner: np.ndarray) -> np.ndarray:
    """The H x W pixels of a larger plane whose upper left corner is (x, y), as a view."""
    left, top = corner
    return plane[top : top + HEIGHT, left : left + WIDTH]


def _patch(plane: np.ndarray, centre: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of a plane around a shape, as a view, and the distance of its pixels from the centre along x and y."""
    x, y = centre.tolist()
    left, top = max(int(x - radius) - 1, 0), max(int(y - radius) - 1, 0)
    part = plane[top : int(y + radius) + 2, left : int(x + radius) + 2]
    dx, dy = np.arange(part.shape[1], dtype=np.float32), np.arange(part.shape[0], dtype=np.float32)
    return part, dx[None] + np.float32(left - x), dy[:, None] + np.float32(top - y)


def _cover(dx: np.ndarray, dy: np.ndarray, radius: float, square: bool, hollow: bool) -> np.ndarray:
    """Share of each pixel that a shape covers, from the distance (dx, dy) to its centre."""
    distance = np.maximum(np.abs(dx), np.abs(dy)) if square else np.sqrt(dx * dx + dy * dy)
    cover = np.clip(radius + 0.5 - distance, 0, 1)
    return cover - np.clip(HOLE * radius + 0.5 - distance, 0, 1) if hollow else cover


def _hollow(video: SimpleNamespace) -> list[bool]:
    """Which frames show rings: the first phase for order 0, the second for order 1."""
    return [(t < video.boundary) == (video.order == 0) for t in range(video.frames)]


# On disk.


def write(
    folder: Path, flavour: str, *, videos: int, seed: int, difficulty: float = 1.0, jobs: int = 1, progress: bool = True
) -> None:
    """Write the data set in the layout of a flavour: lists, factors.parquet, then all missing videos.

    Raises:
        IfttnError: the folder holds another data set (seed, size, difficulty), cannot be written, or is in use.
    """
    planned = plan_videos(flavour, videos, seed, difficulty)
    _write(folder, flavour, planned, planned, jobs, progress)


def write_some(folder: Path, flavour: str, names: Collection[str], *, videos: int, seed: int, jobs: int = 1) -> None:
    """Write the data set like `write`, with complete lists, but only the videos with these names."""
    planned = plan_videos(flavour, videos, seed)
    _write(folder, flavour, planned, planned.loc[sorted(names)], jobs, progress=False)


def _write(folder: Path, flavour: str, planned: pd.DataFrame, wanted: pd.DataFrame, jobs: int, progress: bool) -> None:
    table = folder / TABLE
    if table.exists() and not _same(stored := factors(folder), planned):
        raise IfttnError(
            f"{folder} holds another embedded data set of {len(stored)} videos: use another folder or remove this one"
        )
    with held(folder):
        remove_leftovers(folder)
        for name, text in FLAVOURS[flavour].lists(planned).items():
            write_whole(folder / name, text.encode())
        if not table.exists():
            write_whole(table, planned.to_parquet())
        rows = [row for _, row in wanted.iterrows() if not (folder / row.file).exists()]
        done = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(_write_video)(folder, x) for x in rows)
        total, name = len(wanted), f"{folder.name}: videos"
        for _ in tqdm(done, name, total, initial=total - len(rows), disable=not progress):
            pass


def factors(folder: Path) -> pd.DataFrame:
    """The plan that `write` put into the folder. Raises IfttnError if the folder has no plan."""
    if not (folder / TABLE).exists():
        raise IfttnError(f"{folder} has no {TABLE}: it is not the embedded data set")
    return pd.read_parquet(folder / TABLE)


def _same(stored: pd.DataFrame, planned: pd.DataFrame) -> bool:
    scalars = [column for column in planned if not isinstance(planned[column].iloc[0], (list, np.ndarray))]
    return set(scalars) <= set(stored) and stored[scalars].equals(planned[scalars])


def _write_video(folder: Path, row: pd.Series) -> None:
    """Write MPEG-4 Part 2 without B-frames, with a key frame every 12 frames and a constant quantiser."""
    import av  # only here, because drawing needs no codec

    # At quantiser 3 with cheap decisions, fast balls make frames sharper, and a frame would show the speed.
    options = {"qmin": "2", "qmax": "2", "mbd": "rd", "bf": "0", "g": "12"}
    with written_whole(folder / row.file) as file, av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for frame in render(row):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
