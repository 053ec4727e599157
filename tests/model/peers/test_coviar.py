import pytest
import torch
from torchvision.models import resnet152

from ifttn.model.peers.coviar import P_FRAMES, accumulate, coviar, gop_inputs, residuals

PAN = torch.tensor([2.0, 1.0])


def pan(frames):
    """A random picture, and where it stands in each of so many later frames, with the fields between them."""
    picture = torch.rand(3, 40, 40, generator=torch.Generator().manual_seed(0)) * 255
    moved = torch.stack([picture.roll((t, 2 * t), dims=(1, 2)) for t in range(1, frames + 1)])
    return picture, moved, PAN.view(1, 2, 1, 1).expand(frames, 2, 40, 40)


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


def test_vectors_of_a_constant_pan_grow_linearly_back_to_the_i_frame():
    _, _, fields = pan(4)
    accumulated = accumulate(fields)
    for t in range(4):
        inner = accumulated[t, :, 10:, 10:].flatten(1)
        torch.testing.assert_close(inner, ((t + 1) * PAN)[:, None].expand_as(inner))


def test_a_pixel_is_followed_back_through_different_vectors():
    fields = torch.zeros(2, 2, 1, 8)
    fields[0, 0, 0, 3] = 2  # from 1 to 3
    fields[1, 0, 0, 5] = 2  # from 3 to 5
    assert accumulate(fields)[1, 0, 0].tolist() == [0, 0, 0, 2, 0, 4, 0, 0]


def test_a_pan_leaves_no_residual_where_the_picture_was_already():
    picture, moved, fields = pan(4)
    left = residuals(picture, moved, accumulate(fields))
    assert (left[:, :, 10:, 10:] == 0).all()
    assert left.abs().max() > 0


def test_a_still_group_of_pictures_is_bytes_of_nothing_but_its_i_frame():
    frames = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8).repeat(4, 1, 1, 1)
    inputs = gop_inputs(frames, torch.zeros(3, 2, 16, 16))
    assert torch.equal(inputs["rgb"], frames[:1])
    assert (inputs["accumulated"] == 128).all()
    assert (inputs["residual"] == 128).all()


def test_a_group_of_pictures_is_one_vote_for_its_i_frame_and_one_for_each_other():
    picture, moved, fields = pan(3)
    inputs = gop_inputs(torch.cat([picture[None], moved]).byte(), fields)
    net = coviar(5, "smallest", "smallest").eval()
    votes = net({m: x[None] for m, x in inputs.items()}).votes
    assert {head: v.shape[1] for head, v in votes.items()} == {"rgb": 1, "accumulated": 3, "residual": 3}
