import torch
from torch import nn

from ifttn.model.peers.emv import EMV_FIELDS, emv_cnn


def test_the_two_networks_differ_in_input_and_activation_alone(cost):
    inputs = {"rgb": (1, 1, 3, 224, 224), "mv": (1, 1, 2 * EMV_FIELDS, 224, 224)}
    parameters, macs = cost(lambda: emv_cnn(101), inputs)
    spatial, spatial_macs = cost(lambda: emv_cnn(101).streams["rgb"], (1, 3, 224, 224))
    prelu = 96 + 256 + 3 * 512 + 4096 + 2048
    assert parameters == 2 * spatial + 17 * 49 * 96 + prelu
    assert macs == 2 * spatial_macs + 109**2 * 17 * 49 * 96


def test_motion_vectors_have_a_network_of_their_own():
    net = emv_cnn(5, size=64, width=12).eval()
    assert sum(isinstance(m, nn.PReLU) for m in net.streams["mv"].modules()) == 7
    inputs = {
        "rgb": torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8),
        "mv": torch.randint(0, 256, (2, 3, 2 * EMV_FIELDS, 64, 64), dtype=torch.uint8),
    }
    assert {head: tuple(v.shape) for head, v in net(inputs).votes.items()} == {"rgb": (2, 3, 5), "mv": (2, 3, 5)}
