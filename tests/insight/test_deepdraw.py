from dataclasses import replace
from itertools import islice, product

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from ifttn.insight.deepdraw import FURTHER_START, DrawingStep, _merits, draw, draw_best, draw_many
from ifttn.insight.drawing_settings import Octave, Settings
from ifttn.insight.embedded.denoiser import Denoiser, train_denoiser
from ifttn.model.network import Network, NetworkSettings
from ifttn.vocabulary import IfttnError

QUICK = Settings(32, (Octave(4, 32, (1.2, 0.6), (11.0, 11.0)), Octave(4, 38, (0.6, 0.4), (6.0, 3.0))))


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    return Network(NetworkSettings(actions=4, backbone="tiny")).eval()


def last(states) -> DrawingStep:
    return list(states)[-1]


@pytest.mark.parametrize(("head", "rgb", "motion"), [("ttn", 2, 2), ("rgb", 1, 0), ("flow", 0, 1)])
def test_a_head_draws_the_snippets_and_modalities_that_it_sees(network, head, rgb, motion):
    state = last(draw(network, 1, QUICK, head=head))
    assert (state.octave, state.step, state.steps) == (1, 8, 8)
    assert state.rgb is None if rgb == 0 else state.rgb.shape == (rgb, 3, 38, 38)
    assert state.motion is None if motion == 0 else state.motion.shape == (motion, 10, 38, 38)


@pytest.mark.parametrize("head", ["ttn", "rgb"])
@pytest.mark.parametrize("objective", ["logit", "contrast", "log-probability"])
def test_what_is_ascended_rises(network, head, objective):
    settings = Settings(64, (Octave(20, 64, (1.2, 0.6), (11.0, 11.0)),), objective)
    first, *_, end = draw_many([network], [(0, 0), (1, 0)], settings, head=head)
    for before, after in zip(first, end, strict=True):
        assert after.logit > before.logit if objective == "logit" else after.probability > before.probability


def test_every_input_of_a_pair_is_drawn(network):
    first, *_, end = draw(network, 0, Settings(64, (Octave(20, 64, (1.2, 0.6), (11.0, 11.0)),)))
    for start, drawn in [(first.rgb, end.rgb), (first.motion, end.motion)]:
        assert ((drawn - start).abs().mean((1, 2, 3)) > 5).all()


def test_every_input_moves_by_the_step_size(network):
    settings = Settings(32, (Octave(1, 32, (1e-3, 1e-3), (7.0, 7.0)),))
    resting = Settings(32, (Octave(1, 32, (1e-3, 1e-3), (0.0, 0.0)),))
    moved, still = last(draw(network, 0, settings)), last(draw(network, 0, resting))
    # The box cuts some of RGB's bright start; motion starts in its middle.
    change = (moved.motion - still.motion).abs().mean((1, 2, 3))
    torch.testing.assert_close(change, torch.full((2,), 7.0), rtol=0.05, atol=0)
    assert ((moved.rgb - still.rgb).abs().mean((1, 2, 3)) > 5).all()


def test_a_drawing_stays_in_the_box(network):
    wild = Settings(32, (Octave(5, 32, (0.5, 0.5), (500.0, 500.0)), Octave(2, 38, (0.5, 0.5), (1.0, 1.0))))
    for state in draw(network, 0, wild):
        for drawn in (state.rgb, state.motion):
            assert drawn.min() >= -1e-3
            assert drawn.max() <= 255 + 1e-3


def test_noise_starts_as_light_paper_and_as_no_motion(network):
    start = last(draw(network, 0, Settings(64, (Octave(1, 64, (1e-3, 1e-3), (0.0, 0.0)),))))
    for drawn, level in [(start.rgb, 200), (start.motion, 128)]:
        assert abs(drawn.mean() - level) < 0.5
        assert abs(drawn.std() - 8) < 0.5
        assert not torch.allclose(drawn[0], drawn[1])


def test_a_seed_repeats_exactly_and_another_draws_anew(network):
    torch.manual_seed(7)
    one = last(draw(network, 2, QUICK, seed=5))
    torch.manual_seed(8)
    same, other = last(draw(network, 2, QUICK, seed=5)), last(draw(network, 2, QUICK, seed=6))
    assert torch.equal(one.rgb, same.rgb)
    assert torch.equal(one.motion, same.motion)
    assert not torch.equal(one.rgb, other.rgb)


def test_a_stopped_drawing_resumes_where_it_stopped(network):
    through = last(draw(network, 2, QUICK))
    states = draw(network, 2, QUICK)
    kept = list(islice(states, 5))[-1]
    copy = kept.rgb.clone()
    torch.rand(9)
    list(draw(network, 1, QUICK))
    resumed = last(states)
    assert torch.equal(resumed.rgb, through.rgb)
    assert torch.equal(resumed.motion, through.motion)
    assert torch.equal(kept.rgb, copy)


def test_drawing_leaves_the_network_as_it_was(network):
    network.train()
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for _ in draw(network, 0, QUICK):
            assert network.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())
    assert all(weight.grad is None for weight in network.parameters())
    network.requires_grad_(False).eval()
    frozen = last(draw(network, 0, QUICK))
    network.requires_grad_(True)
    assert torch.equal(frozen.rgb, last(draw(network, 0, QUICK)).rgb)


def test_a_modality_that_a_head_does_not_see_stays_noise():
    torch.manual_seed(0)
    separate = Network(NetworkSettings(actions=4, fusion="separate", backbone="smallest"))
    state = last(draw(separate, 0, QUICK, head="ttn-rgb"))
    assert (state.motion - 128).abs().max() < 40
    assert (state.rgb - 200).abs().max() > 40


@pytest.mark.parametrize(("action", "head", "names"), [(0, "mv", "rgb, flow, ttn"), (4, "ttn", "0 to 3")])
def test_an_unknown_head_or_action_is_refused_at_once(network, action, head, names):
    with pytest.raises(IfttnError, match=names):
        draw(network, action, QUICK, head=head)


def test_a_batch_draws_what_each_subject_draws_alone(network):
    subjects = [(1, 5), (3, 6)]
    batch = next(draw_many([network], subjects, QUICK))  # later, rounding grows from step to step
    for (action, seed), together in zip(subjects, batch, strict=True):
        alone = next(draw(network, action, QUICK, seed=seed))
        assert (together.rgb - alone.rgb).abs().mean() < 0.1
        assert together.logit == pytest.approx(alone.logit, abs=1e-4)


@pytest.mark.parametrize(("head", "of"), [("spatial", "rgb"), ("temporal", "flow")])
def test_the_objectives_have_the_paper_s_names(network, head, of):
    named, own = last(draw(network, 1, QUICK, head=head)), last(draw(network, 1, QUICK, head=of))
    picture = "rgb" if of == "rgb" else "motion"
    assert torch.equal(getattr(named, picture), getattr(own, picture))


def test_the_late_fusion_of_all_heads_can_be_ascended(network):
    settings = Settings(64, (Octave(15, 64, (1.2, 0.6), (11.0, 11.0)),), objective="contrast")
    states = list(draw(network, 0, settings, head="fused"))
    assert states[-1].probability > states[0].probability
    assert states[-1].rgb.shape[0] == 2


def test_jitter_changes_the_drawing_and_repeats(network):
    plain = Settings(32, (Octave(6, 36, (0.6, 0.4), (8.0, 8.0)),), aspect=4 / 3)
    shaken = replace(plain, shift=4.0, zoom=0.1, turn=10.0)
    one, same = (last(draw(network, 1, shaken, seed=3)) for _ in range(2))
    assert one.rgb.shape == (2, 3, 36, 48)
    assert torch.equal(one.rgb, same.rgb)
    assert not torch.equal(one.motion, last(draw(network, 1, plain, seed=3)).motion)


def test_two_networks_are_drawn_from_at_once(network):
    torch.manual_seed(1)
    other = Network(NetworkSettings(actions=4, backbone="tiny")).eval()
    settings = Settings(64, (Octave(20, 64, (1.2, 0.6), (11.0, 11.0)),), objective="contrast")
    (drawn,) = list(draw_many([network, other], [(2, 0)], settings))[-1]
    for each in (network, other):
        with torch.no_grad():
            said = each({"rgb": drawn.rgb[None], "flow": drawn.motion[None]}).logits["ttn"].softmax(1)[0]
        assert said.argmax() == 2


def test_of_several_starts_the_one_is_kept_that_the_networks_like_best(network):
    settings = replace(QUICK, octaves=QUICK.octaves[:1])
    subjects = [(1, 5), (3, 6)]
    chosen = draw_best([network], subjects, settings, head="ttn", starts=3)
    starts = [
        last(draw_many([network], [(action, seed + FURTHER_START * i) for action, seed in subjects], settings))
        for i in range(3)
    ]
    for (action, _), drawn, each in zip(subjects, chosen, zip(*starts, strict=True), strict=True):
        merits = [_merits([network], None, [start], [(action, 0)])[0] for start in each]
        assert [torch.equal(drawn.rgb, start.rgb) for start in each].index(True) == np.argmax(merits)


DENOISED = Settings(32, (Octave(12, 40, (8.0, 0.1), (3e4, 3e4)),), "log-probability", denoised=True)


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    generator = torch.Generator().manual_seed(0)
    coarse = {m: torch.rand((24, channels, 5, 5), generator=generator) for m, channels in (("rgb", 3), ("flow", 10))}
    videos = {m: 255 * interpolate(x, (40, 40)).unflatten(0, (12, 2)) for m, x in coarse.items()}
    return train_denoiser(videos, steps=45)


@pytest.mark.parametrize(("head", "rgb", "motion"), [("ttn", 2, 2), ("rgb", 1, 0), ("flow", 0, 1)])
def test_a_denoised_drawing_has_what_its_head_sees(network, denoiser, head, rgb, motion):
    states = list(draw(network, 1, DENOISED, head=head, denoiser=denoiser))
    assert [state.step for state in states] == list(range(1, 13))
    assert [state.sigma for state in states] == sorted((state.sigma for state in states), reverse=True)
    assert states[-1].rgb is None if rgb == 0 else states[-1].rgb.shape == (rgb, 3, 40, 40)
    assert states[-1].motion is None if motion == 0 else states[-1].motion.shape == (motion, 10, 40, 40)


def test_the_network_guides_what_the_denoiser_draws(network, denoiser):
    deaf = replace(DENOISED, octaves=(Octave(12, 40, (8.0, 0.1), (0.0, 0.0)),))
    subjects = list(product(range(4), range(4)))
    guided, alone = (
        last(draw_many([network], subjects, each, head="rgb", denoiser=denoiser)) for each in (DENOISED, deaf)
    )
    assert not any(one.rgb.equal(other.rgb) for one, other in zip(guided, alone, strict=True))
    gains = [one.probability > other.probability for one, other in zip(guided, alone, strict=True)]
    assert sum(gains) >= 14  # of 16, by a network of random weights, which sees another crop each step


def test_a_denoised_drawing_repeats_from_its_seed_alone_or_in_company(network, denoiser):
    alone = last(draw(network, 2, DENOISED, seed=3, denoiser=denoiser))
    again = last(draw(network, 2, DENOISED, seed=3, denoiser=denoiser))
    *_, (first, second) = draw_many([network], [(2, 3), (2, 4)], DENOISED, denoiser=denoiser)
    assert alone.rgb.equal(again.rgb)
    torch.testing.assert_close(first.rgb, alone.rgb, atol=0.5, rtol=0)
    assert not torch.allclose(second.rgb, alone.rgb, atol=5.0)


def test_what_a_denoiser_cannot_do_is_said(network, denoiser):
    with pytest.raises(IfttnError, match="no denoiser to draw with"):
        draw(network, 0, DENOISED)
    with pytest.raises(IfttnError, match="the denoiser is for rgb, the network for rgb and flow"):
        draw(network, 0, DENOISED, denoiser=Denoiser({"rgb": 3}, 3))
    twice = replace(DENOISED, octaves=(*DENOISED.octaves, Octave(2, 48, (1.0, 0.1), (1.0, 1.0))))
    with pytest.raises(IfttnError, match="keep one size"):
        last(draw(network, 0, twice, denoiser=denoiser))
