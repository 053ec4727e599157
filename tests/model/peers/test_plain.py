import pytest
import torch

from ifttn.model.peers.plain import CAFFENET, CNN_M_2048, Fit, plain

MEGABYTE = 2**20 / 4  # parameters in one, at four bytes each


def test_caffenet_has_its_known_size_and_cost(cost):
    # convnet-burden's table: 233 MB and 724 M; its images are 227 pixels wide where the first layer sees them.
    parameters, macs = cost(lambda: plain(CAFFENET, Fit(3, 1000, size=227)), (1, 3, 227, 227))
    assert round(parameters / MEGABYTE) == 233
    assert macs / 1e6 == pytest.approx(724, abs=1)


def test_cnn_m_2048_has_its_known_size_and_cost(cost):
    # convnet-burden's table (vgg-m-2048): 353 MB and 2 G. The cost to the digit is ours, from Chatfield's Table 1.
    parameters, macs = cost(lambda: plain(CNN_M_2048, Fit(3, 1000)), (1, 3, 224, 224))
    assert round(parameters / MEGABYTE) == 353
    convolutions = 109**2 * 49 * 3 * 96 + 26**2 * 25 * 96 * 256 + 13**2 * 9 * (256 * 512 + 2 * 512 * 512)
    assert macs == convolutions + 512 * 36 * 4096 + 4096 * 2048 + 2048 * 1000
    assert round(macs / 1e9) == 2


@pytest.mark.parametrize("plan", [CAFFENET, CNN_M_2048])
def test_a_narrow_network_takes_small_images(plan):
    assert plain(plan, Fit(6, 5, size=64, width=12)).eval()(torch.randn(2, 6, 64, 64)).shape == (2, 5)
