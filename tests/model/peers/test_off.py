import torch

from ifttn.model.peers.off import OFF, OFFLayer, OFFStream
from ifttn.model.peers.tsn import BNInception

# What the sub-network adds, layer by layer of the release's deploy_tpl.prototxt: (channels in, out, kernel, side out).
ENTERING = [(256, 28), (320, 28), (576, 14), (576, 14), (576, 14), (608, 14), (608, 14), (1024, 7), (1024, 7)]
BEHIND = [
    (320, 64, 7, 14),
    *[(64, 64, 1, 14), (64, 64, 3, 14), (64, 256, 1, 14), (64, 256, 1, 14)],
    *[(256, 64, 1, 14), (64, 64, 3, 14), (64, 256, 1, 14)] * 2,
    (800 + 256, 128, 5, 7),
    *[(128, 128, 1, 7), (128, 128, 3, 7), (128, 512, 1, 7), (128, 512, 1, 7)],
    *[(512, 128, 1, 7), (128, 128, 3, 7), (128, 512, 3, 7)],
    (320 + 512, 256, 3, 7),
    *[(256, 256, 1, 7), (256, 256, 3, 7), (256, 1024, 1, 7), (256, 1024, 1, 7)],
    *[(256, 101, 1, 1), (512, 101, 1, 1), (1024, 101, 1, 1)],
]


def test_the_sub_network_has_the_size_and_cost_of_the_releases_layers(cost):
    # The paper gives neither; both are counted by hand from the table above, K = 7.
    base, base_macs = cost(lambda: BNInception(3, 101), (7, 3, 224, 224))
    inputs = {"rgb": (1, 7, 3, 224, 224)}
    parameters, macs = cost(lambda: OFF(101, ("rgb",)), inputs)
    assert parameters - base == sum((c + 1) * 160 for c, _ in ENTERING) + sum(
        (c * k * k + 1) * n for c, n, k, _ in BEHIND
    )
    temporal, spatial, kernel = 7 * 128, 6 * 32, 6 * 32 * 9  # seven snippets reduced, six gradients, fixed kernels
    entering = sum(side**2 * (c * (temporal + spatial) + kernel) for c, side in ENTERING)
    assert macs - base_macs == entering + 6 * sum(c * n * k * k * side**2 for c, n, k, side in BEHIND)


def layer(channels=8, width=16):
    torch.manual_seed(0)
    return OFFLayer(channels, width).eval()


def test_a_static_video_has_no_temporal_term():
    features = torch.randn(1, 8, 6, 6).repeat(3, 1, 1, 1)
    motion = layer()(features, segments=3)
    assert motion.shape == (2, 8 + 32, 6, 6)
    assert (motion[:, 8:] == 0).all()
    assert motion[:, :8].abs().max() > 0


def test_two_snippets_swapped_negate_the_temporal_term():
    features = torch.randn(2, 8, 6, 6)
    ahead, back = layer()(features, segments=2), layer()(features.flip(0), segments=2)
    torch.testing.assert_close(ahead[:, 8:], -back[:, 8:])


def test_the_spatial_term_is_the_slope_of_the_earlier_snippet():
    off = OFFLayer(channels=1, width=2)
    with torch.no_grad():
        off.spatial.weight.fill_(1)
        off.spatial.bias.zero_()
    slope = 3 * torch.arange(6.0).expand(1, 1, 6, 6)  # rising along x
    features = torch.cat([slope, slope.mT, torch.zeros(1, 1, 6, 6)])
    along_x, along_y = off.eval()(features, segments=3)[:, 0, 1:-1, 1:-1]
    assert (along_x == 2 * 3).all()
    assert (along_y == -2 * 3).all()


def test_pairs_vote_at_every_level_and_snippets_in_the_base():
    net = OFF(5, width=8).eval()
    inputs = {
        "rgb": torch.randint(0, 256, (2, 3, 3, 64, 64), dtype=torch.uint8),
        "rgbdiff": torch.randint(0, 256, (2, 3, 15, 64, 64), dtype=torch.uint8),
    }
    votes = net(inputs).votes
    assert set(votes) == {*net.scoring}
    for head, vote in votes.items():
        assert vote.shape == (2, 2 if head.startswith("off") else 3, 5)


def test_the_base_is_tsn_with_the_same_weights():
    torch.manual_seed(0)
    stream = OFFStream(3, 5, width=8).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(stream.votes(stream.base.features(images), 2)["base"], stream.base(images))
