import pytest
import torch

from ifttn.model.peers.c3d import C3D, C3D_FRAMES, c3d


def test_c3d_has_its_known_size_and_cost(cost):
    parameters, macs = cost(lambda: C3D(101), (1, 3 * C3D_FRAMES, 112, 112))
    assert parameters == 78_409_573  # by hand: 27 655 936 of convolutions, 50 753 637 of linear layers
    assert macs / 1e9 == pytest.approx(38.5, abs=0.1)  # introduction of Zhu et al., arXiv 1906.04226


def test_the_hidden_layers_follow_the_size_of_the_images():
    net = c3d(5, size=64, width=4).eval()
    output = net({"rgb": torch.randint(0, 256, (1, 2, 3 * C3D_FRAMES, 64, 64), dtype=torch.uint8)})
    assert output.votes["rgb"].shape == (1, 2, 5)


def test_the_order_of_the_frames_matters():
    torch.manual_seed(0)
    net = C3D(5, size=32, width=4).eval()
    frames = torch.randn(1, C3D_FRAMES, 3, 32, 32)
    ahead, back = net(frames.flatten(1, 2)), net(frames.flip(1).flatten(1, 2))
    assert not torch.allclose(ahead, back, atol=1e-6)
