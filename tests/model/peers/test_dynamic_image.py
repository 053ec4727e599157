import torch
from hypothesis import given
from hypothesis import strategies as st

from ifttn.model.peers.dynamic_image import DIN_FRAMES, RankPooling, dynamic_image_network, rank_coefficients


@given(st.integers(1, 40))
def test_the_coefficients_are_the_first_step_of_ranking_by_time(frames):
    values = torch.rand(frames, generator=torch.Generator().manual_seed(frames), dtype=torch.float64)
    means = values.cumsum(0) / torch.arange(1, frames + 1)
    step = sum((means[q] - means[t] for q in range(frames) for t in range(q)), start=torch.zeros((), dtype=means.dtype))
    torch.testing.assert_close((rank_coefficients(frames).double() * values).sum(), step, atol=1e-4, rtol=1e-5)


def test_the_coefficients_of_two_frames_are_their_halved_difference():
    torch.testing.assert_close(rank_coefficients(2), torch.tensor([-0.5, 0.5]))


def test_a_static_video_has_an_empty_dynamic_image():
    frames = torch.rand(1, 3, 8, 8).repeat(1, DIN_FRAMES, 1, 1)
    assert RankPooling(DIN_FRAMES)(frames).abs().max() < 1e-2


def test_what_appears_is_bright_and_what_vanishes_is_dark():
    frames = torch.zeros(1, DIN_FRAMES, 3, 4, 4)
    frames[:, DIN_FRAMES // 2 :, :, 0, 0] = 1
    frames[:, : DIN_FRAMES // 2, :, 3, 3] = 1
    image = RankPooling(DIN_FRAMES)(frames.flatten(1, 2))
    assert (image[0, :, 0, 0] > 0).all()
    assert (image[0, :, 3, 3] < 0).all()
    assert image.abs().max() == 2


def test_a_snippet_of_ten_frames_is_one_vote():
    net = dynamic_image_network(5, size=64, width=12).eval()
    output = net({"rgb": torch.randint(0, 256, (2, 3, 3 * DIN_FRAMES, 64, 64), dtype=torch.uint8)})
    assert output.votes["rgb"].shape == (2, 3, 5)
