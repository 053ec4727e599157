"""The loader alone beside a bare loop that decodes the same JPEGs, and how many cores keep a device busy.

A bare loop does nothing but decode, from memory, what the loader has to find, read, decode, crop and stack. Both run
in this process, in turns; the figures are of their processor time, the best of several turns.
"""

import argparse
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch.nn import functional

from ifttn.bench.options import TRAINED_STAGES
from ifttn.data.batch import Batch
from ifttn.data.flow import flow_of, to_bytes
from ifttn.data.loading import SnippetDataset, batches, finish, in_order
from ifttn.data.store import Store, StoreSettings
from ifttn.experiment.presets import PRESETS, Preset, network_settings
from ifttn.experiment.recipes import RECIPES, find
from ifttn.experiment.training import freeze_all_but
from ifttn.model.network import Network
from ifttn.vocabulary import MODALITIES, IfttnError, Video

ROW = "{:10}{:>12}{:>12}{:>8}{:>14}{:>8}{:>13}{:>8}"


@dataclass(frozen=True)
class Rates:
    """Videos a second of one core."""

    bare: float
    """The same JPEGs decoded from memory."""
    loader: float
    """Crops are left for the device to fit (`SnippetDataset.fitted` is false)."""
    fitted: float
    """Crops are resized and mirrored by the loader."""


def run(o: argparse.Namespace) -> int:
    """Print a row for each stage of training. Returns the exit code."""
    preset = find(o.preset, PRESETS, "preset")
    if len(o.rate) not in (0, len(TRAINED_STAGES)):
        raise IfttnError(f"--rate needs a number for each of {', '.join(TRAINED_STAGES)}")
    cv2.setNumThreads(0)  # the rates are those of one core
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ifttn-bench-") as folder:
        store = Store(o.store) if o.store else example(Path(folder), preset.store)
        if store.index().empty:
            raise IfttnError(f"{store.folder}: holds no video")
        _print_header(o, store, preset)
        measured: dict[tuple[str, ...], Rates] = {}
        for row, (name, (recipe, stage)) in enumerate(TRAINED_STAGES.items()):
            modalities = RECIPES[recipe].modalities
            if modalities not in measured:
                dataset = dataset_of(store, preset, modalities, o.videos)
                measured[modalities] = measure(dataset, o.batch, o.repetitions)
            wanted = o.rate[row] if o.rate else appetite(recipe, stage, preset) if torch.cuda.is_available() else None
            print(_row(name, measured[modalities], wanted))
    if not o.rate and not torch.cuda.is_available():
        stages = " ".join(TRAINED_STAGES)
        print(f"device, cores: no GPU is here; give the videos/s of yours in each stage: --rate {stages}")
    return 0


def example(folder: Path, settings: StoreSettings) -> Store:
    """A store of two videos of 60 frames: a rough texture that turns and grows, with OpenCV's DIS as its flow."""
    store = Store.create(folder, replace(settings, flow="dis"))
    rng, size = np.random.default_rng(0), (settings.width, settings.height)
    texture = rng.integers(0, 256, (settings.height // 4, settings.width // 4, 3), dtype=np.uint8)
    texture = cv2.resize(texture, size, interpolation=cv2.INTER_CUBIC)
    for number, turn in enumerate((0.3, -0.5)):
        frames = np.empty((60, settings.height, settings.width, 3), np.uint8)
        for time_, frame in enumerate(frames):
            motion = cv2.getRotationMatrix2D((size[0] / 2, size[1] / 2), turn * time_, 1.2 + 0.005 * time_)
            moved = cv2.warpAffine(texture, motion, size, borderMode=cv2.BORDER_REFLECT)
            frame[:] = np.clip(moved + rng.normal(0, 3, moved.shape), 0, 255)
        flow = to_bytes(flow_of("dis", frames), settings.bound)
        store.write(f"example/{number}", frames, flow, flow, 25.0)
    store.tidy()
    return store


def dataset_of(store: Store, preset: Preset, modalities: Sequence[str], videos: int) -> SnippetDataset:
    """Training samples of so many videos of the store, over again where it has fewer."""
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


def measure(dataset: SnippetDataset, batch: int, repetitions: int) -> Rates:
    """The bare loop and the loader in turns, batch by batch over the samples of one view."""
    jpegs = [list(_jpegs(dataset, range(i, min(i + batch, len(dataset))))) for i in range(0, len(dataset), batch)]
    best, kinds = np.full((3, len(jpegs)), np.inf), (dataset, replace(dataset, fitted=True))
    for _ in range(repetitions):
        loaders = [batches(each, in_order(each, batch), "cpu") for each in kinds]
        for number, own in enumerate(jpegs):
            turns = (partial(_decode, own), *(partial(next, each) for each in loaders))
            best[:, number] = np.minimum(best[:, number], [_seconds(turn) for turn in turns])
    return Rates(*(len(dataset) / best.sum(1)).tolist())


def _seconds(turn: Callable[[], object]) -> float:
    began = time.process_time()
    turn()
    return time.process_time() - began


def _decode(jpegs: Iterable[tuple[UInt8[np.ndarray, " _"], int]]) -> None:
    for jpeg, flag in jpegs:
        cv2.imdecode(jpeg, flag)


def appetite(recipe: str, stage: int, preset: Preset, seconds: float = 5.0) -> float:
    """Videos a second that the GPU takes forth and back in a stage, its crops fitted there, on random bytes."""
    network = Network(network_settings(RECIPES[recipe], preset, 101)).cuda()
    freeze_all_but(network, RECIPES[recipe].stages[stage].trains, preset.batch_norm)
    side, videos = min(preset.store.height, preset.store.width), preset.batch
    sides = torch.tensor([int(side * scale) for scale in preset.scales["motion"]])
    drawn = sides[torch.randint(len(sides), (videos,), generator=torch.Generator().manual_seed(0))]
    batch = Batch(
        {m: torch.zeros((videos, preset.segments, MODALITIES[m].channels, side, side), dtype=torch.uint8, device="cuda")
         for m in network.settings.modalities},
        torch.zeros(videos, dtype=torch.int64),
        [""] * videos,
        torch.stack([drawn, drawn, torch.arange(videos) % 2], 1),
    )  # fmt: skip
    labels = batch.labels.cuda()

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            logits = network(finish(batch, preset.size, "cuda").inputs).logits
        torch.stack([functional.cross_entropy(x.float(), labels) for x in logits.values()]).sum().backward()

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        torch.cuda.synchronize()
        steps += 1
    return steps * videos / (time.perf_counter() - began)


def _jpegs(dataset: SnippetDataset, indices: Iterable[int]) -> Iterator[tuple[UInt8[np.ndarray, " _"], int]]:
    for index in indices:
        with dataset.store.open(dataset.videos[index].name) as entry:
            frames, fields, _ = dataset.draw((0, index), entry.frames)
            for modality in dataset.modalities:
                is_motion = MODALITIES[modality].is_motion
                flag = cv2.IMREAD_GRAYSCALE if is_motion else cv2.IMREAD_COLOR_RGB
                yield from ((jpeg, flag) for jpeg in entry.jpegs(modality, fields.ravel() if is_motion else frames))


def _print_header(o: argparse.Namespace, store: Store, preset: Preset) -> None:
    settings, gpu = store.settings, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    print(f"{platform.processor() or platform.machine()}, {gpu}; OpenCV {cv2.__version__}, torch {torch.__version__}")
    what = f"{store.folder}" if o.store else "a made-up store"
    print(
        f"{what}: {settings.width}x{settings.height}, JPEG {settings.quality}, {_bytes(store)}; samples of "
        f"{preset.segments} snippets, {o.videos} videos a turn, best of {o.repetitions} turns"
    )
    print("videos/s of one core: bare = the JPEGs decoded from memory; loader = `SnippetDataset(fitted=False)`;")
    print("fitted = crops resized by the loader too; device = videos/s that it trains on; cores = device / loader")
    print(ROW.format("stage", "bare", "loader", "ratio", "fitted", "ratio", "device", "cores"))


def _bytes(store: Store) -> str:
    index = store.index()
    parts = (f"{index[f'{m}_bytes'].sum() / index.frames.sum():,.0f} {m}" for m in ("rgb", "flow", "mv"))
    return f"bytes a frame: {', '.join(parts)}"


def _row(name: str, rates: Rates, wanted: float | None) -> str:
    return ROW.format(
        name,
        f"{rates.bare:.1f}",
        f"{rates.loader:.1f}",
        f"{rates.loader / rates.bare:.2f}",
        f"{rates.fitted:.1f}",
        f"{rates.fitted / rates.bare:.2f}",
        f"{wanted:.0f}" if wanted else "",
        f"{wanted / rates.loader:.1f}" if wanted else "",
    ).rstrip()
