import pytest
import torch

from ifttn.model.peers.tdn import REDUCTION, TDN_FRAMES, LongTerm, TDNStream, tdn
from ifttn.model.peers.tsm import shift

LEVELS = {128: (256, 4), 256: (512, 6), 512: (1024, 3)}  # channels within ResNet-50's blocks -> before them, blocks


def long_term(channels: int) -> int:
    """Parameters by hand: two 1 x 1, a depthwise and two 3 x 3 convolutions with their norms; three taps."""
    few = channels // REDUCTION
    return 2 * channels * few + 9 * few + 2 * 9 * few**2 + 2 * (3 * few + channels) + 3 * channels


def test_tdn_has_the_parameters_of_the_release_and_the_cost_of_the_paper(cost):
    parameters, macs = cost(lambda: tdn(1000), {"rgb": (1, 8, 3 * TDN_FRAMES, 224, 224)})
    short = 49 * 12 * 64 + 2 * 64 + 215_808  # ResNet-50's level 2 is 215 808
    assert parameters == 25_557_032 + short + sum(n * long_term(width) for width, (_, n) in LEVELS.items())
    assert parameters / 1e6 == pytest.approx(26.1, abs=0.05)
    assert macs / 1e9 == pytest.approx(36, abs=0.5)  # the paper's Table 3: 36 GFLOPs of eight frames


def test_the_convolution_over_time_starts_as_tsms_shift():
    torch.manual_seed(0)
    part, x = LongTerm(32).eval(), torch.randn(6, 32, 4, 4)
    torch.nn.init.zeros_(part.get_parameter("expand.0.weight"))  # nothing is excited
    torch.testing.assert_close(part(x, segments=3), shift(x, 3))


def test_snippets_that_are_alike_excite_by_nothing_but_the_smoothing():
    torch.manual_seed(0)
    part = LongTerm(32).eval()
    still = torch.randn(1, 32, 4, 4).repeat(3, 1, 1, 1)
    part.smooth.weight.data.zero_()
    part.smooth.weight.data[:, :, 1, 1] = 1  # smoothed as it was
    torch.testing.assert_close(part(still, segments=3), shift(still, 3))
    moving = torch.randn(3, 32, 4, 4)
    assert not torch.allclose(part(moving, segments=3), shift(moving, 3), atol=1e-3)


def test_frames_of_a_snippet_that_are_alike_add_what_no_change_adds():
    torch.manual_seed(0)
    stream = TDNStream(5, "smallest").eval()
    still = torch.randn(2, 1, 3, 64, 64).repeat(1, TDN_FRAMES, 1, 1, 1)
    shaken = still.clone()
    shaken[:, TDN_FRAMES // 2 + 1 :] *= -1
    changed = []
    stream.short.conv1.register_forward_hook(lambda module, inputs, output: changed.append(inputs[0]))
    with torch.no_grad():
        alike, other = (stream(x.flatten(1, 2), segments=2) for x in (still, shaken))
    assert (changed[0] == 0).all()
    assert changed[1].abs().max() > 0
    assert not torch.allclose(alike, other)  # though the frame in the middle is the same


@pytest.mark.parametrize("part", ["snippets", "frames within snippets"])
def test_a_reversed_video_changes_the_logits(part):
    torch.manual_seed(0)
    video = torch.randint(0, 256, (1, 4, TDN_FRAMES, 3, 64, 64), dtype=torch.uint8)
    network = tdn(5, "smallest").eval()
    turned = video.flip(1 if part == "snippets" else 2)
    with torch.no_grad():
        ahead, back = (network({"rgb": x.flatten(2, 3)}).logits["rgb"] for x in (video, turned))
    assert not torch.allclose(ahead, back, rtol=1e-3)
