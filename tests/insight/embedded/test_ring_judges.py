import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from ifttn.data import diagnostic
from ifttn.insight.embedded import ring_judges
from ifttn.insight.embedded.ring_judges import FactorJudges, RingJudge, RingJury, rendered_frames, train_judge
from ifttn.insight.order import Pair


def test_rendered_frames_show_both_phases_of_every_video():
    frames, rings = rendered_frames(5, videos=16)
    assert frames.shape == (64, 72, 96, 3)
    assert rings.reshape(16, 4).sum(1).tolist() == [2.0] * 16
    assert (rings.reshape(16, 4)[:, 0] == rings.reshape(16, 4)[:, 1]).all()


def test_a_judge_does_not_hear_colour_or_brightness():
    torch.manual_seed(0)
    judge, images = RingJudge().eval(), torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        torch.testing.assert_close(judge(images), judge(images * 0.5 + 40), rtol=1e-3, atol=1e-3)


def test_a_judge_tells_rings_from_discs_that_it_never_saw():
    judge = train_judge(videos=32, steps=120)
    frames, rings = rendered_frames(99, videos=16)
    with torch.no_grad():
        said = judge(torch.from_numpy(frames).permute(0, 3, 1, 2).float()) > 0
    assert np.mean(said.numpy() == (rings > 0)) > 0.9


def test_a_jury_gives_the_mean_of_its_judges():
    torch.manual_seed(0)
    judges, images = [RingJudge().eval() for _ in range(3)], torch.rand(2, 3, 64, 64) * 255
    with torch.no_grad():
        said = torch.stack([judge(images) for judge in judges])
        torch.testing.assert_close(RingJury(judges).eval()(images), said.mean(0))


def test_a_panel_knows_real_pairs_in_order_swapped_and_of_another_scene(monkeypatch):
    plan = diagnostic.plan_videos("ucf", 32, seed=7)
    actions = sorted(plan.action.unique())
    monkeypatch.setattr(ring_judges, "train_jury", lambda _: RingJury([train_judge(videos=32, steps=120)]))
    panel, right = FactorJudges(plan, actions), []
    for _, row in plan.iloc[:16].iterrows():
        film = torch.from_numpy(diagnostic.render(row)[[4, row.frames - 5]]).permute(0, 3, 1, 2).float()
        frames = interpolate(film, (72, 96), mode="area")
        action = actions.index(row.action)
        in_order, swapped = (panel(Pair(action, 0, {"rgb": x})) for x in (frames, frames.flip(0)))
        assert swapped["margin"] == pytest.approx(-in_order["margin"], abs=1e-4)
        assert in_order["scene"] == 1.0
        assert panel(Pair((action + 8) % 16, 0, {"rgb": frames}))["scene"] == 0.0
        right.append((in_order["margin"] > 0, in_order["balls"]))
    assert sum(margin for margin, _ in right) >= 13
    assert np.mean([balls for _, balls in right]) > 0.8
    grey = panel(Pair(0, 0, {"rgb": torch.full((2, 3, 72, 96), 90.0)}))
    assert grey["balls"] == 0.0
