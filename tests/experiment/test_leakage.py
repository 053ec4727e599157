from dataclasses import replace

import pytest

from ifttn.experiment import testing, training
from ifttn.experiment.leakage import refuse_leak
from ifttn.vocabulary import IfttnError


def test_a_video_that_was_trained_on_is_not_tested_on(embedded):
    videos = embedded.split.test
    refuse_leak({"another"}, videos, "it")
    with pytest.raises(IfttnError, match=f"was trained on 1 of the videos .*the first is {videos[7].name}"):
        refuse_leak({videos[7].name}, videos, "the network")


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
