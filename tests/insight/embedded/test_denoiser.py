import pytest
import safetensors.torch
import torch
from torch.nn.functional import interpolate

from ifttn.insight.embedded import denoiser as denoising
from ifttn.insight.embedded.denoiser import SPREAD, Denoiser, denoiser_file, load_denoiser, packed, train_denoiser
from ifttn.vocabulary import IfttnError


def snippets(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Squares that move: bright where the motion is. Two at a time are of one video, whose ground is dark or light."""
    generator = torch.Generator().manual_seed(seed)
    rgb, flow = torch.full((count, 3, 24, 32), 80.0), torch.full((count, 10, 24, 32), 128.0)
    rgb.unflatten(0, (-1, 2))[1::2] = 120.0
    for i in range(count):
        y, x = torch.randint(0, 16, (2,), generator=generator).tolist()
        rgb[i, :, y : y + 8, x : x + 8] = 200
        flow[i, 0::2, y : y + 8, x : x + 8] = 180
    return {"rgb": rgb, "flow": flow}


def paired(values):
    return values.unflatten(0, (-1, 2))


def videos(count: int, seed: int = 0) -> dict[str, torch.Tensor]:
    return {modality: paired(images) for modality, images in snippets(2 * count, seed).items()}


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    return train_denoiser(videos(48), steps=180)


def test_a_denoiser_brings_noisy_snippets_nearer_to_the_real_ones(denoiser):
    real = paired(denoiser.encode(snippets(16, seed=1)))
    noise = torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    for sigma in (0.5, 1.0):
        with torch.no_grad():
            guess = denoiser(real + sigma * noise, torch.full((8,), sigma))
        assert (guess - real).square().mean() < 0.5 * real.square().mean()  # less wrong than to say the mean
        assert (guess - real).square().mean() < 0.2 * sigma**2  # than to leave the noise


def test_a_denoiser_cannot_know_which_snippet_came_first(denoiser):
    noisy, sigma = torch.randn(4, 2, denoiser.components, 12, 16), torch.tensor([0.2, 0.5, 1.0, 2.0])
    with torch.no_grad():
        torch.testing.assert_close(denoiser(noisy.flip(1), sigma), denoiser(noisy, sigma).flip(1))


def test_a_pair_that_is_unlike_real_pairs_fits_worse_and_a_swapped_pair_fits_as_well(denoiser):
    real = [{m: x[i] for m, x in videos(8, seed=1).items()} for i in range(8)]
    for pair in real:
        swapped = {m: x.flip(0) for m, x in pair.items()}
        assert denoiser.misfit(swapped) == pytest.approx(denoiser.misfit(pair), rel=1e-4)
        strange = {m: x.clone() for m, x in pair.items()}
        strange["rgb"][0] = 255 - strange["rgb"][0]  # dark squares, and another ground than in the other snippet
        assert denoiser.misfit(strange) > 1.2 * denoiser.misfit(pair)


def test_what_moves_weighs_as_much_in_the_loss_as_all_that_stands_still():
    real = torch.zeros(1, 2, 3, 10, 10)
    real[0, 1, :, :4, :5] = 1  # a fifth of the pixels
    weight = denoising._weight_of_pixels(real)[0, 0, 0]
    torch.testing.assert_close(weight[:4, :5], torch.full((4, 5), 3.0))
    torch.testing.assert_close(weight[4:], torch.full((6, 10), 0.5))
    assert weight.mean() == 1
    still = torch.zeros_like(real)
    assert (denoising._weight_of_pixels(still) == 0.5).all()


def test_a_snippet_is_denoised_by_what_the_other_shows(denoiser):
    real = paired(denoiser.encode(snippets(16, seed=1)))
    noisy = real + torch.randn(real.shape, generator=torch.Generator().manual_seed(0))
    strange = torch.stack([noisy[:, 0], noisy.roll(1, 0)[:, 1]], 1)  # the other is of a video on another ground
    with torch.no_grad():
        own, others = (denoiser(pair, torch.ones(8))[:, 0] for pair in (noisy, strange))
    assert (own - real[:, 0]).square().mean() < 0.9 * (others - real[:, 0]).square().mean()


def test_values_are_centred_and_as_wide_as_promised(denoiser):
    values = denoiser.encode(snippets(96))
    count = denoiser.components
    assert values.shape == (96, count, 12, 16)
    torch.testing.assert_close(values.mean((0, 2, 3)), torch.zeros(count), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std((0, 2, 3)), torch.full((count,), SPREAD), rtol=0.02, atol=0)


def test_decoding_enlarges_as_torch_does(denoiser):
    values = torch.randn((4, denoiser.components, 12, 16), generator=torch.Generator().manual_seed(3))
    halved = torch.einsum("dc,nchw->ndhw", denoiser.basis / SPREAD, values) + denoiser.mean
    wanted = interpolate(halved, (24, 32), mode="bicubic", align_corners=False).clamp(0, 255)
    torch.testing.assert_close(torch.cat([*denoiser.decode(values, (24, 32)).values()], 1), wanted, atol=1e-3, rtol=0)


def test_what_was_encoded_is_decoded_but_for_its_edges(denoiser):
    real = snippets(4, seed=2)
    decoded = denoiser.decode(denoiser.encode(real), (24, 32))
    assert list(decoded) == ["rgb", "flow"]
    for modality, images in decoded.items():
        assert images.shape == real[modality].shape
        assert 0 <= images.min() <= images.max() <= 255
        assert (images - real[modality]).abs().median() < 1


def test_of_motion_the_two_main_components_are_kept_and_of_frames_what_varies():
    generator = torch.Generator().manual_seed(0)
    grey = torch.rand((8, 1, 24, 32), generator=generator) * 255
    flow = torch.rand((8, 10, 24, 32), generator=generator) * 255
    assert Denoiser.fitted({"rgb": grey.expand(-1, 3, -1, -1), "flow": flow}).components == 1 + 2
    assert Denoiser.fitted({"rgb": flow[:, :3], "flow": flow}).components == 3 + 2


def test_a_kept_denoiser_says_the_same(denoiser, tmp_path):
    path = denoiser_file(tmp_path, "embedded-ucf", 1, ("rgb", "flow"))
    assert path.relative_to(tmp_path).as_posix() == "embedded-ucf/split1/denoiser-rgb-flow.safetensors"
    path.parent.mkdir(parents=True)
    path.write_bytes(packed(denoiser))
    noisy, sigma = torch.randn(2, 2, denoiser.components, 12, 16), torch.tensor([0.5, 2.0])
    with torch.no_grad():
        assert load_denoiser(path)(noisy, sigma).equal(denoiser(noisy, sigma))
    with pytest.raises(IfttnError, match="figures --denoise"):
        load_denoiser(tmp_path / "none.safetensors")


def test_a_file_that_is_no_denoiser_is_named(denoiser, tmp_path):
    path = tmp_path / "denoiser-rgb.safetensors"
    kept = safetensors.torch.load(packed(denoiser))
    for content in (
        b"no weights at all",
        safetensors.torch.save(kept),
        safetensors.torch.save({"enter.weight": kept["enter.weight"]}, {"of": '[{"rgb": 3, "flow": 10}, 3]'}),
    ):
        path.write_bytes(content)
        with pytest.raises(IfttnError, match=r"denoiser-rgb\.safetensors is not a denoiser of this version"):
            load_denoiser(path)


def test_the_same_seed_trains_the_same_denoiser_and_leaves_the_global_one_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (train_denoiser(videos(12), steps=2, seed=seed) for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    assert first.enter.weight.equal(again.enter.weight)
    assert not first.enter.weight.equal(other.enter.weight)


def test_a_training_that_was_cut_off_goes_on_step_for_step(tmp_path, monkeypatch):
    seen, unfinished = videos(12), tmp_path / "denoiser.unfinished"
    whole = train_denoiser(seen, steps=6)
    update, updates = denoising.AveragedModel.update_parameters, []

    def cut_off(self, model):
        updates.append(1)
        if len(updates) == 4:
            raise KeyboardInterrupt
        update(self, model)

    monkeypatch.setattr(denoising, "SAVE_EVERY", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(denoising.AveragedModel, "update_parameters", cut_off)
        with pytest.raises(KeyboardInterrupt):
            train_denoiser(seen, steps=6, unfinished=unfinished)
    assert unfinished.exists()
    with monkeypatch.context() as patch:
        patch.setattr(denoising.AveragedModel, "update_parameters", lambda *of: (updates.append(1), update(*of)))
        resumed = train_denoiser(seen, steps=6, unfinished=unfinished)
    assert len(updates) == 4 + 3  # of six
    assert all(value.equal(whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_what_is_left_of_another_training_is_not_taken_up(tmp_path):
    unfinished = tmp_path / "denoiser.unfinished"
    torch.save({"of": "another", "done": 5}, unfinished)
    wanted, taken = train_denoiser(videos(12), steps=2), train_denoiser(videos(12), steps=2, unfinished=unfinished)
    assert taken.enter.weight.equal(wanted.enter.weight)


def test_frames_that_cannot_be_halved_twice_are_refused():
    with pytest.raises(IfttnError, match="multiples of 4 px, not 34 x 24"):
        train_denoiser({"rgb": torch.zeros(1, 2, 3, 24, 34)})


def test_one_snippet_of_a_video_is_too_few():
    with pytest.raises(IfttnError, match="1 a video"):
        train_denoiser({"rgb": torch.zeros(8, 1, 3, 24, 32)})
