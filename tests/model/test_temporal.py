import torch
from torch import nn

from ifttn.model.backbone import build_backbone
from ifttn.model.temporal import Average, TemporalRelation, TemporalTransformation, change, pairs


def pyramid(snippets, seed=0, channels=8, side=16):
    generator = torch.Generator().manual_seed(seed)
    return {
        level: torch.rand(
            snippets, channels * 2 ** (level - 2), side >> (level - 2), side >> (level - 2), generator=generator
        )
        for level in (2, 3, 4, 5)
    }


def test_pairs_are_neighbours_of_one_video_in_order():
    numbered = torch.arange(8.0).view(8, 1, 1, 1)  # two videos of four segments
    earlier, later = pairs(numbered, segments=4)
    assert earlier.flatten().tolist() == [0, 1, 2, 4, 5, 6]
    assert later.flatten().tolist() == [1, 2, 3, 5, 6, 7]


def test_equal_snippets_have_no_change_and_a_swap_negates_it():
    x = torch.rand(2, 3, 4, 4)
    assert torch.equal(change(x, 2), -change(x.flip(0), 2))
    assert (change(x[:1].repeat(2, 1, 1, 1), 2) == 0).all()


def test_ttn_gets_and_gives_back_features_with_channels_last():
    ttn, seen = TemporalTransformation("smallest").to(memory_format=torch.channels_last), []
    for part in ttn.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    fused = {level: x.to(memory_format=torch.channels_last) for level, x in pyramid(2 * 3).items()}
    for x in fused.values():
        x.requires_grad_().register_hook(seen.append)
    ttn(fused, segments=3)[5].sum().backward()
    assert len(seen) == 9 + 3  # three blocks of three convolutions; gradients of three levels
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


def test_ttn_says_one_and_the_same_of_any_repeated_snippet():
    ttn = TemporalTransformation("smallest").eval()
    with torch.no_grad():
        first, second = (
            ttn({level: x[:1].repeat(2, 1, 1, 1) for level, x in pyramid(1, seed).items()}, 2)[5] for seed in (1, 2)
        )
    assert torch.equal(first, second)


def test_ttn_is_equation_5_written_out():
    ttn = TemporalTransformation("smallest").eval()
    f = pyramid(2)
    with torch.no_grad():
        r = ttn(f, segments=2)
        r3 = ttn.layer2(f[2][1:] - f[2][:1])
        r4 = ttn.layer3((f[3][1:] - f[3][:1]) + r3)
        r5 = ttn.layer4((f[4][1:] - f[4][:1]) + r4)
    for level, expected in ((3, r3), (4, r4), (5, r5)):
        torch.testing.assert_close(r[level], expected)


def test_ttn_takes_the_levels_of_a_stream_as_they_are():
    stream, ttn = build_backbone("smallest", channels=3), TemporalTransformation("smallest")
    levels = {
        key: value for key, value in stream.state_dict().items() if key.startswith(("layer2", "layer3", "layer4"))
    }
    ttn.load_state_dict(levels)
    assert all(torch.equal(ttn.state_dict()[key], value) for key, value in levels.items())


def test_average_votes_do_not_know_order_and_ttn_and_trn_do():
    torch.manual_seed(0)
    f = pyramid(3)
    backwards = {level: x.flip(0) for level, x in f.items()}
    for part, knows in (
        (Average("smallest"), False),
        (TemporalTransformation("smallest"), True),
        (TemporalRelation("smallest"), True),
    ):
        part.eval()
        with torch.no_grad():
            ahead, back = (part(x, 3)[5].mean((2, 3)).sort(0).values for x in (f, backwards))
        assert torch.allclose(ahead, back) is not knows
