"""Fixtures that several rooms share."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from ifttn.data import diagnostic
from ifttn.data.catalogue import read_split
from ifttn.data.store import Store
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.work import Work
from ifttn.insight.drawing_settings import DRAWING_PRESETS
from ifttn.insight.embedded import ring_judges
from ifttn.vocabulary import Split

# Two OpenMP threads on a busy two-core machine can be ten times slower than one.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The official split lists and a few real videos, where the checkout has them beside it."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the official lists and real videos are not at {folder}")
    return folder


@pytest.fixture(scope="session")
def encode() -> Callable[..., Path]:
    """encode(path, frames, codec, b_frames, **options): a video file of 25 frames/s with an I-frame every 12."""

    from ifttn.data import doctor
    from ifttn.data.doctor import Codec

    def write(
        path: Path, frames: Sequence[np.ndarray], codec: str = "mpeg4", b_frames: int = 0, **options: str
    ) -> Path:
        return doctor.write_video(path, frames, Codec(codec, options=options, b_frames=b_frames))

    return write


@pytest.fixture
def gpu() -> Iterator[str]:
    """The device "cuda". A machine without a GPU has the stand-in, so that a test has run before it meets a GPU."""
    if torch.cuda.is_available():
        yield "cuda"
    else:
        from tests.refusing_device import a_machine_with_gpus

        with a_machine_with_gpus():
            yield "cuda"


@dataclass(frozen=True)
class Embedded:
    """An embedded data set of two videos a class, one to train on and one to test on."""

    data: Path
    store: Path

    @property
    def split(self) -> Split:
        return read_split(self.data, 1)

    def work(self, runs: Path, seed: int = 0) -> Work:
        return Work(self.split, Store(self.store), runs, "smallest", seed, progress=False)


@pytest.fixture(scope="session")
def embedded(tmp_path_factory) -> Embedded:
    folder = tmp_path_factory.mktemp("embedded")
    if not find_spec("av"):  # a bare GPU machine, which runs the tests that need a GPU
        from ifttn.bench.gpu_parts import drawn

        return Embedded(folder / "embedded-ucf", drawn(folder, "smallest", 32)[1].folder)
    from ifttn.data.preparation import prepare

    data, store = folder / "data" / "embedded-ucf", folder / "stores" / "embedded-ucf-smallest"
    diagnostic.write(data, "ucf", videos=32, seed=0, jobs=1, progress=False)
    report = prepare(data, store, PRESETS["smallest"].store, jobs=1, progress=False)
    assert (report.status == "done").all()
    return Embedded(data, store)


@pytest.fixture
def two_steps(monkeypatch):
    """Drawings of two steps, and judges of form that are trained for two."""
    for name, settings in DRAWING_PRESETS.items():
        octaves = tuple(replace(octave, steps=2) for octave in settings.octaves)
        monkeypatch.setitem(DRAWING_PRESETS, name, replace(settings, octaves=octaves))
    monkeypatch.setattr(ring_judges, "train_judge", partial(ring_judges.train_judge, videos=16, steps=2))
