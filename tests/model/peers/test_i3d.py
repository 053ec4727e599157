import pytest
import torch
from torch import nn

from ifttn.model.peers.i3d import I3D, I3D_FRAMES, inflate


def test_a_stream_has_the_size_and_the_cost_of_the_release(cost):
    # OpenVINO's model card of i3d-rgb-tf, made from the release: 12.69 M, 278.981 GFLOPs of 79 frames, two a
    # multiply-add, poolings and biases included.
    parameters, macs = cost(lambda: I3D(3, 400), (1, 3 * 79, 224, 224))
    assert parameters / 1e6 == pytest.approx(12.69, abs=0.01)
    assert macs / 1e9 == pytest.approx(278.981 / 2, rel=0.005)


def test_a_snippet_costs_what_others_report(cost):
    # 108 G in the introduction of Zhu et al., "FASTER recurrent networks", arXiv 1906.04226.
    assert cost(lambda: I3D(3, 400), (1, 3 * I3D_FRAMES, 224, 224))[1] / 1e9 == pytest.approx(108, rel=0.03)


def test_a_video_of_one_image_repeated_answers_as_the_image_does():
    torch.manual_seed(0)
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    image = torch.randn(2, 3, 8, 8)
    expected = flat(image)
    deep = inflate(flat)
    video = image[:, :, None].expand(-1, -1, 5, -1, -1)
    torch.testing.assert_close(deep(video)[:, :, 2], expected)


def test_a_quarter_of_the_width_has_a_sixteenth_of_the_convolutions_weights():
    def weights(net: nn.Module) -> int:
        convolutions = [layer for layer in net.modules() if isinstance(layer, nn.Conv3d)]
        return sum(layer.weight.numel() for layer in convolutions[1:])  # the first one's inputs stay as they are

    wide, quarter = I3D(3, 5), I3D(3, 5, width=16)
    assert weights(wide) == 16 * weights(quarter)
    with torch.no_grad():
        assert quarter.eval()(torch.randn(1, 8 * 3, 32, 32)).shape == (1, 5)


@pytest.mark.parametrize("channels", [3, 2])
def test_time_is_halved_three_times_and_votes_come_of_any_length(channels):
    net = I3D(channels, 5).eval()
    with torch.no_grad():
        x = torch.randn(1, 16 * channels, 32, 32)
        assert net(x).shape == (1, 5)
        assert net.trunk(x.unflatten(1, (-1, channels)).transpose(1, 2)).shape == (1, 1024, 2, 1, 1)
        assert net(x[:, : 8 * channels]).shape == (1, 5)
