import multiprocessing
import os
import signal
from typing import NamedTuple

import pytest
import torch

from ifttn.data import on_device
from ifttn.data.on_device import batches
from ifttn.data.snippets import SnippetDataset, loader
from ifttn.data.store import Store
from ifttn.vocabulary import IfttnError

KEYS = [[(2, row) for row in range(first, min(first + 6, 16))] for first in (0, 6, 12)]


@pytest.fixture
def dataset(embedded):
    work = embedded.work(embedded.store)
    return SnippetDataset(work.store, work.split.train, ("rgb", "flow"), segments=3, size=64, scales=(1.0, 0.875))


def test_batches_are_the_loaders_own(dataset):
    usual = list(loader(dataset, 6, view=2, shuffle=False))
    for one, other in zip(usual, batches(dataset, KEYS, "cpu"), strict=True):
        assert one.names == other.names
        assert torch.equal(one.labels, other.labels)
        assert all(torch.equal(one.inputs[m], other.inputs[m]) for m in one.inputs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_the_same_batches_one_ahead(dataset):
    for one, other in zip(batches(dataset, KEYS, "cpu"), batches(dataset, KEYS, "cuda", workers=2), strict=True):
        assert one.names == other.names
        assert torch.equal(one.labels, other.labels.cpu())
        assert all(torch.equal(x, other.inputs[modality].cpu()) for modality, x in one.inputs.items())


class Disk(NamedTuple):
    free: int


def test_too_little_shared_memory_ends_in_a_line_before_anything_is_loaded(dataset, monkeypatch):
    a_batch = 6 * 3 * 13 * 64 * 64
    monkeypatch.setattr(on_device.shutil, "disk_usage", lambda _: Disk(3 * a_batch - 1))
    monkeypatch.setattr(on_device, "DataLoader", lambda *_, **__: pytest.fail("loads"))
    with pytest.raises(IfttnError, match=r"/dev/shm.*\(2 workers need 3 MB .*--shm-size .*--workers 0 needs none$"):
        batches(dataset, KEYS, "cpu", workers=2)
    monkeypatch.undo()
    monkeypatch.setattr(on_device.shutil, "disk_usage", lambda _: Disk(3 * a_batch))
    assert len(list(batches(dataset, KEYS, "cpu", workers=2))) == 3
    assert len(list(batches(dataset, KEYS, "cpu"))) == 3


def test_shared_memory_that_is_full_in_the_middle_ends_in_the_same_line(dataset, monkeypatch):
    def full(_):
        raise RuntimeError(
            "unable to allocate shared memory(shm) for file </torch_7_1_2>: No space left on device (28)"
        )

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(IfttnError, match=r"^/dev/shm, .* \(it is full\): .*--workers 0 needs none$"):
        list(batches(dataset, KEYS, "cpu", workers=1))


def test_a_killed_worker_ends_in_one_line(dataset, capfd):
    others = {*multiprocessing.active_children()}
    feed = batches(dataset, 100 * KEYS, "cpu", workers=1)
    next(feed)
    (worker,) = {*multiprocessing.active_children()} - others
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(IfttnError, match=r"^a process that loads batches was killed, .*fewer --workers"):
        list(feed)
    assert capfd.readouterr().err == ""


def test_a_video_that_cannot_be_read_is_named_by_a_worker_as_by_the_process_itself(dataset, monkeypatch):
    def damaged(*_):
        raise IfttnError("ring/v_1 is damaged")

    monkeypatch.setattr(Store, "open", damaged)
    for workers in (0, 1):
        with pytest.raises(IfttnError, match=r"^ring/v_1 is damaged$"):
            list(batches(dataset, KEYS, "cpu", workers))
