import pytest
import torch
from torchvision.models import resnet152

from ifttn.model.peers.coviar import P_FRAMES, coviar


def test_the_networks_have_their_known_size_and_a_frame_the_cost_that_the_paper_says(cost):
    gop = {
        "rgb": (1, 1, 3, 224, 224),
        "accumulated": (1, P_FRAMES, 2, 224, 224),
        "residual": (1, P_FRAMES, 3, 224, 224),
    }
    parameters, macs = cost(lambda: coviar(1000), gop)
    deep, deep_macs = cost(resnet152, (1, 3, 224, 224))
    assert deep == 60_192_808  # torchvision's documentation, as is 11 689 512 of ResNet-18
    stems, norms = -49 * 64, 2 * 2 + 2 * 3  # one plane less of vectors; batch normalisation of both inputs
    assert parameters == deep + 2 * 11_689_512 + stems + norms
    assert deep_macs / (macs / (1 + P_FRAMES)) == pytest.approx(2.7, abs=0.05)  # abstract of arXiv 1712.00636


def test_a_group_of_pictures_is_one_vote_for_its_i_frame_and_one_for_each_other():
    net = coviar(5, "smallest", "smallest").eval()
    shapes = {"rgb": (1, 1, 3, 40, 40), "accumulated": (1, 3, 2, 40, 40), "residual": (1, 3, 3, 40, 40)}
    votes = net({m: torch.randint(0, 256, shape, dtype=torch.uint8) for m, shape in shapes.items()}).votes
    assert {head: v.shape[1] for head, v in votes.items()} == {"rgb": 1, "accumulated": 3, "residual": 3}
