"""Compares the loader alone with a bare loop that decodes the same JPEGs, and prints how many cores keep a GPU busy.

The bare loop only decodes JPEGs from memory. The loader finds, reads, decodes, crops and stacks them. Both run in this
process, in turns. Times are processor times, the best of several turns for each batch.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from joblib import Parallel, delayed

from ifttn.bench.clock import Clock, PrintedTable, device_name, use_one_core
from ifttn.bench.options import TRAINED_STAGES
from ifttn.bench.random_steps import random_step
from ifttn.data import diagnostic
from ifttn.data.flow import flow_of, to_bytes
from ifttn.data.loading import batches, in_order
from ifttn.data.samples import SnippetDataset
from ifttn.data.store import Store, StoreSettings
from ifttn.experiment.presets import PRESETS, Preset
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import RECIPES, find
from ifttn.files import write_whole
from ifttn.vocabulary import MODALITIES, IfttnError, Video


def run(o: argparse.Namespace) -> int:
    """Print a row for each stage of training."""
    preset = find(o.preset, PRESETS, "preset")
    if len(o.rate) not in (0, len(TRAINED_STAGES)):
        raise IfttnError(f"--rate needs a number for each of {', '.join(TRAINED_STAGES)}")
    use_one_core()
    has_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        store = Store(o.store) if o.store else example(Path(folder), preset.store)
        if store.index().empty:
            raise IfttnError(f"{store.folder} holds no video")
        print("\n".join(_header(o, store, preset)))
        table = PrintedTable("stage", "bare", "loader", "ratio", "fitted", "ratio", "device", "cores", first=10)
        measured: dict[tuple[str, ...], dict[str, float]] = {}
        for row, (name, (recipe, stage)) in enumerate(TRAINED_STAGES.items()):
            modalities = RECIPES[recipe].modalities
            if modalities not in measured:
                dataset = dataset_of(store, preset, modalities, o.videos)
                measured[modalities] = loader_rates(dataset, o.batch, o.repetitions)
            device = o.rate[row] if o.rate else training_rate(recipe, stage, preset) if has_gpu else None
            table.row(name, *_cells(measured[modalities], device))
    if not o.rate and not has_gpu:
        stages = " ".join(TRAINED_STAGES)
        print(f"device, cores: this machine has no GPU; give the videos/s of a GPU in each stage: --rate {stages}")
    return 0


def _header(o: argparse.Namespace, store: Store, preset: Preset) -> Iterator[str]:
    """Lines that describe the measurement and the columns."""
    settings, index = store.settings, store.index()
    gpu = device_name("cuda") if torch.cuda.is_available() else "no GPU"
    yield f"{device_name('cpu')}, {gpu}; OpenCV {cv2.__version__}, torch {torch.__version__}"
    sizes = (f"{index[f'{m}_bytes'].sum() / index.frames.sum():,.0f} {m}" for m in ("rgb", "flow", "mv"))
    yield (
        f"{store.folder if o.store else 'a temporary store'}: {settings.width}x{settings.height}, JPEG "
        f"{settings.quality}, bytes per frame: {', '.join(sizes)}; samples of {preset.segments} snippets, {o.videos} "
        f"videos per turn, best of {o.repetitions} turns"
    )
    yield "videos/s of one core: bare = the JPEGs decoded from memory; loader = `SnippetDataset(fitted=False)`;"
    yield "fitted = the loader also resizes crops; device = videos/s that a GPU trains on; cores = device / loader"


def _cells(rates: Mapping[str, float], device: float | None) -> Iterator[str]:
    yield f"{rates['bare']:.1f}"
    for own in (rates["loader"], rates["fitted"]):
        yield from (f"{own:.1f}", f"{own / rates['bare']:.2f}")
    if device:
        yield from (f"{device:.0f}", f"{device / rates['loader']:.1f}")


def example(folder: Path, settings: StoreSettings) -> Store:
    """A store of two videos of 60 frames: a rough texture that turns and grows, with the flow of OpenCV's DIS."""
    store = Store.create(folder, replace(settings, flow="dis"))
    rng, size = np.random.default_rng(0), (settings.width, settings.height)
    texture = rng.integers(0, 256, (settings.height // 4, settings.width // 4, 3), dtype=np.uint8)
    texture = cv2.resize(texture, size, interpolation=cv2.INTER_CUBIC)
    for number, turn in enumerate((0.3, -0.5)):
        frames = np.empty((60, settings.height, settings.width, 3), np.uint8)
        for index, frame in enumerate(frames):
            motion = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), turn * index, 1.2 + 0.005 * index)
            moved = cv2.warpAffine(texture, motion, size, borderMode=cv2.BORDER_REFLECT)
            frame[:] = np.clip(moved + rng.normal(0, 3, moved.shape), 0, 255)
        flow = to_bytes(flow_of("dis", frames), settings.bound)
        store.write(f"example/{number}", frames, flow, flow, 25.0)
    store.tidy()
    return store


def drawn(folder: Path, preset: str, videos: int, flow: str | None = None) -> tuple[Path, Store]:
    """The folder of an embedded data set with empty video files, and its store. A second call finds both.

    The frames are drawn into the store without a codec, so that no video library is needed. The flow also serves as
    motion vectors.
    """
    data, settings = folder / "embedded-ucf", PRESETS[preset].store
    store = Store.create(folder / f"store-{preset}", replace(settings, flow=flow or settings.flow))
    plan = diagnostic.plan_videos("ucf", videos, seed=0)
    for name, text in diagnostic.FLAVOURS["ucf"].lists(plan).items():
        write_whole(data / name, text.encode())
    for file in plan.file:
        (data / file).parent.mkdir(parents=True, exist_ok=True)
        (data / file).touch()
    rows = [row for name, row in plan.iterrows() if str(name) not in store]
    if rows:
        jobs = -1 if len(rows) > 32 else 1  # few videos are drawn before other processes would have started
        Parallel(n_jobs=jobs)(delayed(_draw)(store.folder, row) for row in rows)
        store.tidy()
    return data, store


def _draw(folder: Path, row: pd.Series) -> None:
    cv2.setNumThreads(1)
    store = Store(folder)
    size = (store.settings.width, store.settings.height)
    frames = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in diagnostic.render(row)])
    flow = to_bytes(flow_of(store.settings.flow, frames), store.settings.bound)
    store.write(str(row.name), frames, flow, flow, float(diagnostic.FPS))


def dataset_of(store: Store, preset: Preset, modalities: Sequence[str], videos: int) -> SnippetDataset:
    """Training samples of `videos` videos. They are repeated if the store has fewer."""
    names = store.index().video.tolist()
    chosen = [names[i % len(names)] for i in range(videos)]
    return SnippetDataset(
        store,
        [Video(name, Path(name), "", 0, "") for name in chosen],
        modalities,
        preset.segments,
        preset.size,
        preset.scales["motion" if any(MODALITIES[m].is_motion for m in modalities) else "rgb"],
        fitted=False,
    )


def loader_rates(dataset: SnippetDataset, batch: int, repetitions: int) -> dict[str, float]:
    """Videos per second on one core of the bare loop, of the loader, and of the loader if it also resizes and mirrors
    the crops (fitted). They are timed in turns, batch by batch, over the samples of one view."""
    jpegs = [list(_jpegs(dataset, range(i, min(i + batch, len(dataset))))) for i in range(0, len(dataset), batch)]
    fitted = replace(dataset, fitted=True)
    sides = {
        "bare": lambda: map(_decode, jpegs),
        "loader": lambda: map(dataset.read, in_order(dataset, batch)),
        "fitted": lambda: batches(fitted, in_order(fitted, batch), "cpu"),
    }
    return {name: len(dataset) / own for name, own in Clock().best(sides, repetitions).items()}


def _jpegs(dataset: SnippetDataset, indices: Iterable[int]) -> Iterator[tuple[UInt8[np.ndarray, " _"], int]]:
    for index in indices:
        with dataset.store.open(dataset.videos[index].name) as entry:
            frames, fields, _ = dataset.draw((0, index), entry.frames)
            for modality in dataset.modalities:
                is_motion = MODALITIES[modality].is_motion
                flag = cv2.IMREAD_GRAYSCALE if is_motion else cv2.IMREAD_COLOR_RGB
                yield from ((jpeg, flag) for jpeg in entry.jpegs(modality, fields.ravel() if is_motion else frames))


def _decode(jpegs: Iterable[tuple[UInt8[np.ndarray, " _"], int]]) -> None:
    for jpeg, flag in jpegs:
        cv2.imdecode(jpeg, flag)


def training_rate(recipe: str, stage: int, preset: Preset) -> float:
    """Videos per second that the GPU trains on in a stage, with data in its memory."""
    step = random_step(recipe, stage, preset, preset.batch, Machine(), "cuda")
    clock = Clock("cuda")
    for _ in range(3):
        step()
    return preset.batch / float(np.median([clock.seconds(step) for _ in range(15)]))
