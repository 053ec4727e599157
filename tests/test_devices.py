"""Every verb, every figure and every panel with the network on a GPU, on a machine without one (`refusing_device`).

`ifttn export` is not here: it takes no device and traces its network on the CPU.

The GPU is the second of two, so that what goes to "cuda" and not to the network's own device is refused as well.
"""

from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ifttn import cli, gallery
from ifttn.bench import gpu as bench_gpu
from ifttn.bench import gpu_parts, systems
from ifttn.bench import insight as bench_insight
from ifttn.bench import train as bench_train
from ifttn.data import cuda_kernels
from ifttn.data.flow import flow_of, luminance
from ifttn.data.flow_service import serve
from ifttn.data.loading import Loader, batches, in_order
from ifttn.data.samples import SnippetDataset
from ifttn.experiment import study
from ifttn.experiment.recipes import RECIPES
from ifttn.experiment.results import Results
from ifttn.experiment.runs import Run
from ifttn.gallery import figures_1_7, sources
from ifttn.insight.drawing_settings import DRAWING_PRESETS
from ifttn.insight.embedded import denoiser, ring_judges
from ifttn.verbs import reproduce
from lab import worker
from lab.cam_explorer import CamExplorer
from lab.deepdraw_studio import DeepDrawStudio
from lab.fusion_desk import FusionDesk
from lab.inspector import Inspector
from lab.layers import LAYERS
from lab.monitor import Monitor
from lab.shelf import Shelf
from lab.table_desk import TableDesk
from tests import refusing_device

GPU = "cuda:1"


@pytest.fixture(scope="module", autouse=True)
def gpus(embedded):
    """A machine with two GPUs. Each job of a panel begins its own thread: an idle one of another file knows no GPU."""
    with refusing_device.a_machine_with_gpus(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "_in_a_thread", in_a_new_thread)
        yield


def in_a_new_thread(call, done) -> None:
    Thread(target=lambda: (call(), done.set()), daemon=True).start()


@pytest.fixture(scope="module", autouse=True)
def short(gpus):
    """Two actions, drawings of two steps, judges of two, a denoiser of one epoch: every line runs, nothing is good."""
    with pytest.MonkeyPatch.context() as patch:
        for name, settings in DRAWING_PRESETS.items():
            octaves = tuple(replace(octave, steps=2) for octave in settings.octaves)
            patch.setitem(DRAWING_PRESETS, name, replace(settings, octaves=octaves))
        patch.setattr(ring_judges, "train_judge", partial(ring_judges.train_judge, videos=16, steps=2))
        patch.setattr(gallery, "train_denoiser", partial(gallery.train_denoiser, steps=1))
        patch.setattr(denoiser, "SAVE_EVERY", 0.0)
        patch.setattr(figures_1_7, "SEEDS_DRAWN", 1)
        patch.setattr(figures_1_7, "product", lambda actions, seeds: product(actions[:2], seeds))
        patch.setattr(sources, "spread_couples", lambda *_: [0, 1])
        patch.setattr(ring_judges, "JUDGES", 2)
        yield


def run(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def results(embedded, short, tmp_path_factory) -> Path:
    """What `ifttn train` and `ifttn test` leave, of two splits, so that drawings have a witness."""
    root = tmp_path_factory.mktemp("results")
    (root / "data").symlink_to(embedded.data.parent)
    (root / "stores").symlink_to(embedded.store.parent)
    for split in (1, 2):
        for verb, recipes in (("train", ["if-ttn"]), ("test", ["spatial", "temporal", "if-ttn"])):
            for recipe in recipes:
                assert run(verb, recipe, *work(root), "--split", split) == 0
    return root


def work(root: Path) -> tuple[object, ...]:
    """The options that reach the data and the runs."""
    data, store = root / "data" / "embedded-ucf", root / "stores" / "embedded-ucf-smallest"
    return ("--data", data, "--store", store, "--runs", root / "runs", "--preset", "smallest", "--device", GPU)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda here, there: here + there,
        lambda here, there: nn.functional.linear(there, here),
        lambda here, there: torch.stack([here, there]),
        lambda here, there: here[there.long()],
        lambda here, there: there.numpy(),
        lambda here, there: np.asarray(there),
        lambda here, there: torch.rand(2, device=GPU, generator=torch.Generator()),
        lambda here, there: nn.Linear(2, 2).to(GPU)(here),
        lambda here, there: nn.Linear(2, 2)(there),
        lambda here, there: there + torch.zeros(2, 2, device="cuda"),
        lambda here, there: setattr(here, "grad", there),
    ],
)
def test_the_device_refuses_what_a_real_one_refuses(mistake):
    here, there = torch.zeros(2, 2), torch.zeros(2, 2, device=GPU)
    with pytest.raises((RuntimeError, TypeError), match=r"device|cpu"):
        mistake(here, there)


def test_the_device_takes_what_a_real_one_takes():
    here, there = torch.arange(4.0).view(2, 2), torch.zeros(2, 2, device=GPU)
    there.copy_(here)
    there[0] = here[1]
    assert (there * torch.tensor(2.0)).cpu().numpy().tolist() == [[4, 6], [4, 6]]
    assert there[torch.tensor([1])].device == torch.device(GPU)
    network = nn.Linear(2, 2).to(GPU)
    (gradient,) = torch.autograd.grad(network(there).sum(), network.weight)
    assert {gradient.device, network.weight.device} == {torch.device(GPU)}
    assert network.cpu().weight.device.type == "cpu"
    assert isinstance(network.weight, nn.Parameter)


def test_videos_are_prepared(embedded, tmp_path):
    where = ("prepare", embedded.data, tmp_path / "store", "--preset", "smallest", "--flow", "tvl1-fast", "--limit", 1)
    assert run(*where, "--jobs", 1, "--device", GPU) == 0


def test_other_processes_are_served_with_flow():
    frames = np.random.default_rng(0).integers(0, 256, (3, 24, 32, 3), np.uint8)
    with serve("tvl1-fast", GPU) as service:
        answer = service(luminance(frames), 5.0, np.arange(2))
    np.testing.assert_array_equal(answer.sampled, flow_of("tvl1-fast", frames))


@pytest.mark.parametrize("recipe", [name for name, row in RECIPES.items() if not row.needs])
def test_every_recipe_that_starts_from_nothing_is_trained_and_tested(recipe, results, tmp_path):
    where = [*work(results), "--runs", tmp_path]
    assert run("train", recipe, *where, "--precision", "fp32") == 0
    assert run("test", recipe, *where) == 0


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_a_training_in_parts_goes_on_where_it_was_cut_off(precision, results, tmp_path, monkeypatch):
    def cut_off(self, state):
        save(self, state)
        raise KeyboardInterrupt

    save, where = Run.save_checkpoint, [*work(results), "--runs", tmp_path]
    how = ("--micro-batch", 5, "--recompute", "--precision", precision)
    monkeypatch.setattr(Run, "save_checkpoint", cut_off)
    assert run("train", "spatial", *where, *how) == 130
    monkeypatch.setattr(Run, "save_checkpoint", save)
    assert run("train", "if-ttn-adaptive", *where, *how) == 0


def test_every_figure_is_drawn(results, tmp_path):
    """All at once: with everything that is measured, through a denoiser, with the films of the README."""
    how = ("--full", "--denoise", "--gallery", tmp_path / "docs")
    assert run("figures", *work(results), "--out", tmp_path, *how) == 0
    assert len(list(tmp_path.glob("*.png"))) == 7


def test_a_video_is_predicted_whole_and_as_it_comes(results, tmp_path):
    video = next((results / "data" / "embedded-ucf").glob("*/*.avi"))
    where = ("--run", results / "runs" / "embedded-ucf" / "split1" / "if-ttn", "--device", GPU)
    assert run("predict", video, *where, "--crops", 3, "--json", tmp_path / "found.json") == 0
    assert run("predict", video, *where, "--every", 0.5) == 0


def test_every_step_of_the_study_is_done(results, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "draw_figures", lambda *_, **__: [])  # drawn above
    setup, places = study.StudySettings("smallest", GPU), study.Places(tmp_path)
    for folder in ("data", "stores"):
        (tmp_path / folder).symlink_to(results / folder)
    for task in study.steps_of(places, setup, quick=True, videos=32):
        if task.function is not study.write_videos:
            task.function(*task.arguments)
    gallery.draw_split(places, places.datasets[0], 1, setup)
    assert Results(places.runs, tmp_path / "data").tables()


def test_the_bench_of_training_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_train, "product_rate", lambda clock, dtype: 1e12)
    small = ("--preset", "smallest", "--videos", 16, "--steps", 1, "--repetitions", 1, "--batch", 2)
    assert run("bench", "train", *small, "--device", GPU, "--folder", tmp_path) == 0


def test_the_bench_of_training_from_memory_runs(monkeypatch):
    monkeypatch.setattr(bench_train, "product_rate", lambda clock, dtype: 1e12)
    size = ("--preset", "smallest", "--batch", 2, "--steps", 1, "--repetitions", 1)
    stages = ("--stages", "temporal", "joint")
    assert run("bench", "train", "--from-memory", *size, *stages, "--device", GPU) == 0


def test_the_bench_of_flow_runs():
    assert run("bench", "flow", "--gpu", "--sizes", "24x16") == 0


@pytest.mark.parametrize("part", ["loader", "jpeg"])
def test_a_part_of_the_bench_for_gpus_runs(part, tmp_path, monkeypatch):
    draw, product = torch.randn, (2, 64, 64)
    monkeypatch.setattr(bench_gpu.Place, "preset", "smallest")
    on_cpu = gpu_parts._decoded
    monkeypatch.setattr(gpu_parts, "_decoded", lambda *what: [x.to(what[-1]) for x in on_cpu(*what[:-1], "cpu")])
    monkeypatch.setattr(torch, "randn", lambda *_, **options: draw(product, **options))
    assert gpu_parts.OWN_PARTS[part](bench_gpu.Place(GPU, tmp_path)) == 0


def test_the_bench_of_insight_runs(monkeypatch):
    monkeypatch.setattr(bench_insight, "DRAWN_BACKBONES", dict.fromkeys(bench_insight.DRAWN_BACKBONES, "smallest"))
    monkeypatch.setattr(nn.Module, "compile", lambda network: None)
    assert run("bench", "insight", "--device", GPU, "--batch", 1, "--repeat", 1) == 0


def test_the_bench_of_speed_runs(tmp_path, monkeypatch, encode):
    monkeypatch.setattr(systems, "bounds", lambda conditions, num_frames: iter(()))  # a product of 8192 x 8192
    video = encode(tmp_path / "pan.avi", np.zeros((30, 72, 96, 3), np.uint8))
    small = ("--size", "small", "--segments", 2, "--repetitions", 1, "--batch", 1, "--rows", "tsn-rgb", "if-ttn")
    assert run("bench", "speed", *small, "--device", GPU, "--video", video) == 0


@pytest.fixture
def opened(results, tmp_path, monkeypatch):
    """A panel on the GPU's shelf, which has done its work without a word of alarm; closed at the end."""
    made = []
    monkeypatch.chdir(tmp_path)  # panels keep their drawings there

    def make(kind, **chosen):
        made.append(kind(Shelf(results, device=GPU), **chosen))
        done(made[-1])
        return made[-1]

    yield make
    for panel in made:
        panel.close()


def done(panel) -> None:
    panel.wait(0.5 if isinstance(panel, Monitor) else 120.0)  # a monitor goes on for as long as it is open
    assert panel.worker.error == "", panel.worker.details


def test_the_inspector_shows_a_video_with_every_layer(opened):
    panel = opened(Inspector)
    panel.state.layers = dict.fromkeys(LAYERS, 0.5)
    panel._reorder("reverse")
    done(panel)
    assert panel.reading.votes


@pytest.mark.parametrize("method", ["cam", "gradcam"])
def test_the_cam_explorer_maps_a_video(method, opened):
    assert opened(CamExplorer, method=method)._grid.value.startswith("<table")


@pytest.mark.parametrize(
    "chosen",
    [
        {"settings": "tiny-denoised"},
        {"head": "rgb"},
        {"head": "fused", "length": 0.5},
    ],
)
def test_the_studio_draws(chosen, opened):
    panel = opened(DeepDrawStudio, **{"settings": "tiny", **chosen})
    panel.start()
    done(panel)
    assert panel.drawn.step == panel.drawn.steps
    panel.keep()


@pytest.mark.parametrize("kind", [FusionDesk, TableDesk])
def test_the_desks_open(kind, opened):
    opened(kind)


def test_the_monitor_opens(opened):
    opened(Monitor)


class Driver:
    """In the place of CUDA's bindings: notes what is locked."""

    def __init__(self, error: int = 0) -> None:
        self.error, self.locked = error, dict[int, int]()

    def cuMemHostRegister(self, address: int, size: int, flags: int) -> tuple[SimpleNamespace | int]:
        if not self.error:
            self.locked[address] = size
        return (SimpleNamespace(name="CUDA_ERROR_NOT_SUPPORTED") if self.error else 0,)

    def cuMemHostUnregister(self, address: int) -> tuple[int]:
        del self.locked[address]
        return (0,)


@pytest.mark.parametrize("error", [0, 801])
def test_memory_that_processes_share_is_locked_for_a_gpu_as_long_as_they_live(embedded, monkeypatch, error):
    driver, own = Driver(error), embedded.work(embedded.store)
    monkeypatch.setattr(cuda_kernels, "import_module", {"cuda.bindings.driver": driver}.__getitem__)
    data = SnippetDataset(own.store, own.split.train, ("rgb", "flow"), segments=3, size=64, scales=(1.0, 0.875))
    with closing(Loader(data, GPU, 2)) as loader:
        for epoch in range(2):
            keys = in_order(data, 6, epoch)
            for batch, expected in zip(loader(keys), batches(data, keys, "cpu"), strict=True):
                assert batch.names == expected.names
                assert all(torch.equal(x.cpu(), expected.inputs[m]) for m, x in batch.inputs.items())
            assert [*driver.locked.values()] == [loader._processes.ring.size] * len(keys) * (not error)
    assert not driver.locked


@pytest.mark.parametrize(
    ("words", "gigabytes", "steps"),
    [("", 64, 8), ("", 8, 4), ("", 1, 1), ("--quick", 64, 1), ("--preset paper", 64, 1), ("--jobs 3", 1, 3)],
)
def test_a_gpu_trains_as_many_small_networks_at_once_as_it_has_memory_for(monkeypatch, words, gigabytes, steps):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    there = SimpleNamespace(total_memory=gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: there)
    o = cli.parser().parse_args(["reproduce", "--device", GPU, *words.split()])
    assert (o.jobs or reproduce.steps_at_once(o)) == steps


def test_processes_that_load_take_the_core_that_a_gpu_leaves_free(embedded, monkeypatch):
    own = replace(embedded.work(embedded.store), preset="paper")
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    assert [replace(own, device=device).workers for device in ("cpu", GPU)] == [3, 4]
