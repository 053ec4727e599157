import pytest
import torch
from torchvision.models import resnet50

from ifttn.model.backbone import build_backbone
from ifttn.model.network import Network, NetworkSettings
from ifttn.model.peers.tsm import TSMStream, shift, tsm


def test_an_eighth_of_the_channels_moves_forward_and_an_eighth_back_with_zero_at_the_ends():
    x = torch.randn(2 * 4, 16, 3, 5)
    moved, x = shift(x, 4).unflatten(0, (2, 4)), x.unflatten(0, (2, 4))
    assert torch.equal(moved[:, :-1, :2], x[:, 1:, :2])
    assert (moved[:, -1, :2] == 0).all()
    assert torch.equal(moved[:, 1:, 2:4], x[:, :-1, 2:4])
    assert (moved[:, 0, 2:4] == 0).all()
    assert torch.equal(moved[:, :, 4:], x[:, :, 4:])


def test_tsm_has_the_parameters_and_the_cost_of_resnet_50(cost):
    parameters, macs = cost(lambda: tsm(1000), {"rgb": (1, 8, 3, 224, 224)})
    plain, plain_macs = cost(resnet50, (8, 3, 224, 224))
    assert (parameters, macs) == (plain, plain_macs)
    assert plain == 25_557_032  # torchvision's documentation
    assert cost(lambda: tsm(400), {"rgb": (1, 1, 3, 224, 224)})[0] == 24_327_632  # mmaction's model zoo, Kinetics-400


@pytest.mark.parametrize("backbone", ["smallest", "resnet50"])
def test_of_one_snippet_only_the_channels_that_stay_are_seen(backbone):
    """The weights that read shifted channels are set to zero: what remains is the plain network."""
    torch.manual_seed(0)
    stream, images = TSMStream(5, backbone).eval(), torch.randn(2, 3, 64, 64)
    plain = build_backbone(backbone, 3).eval()
    plain.load_state_dict(stream.backbone.state_dict())
    with torch.no_grad():
        for network in (stream.backbone, plain):
            for block in network.blocks():
                block.conv1.weight[:, : 2 * (block.conv1.in_channels // 8)] = 0
        torch.testing.assert_close(stream(images, segments=1), stream.head(plain(images)[5]))


def test_a_reversed_video_changes_the_logits_of_tsm_and_not_those_of_tsn():
    torch.manual_seed(0)
    video = torch.randint(0, 256, (1, 4, 3, 64, 64), dtype=torch.uint8)
    tsn = Network(NetworkSettings(5, ("rgb",), None, backbone="smallest"))
    for network, same in ((tsm(5, "smallest"), False), (tsn, True)):
        with torch.no_grad():
            ahead, back = (network.eval()({"rgb": x}).logits["rgb"] for x in (video, video.flip(1)))
        assert torch.allclose(ahead, back, rtol=1e-4, atol=1e-7) == same
