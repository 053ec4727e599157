from dataclasses import replace
from pathlib import Path

import pytest

from ifttn.experiment import testing, training
from ifttn.experiment.leakage import refuse_leak
from ifttn.vocabulary import IfttnError, Split, Video


def split(actions=3, groups=8, each=2):
    videos = tuple(
        Video(f"a{a}/g{g}_{i}", Path(f"g{g}_{i}.avi"), f"a{a}", a, f"a{a}/g{g}")
        for a in range(actions)
        for g in range(groups)
        for i in range(each)
    )
    return Split("d", 1, tuple(f"a{a}" for a in range(actions)), train=videos, test=())


def test_a_video_that_was_trained_on_is_not_tested_on():
    videos = split().train
    refuse_leak({"a0/other"}, videos, "it")
    with pytest.raises(IfttnError, match=r"was trained on 1 of the videos .*the first is a1/g0_0"):
        refuse_leak({"a1/g0_0"}, videos, "the network")


def test_a_trained_network_knows_its_videos_and_those_of_its_parents(embedded, tmp_path):
    work = embedded.work(tmp_path)
    run = training.train(work, "spatial")
    assert run.trained_on == {video.name for video in work.split.train}
    swapped = replace(work, split=replace(work.split, train=work.split.test, test=work.split.train))
    with pytest.raises(IfttnError, match="was trained on 16 of the videos"):
        testing.test(swapped, "spatial")
    assert not run.tested
    with pytest.raises(IfttnError, match="temporal starts from spatial, which was trained on 16"):
        training.train(swapped, "temporal")
    assert testing.test(work, "spatial").tested
    with pytest.raises(IfttnError, match="held nothing out of training: train one with --hold-out"):
        testing.score_held_out(work, "spatial")


def test_held_out_videos_are_scored_and_not_trained_on(embedded, tmp_path):
    # Two videos an action, one on each side of the split: together they are two groups to train on.
    work = embedded.work(tmp_path)
    both = replace(work.split, train=(*work.split.train, *work.split.test), test=())
    run = training.train(replace(work, split=both, hold_out=0.5), "spatial")
    assert len(run.trained_on) == 16
    assert run.metrics().held_out.between(0, 1).all()
    held = testing.score_held_out(replace(work, split=both), "spatial")
    assert len(held.videos) == 16
    assert not set(held.videos) & run.trained_on
    with pytest.raises(IfttnError, match="hold_out differ"):
        training.train(replace(work, split=both), "spatial")
