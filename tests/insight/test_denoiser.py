import pytest
import torch

from ifttn.insight.denoiser import SPREAD, Denoiser, denoiser_file, load_denoiser, packed, train_denoiser
from ifttn.vocabulary import IfttnError


def snippets(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Squares that move: bright where the motion is."""
    generator = torch.Generator().manual_seed(seed)
    rgb, flow = torch.full((count, 3, 24, 32), 80.0), torch.full((count, 10, 24, 32), 128.0)
    for i in range(count):
        y, x = torch.randint(0, 16, (2,), generator=generator).tolist()
        rgb[i, :, y : y + 8, x : x + 8] = 200
        flow[i, 0::2, y : y + 8, x : x + 8] = 180
    return {"rgb": rgb, "flow": flow}


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return train_denoiser(snippets(96), epochs=40)


def test_a_denoiser_brings_noisy_snippets_nearer_to_the_real_ones(denoiser):
    real = denoiser.encoded(snippets(16, seed=1))
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    for sigma in (0.5, 1.0):
        with torch.no_grad():
            guess = denoiser(real + sigma * noise, torch.full((16,), sigma))
        assert (guess - real).square().mean() < 0.5 * real.square().mean()  # less wrong than to say the mean
        assert (guess - real).square().mean() < 0.2 * sigma**2  # than to leave the noise


def test_values_are_centred_and_as_wide_as_promised(denoiser):
    values = denoiser.encoded(snippets(96))
    assert values.shape == (96, 13, 12, 16)
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(13), atol=1e-4, rtol=0)
    for part in values.split([3, 10], 1):
        assert part.std().item() == pytest.approx(SPREAD, rel=0.2)  # a modality's channels share one scale


def test_what_was_encoded_is_decoded_but_for_its_edges(denoiser):
    real = snippets(4, seed=2)
    decoded = denoiser.decoded(denoiser.encoded(real), (24, 32))
    assert list(decoded) == ["rgb", "flow"]
    for modality, images in decoded.items():
        assert images.shape == real[modality].shape
        assert 0 <= images.min() <= images.max() <= 255
        assert (images - real[modality]).abs().median() < 1


def test_a_kept_denoiser_says_the_same(denoiser, tmp_path):
    path = denoiser_file(tmp_path, "embedded-ucf", 1, ("rgb", "flow"))
    assert path.relative_to(tmp_path).as_posix() == "embedded-ucf/split1/denoiser-rgb-flow.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(packed(denoiser))
    noisy, sigma = torch.randn(2, 13, 12, 16), torch.tensor([0.5, 2.0])
    with torch.no_grad():
        assert load_denoiser(path)(noisy, sigma).equal(denoiser(noisy, sigma))
    with pytest.raises(IfttnError, match="figures --denoise"):
        load_denoiser(tmp_path / "none.safetensors")


def test_the_same_seed_trains_the_same_denoiser_and_leaves_the_global_one_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (train_denoiser(snippets(24), epochs=1, seed=seed) for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    assert first.enter.weight.equal(again.enter.weight)
    assert not first.enter.weight.equal(other.enter.weight)


def test_frames_that_cannot_be_halved_twice_are_refused():
    with pytest.raises(IfttnError, match="multiples of 4 px, not 34 x 24"):
        train_denoiser({"rgb": torch.zeros(1, 3, 24, 34)})
