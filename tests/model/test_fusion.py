import torch

from ifttn.model.fusion import FUSIONS, Adaptive, Additive, Attention, Multiplicative


def pyramid(seed):
    generator = torch.Generator().manual_seed(seed)
    return {level: torch.rand(3, 4 * level, 8, 8, generator=generator) for level in (2, 3, 4, 5)}


def equal(p, q):
    return p.keys() == q.keys() and all(torch.equal(p[level], q[level]) for level in p)


def test_adaptive_fusion_starts_as_attention():
    a, b = pyramid(0), pyramid(1)
    assert equal(Adaptive()(a, b), Attention()(a, b))


def test_adaptive_fusion_is_additive_and_multiplicative_at_their_weights():
    a, b, fusion = pyramid(0), pyramid(1), Adaptive()
    for weights, sibling in (((1, 1, 0), Additive()), ((0, 0, 1), Multiplicative())):
        fusion.alpha.data[:] = torch.tensor(weights)
        assert equal(fusion(a, b), sibling(a, b))


def test_attention_keeps_appearance_where_nothing_moves():
    a = pyramid(0)
    still = {level: torch.zeros_like(x) for level, x in a.items()}
    assert equal(Attention()(a, still), a)
    assert all((x == 0).all() for x in Multiplicative()(a, still).values())


def test_every_fusion_keeps_the_shapes_and_passes_gradients_to_both_streams():
    for build in FUSIONS.values():
        a, b = pyramid(0), pyramid(1)
        for x in (*a.values(), *b.values()):
            x.requires_grad_()
        fusion = build()
        if isinstance(fusion, Adaptive):
            fusion.alpha.data[:, 1] = 0.5
        fused = fusion(a, b)
        sum(x.sum() for x in fused.values()).backward()
        assert all(fused[level].shape == a[level].shape for level in a)
        assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in (*a.values(), *b.values()))


def test_attention_keeps_nothing_for_backward_but_the_features_themselves():
    a, b = (torch.rand(1, 4, 8, 8).half().requires_grad_() for _ in range(2))
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.data_ptr()), lambda _: None):
        fused = Attention()({2: a}, {2: b})[2]
    assert fused.dtype == torch.float16
    assert set(kept) == {a.data_ptr(), b.data_ptr()}
