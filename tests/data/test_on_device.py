import numpy as np
import pytest
import torch

from ifttn.data import augmentation
from ifttn.data.on_device import Uncropped, _stacked, batches, crop
from ifttn.data.snippets import SnippetDataset, loader


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_a_crop_on_the_device_is_the_loaders_to_within_a_level(modality):
    rng = np.random.default_rng(0)
    channels = {"rgb": 3, "flow": 10}[modality]
    planes = rng.integers(0, 256, (12, 2, channels, 72, 96), dtype=np.uint8)
    crops = [augmentation.random_crop(72, 96, 64, (1.0, 0.875, 0.75), rng) for _ in planes]
    assert {own.mirrored for own in crops} == {False, True}
    found = crop(torch.from_numpy(planes), crops, 64, modality).numpy()
    for own, video, made in zip(crops, planes, found, strict=True):
        expected = augmentation.apply(own, video, 64, modality)
        assert np.abs(made.astype(int) - expected).max() <= 1
        if (own.height, own.width) == (64, 64):
            np.testing.assert_array_equal(made, expected)


def test_a_mirrored_field_at_rest_is_at_rest():
    still = torch.full((1, 1, 10, 8, 8), 128, dtype=torch.uint8)
    mirrored = augmentation.Crop(0, 0, 8, 8, mirrored=True)
    assert torch.equal(crop(still, [mirrored], 8, "flow"), still)
    never_empty = crop(torch.zeros_like(still), [mirrored], 8, "flow")
    assert never_empty[:, :, 0::2].eq(255).all()
    assert never_empty[:, :, 1::2].eq(0).all()


@pytest.fixture
def dataset(embedded):
    work = embedded.work(embedded.store)
    return SnippetDataset(work.store, work.split.train, ("rgb", "flow"), segments=3, size=64, scales=(1.0, 0.875))


def test_batches_are_the_loaders_own(dataset):
    usual = list(loader(dataset, 6, view=2, shuffle=False))
    keys = [[(2, row) for row in range(first, min(first + 6, 16))] for first in (0, 6, 12)]
    for one, other in zip(usual, batches(dataset, keys, "cpu"), strict=True):
        assert one.names == other.names
        assert torch.equal(one.labels, other.labels)
        assert all(torch.equal(one.inputs[m], other.inputs[m]) for m in one.inputs)


def test_what_a_gpu_is_handed_are_the_same_samples_before_their_crops(dataset):
    stored = _stacked([Uncropped(dataset)[2, row] for row in range(4)])
    assert stored.planes["flow"].shape == (4, 3, 10, 72, 96)
    found = stored.cropped(64, torch.device("cpu"))
    usual = next(iter(loader(dataset, 4, view=2, shuffle=False)))
    assert found.names == usual.names
    for modality, x in usual.inputs.items():
        assert (found.inputs[modality].int() - x.int()).abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gets_the_same_batches_one_ahead(dataset):
    keys = [[(2, row) for row in range(first, min(first + 6, 16))] for first in (0, 6, 12)]
    for one, other in zip(batches(dataset, keys, "cpu"), batches(dataset, keys, "cuda", workers=2), strict=True):
        assert one.names == other.names
        assert torch.equal(one.labels, other.labels.cpu())
        for modality, x in one.inputs.items():
            assert (other.inputs[modality].cpu().int() - x.int()).abs().max() <= 1
