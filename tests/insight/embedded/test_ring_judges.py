import numpy as np
import torch

from ifttn.insight.embedded.ring_judges import RingJudge, RingJury, rendered_frames, train_judge


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
