import pytest
import torch

from ifttn.data.on_device import batches
from ifttn.data.snippets import SnippetDataset, loader

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
