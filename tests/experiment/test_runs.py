import json
from dataclasses import replace

import pandas as pd
import pytest

from ifttn.experiment.metrics import shortfalls
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES
from ifttn.experiment.runs import Run, identity_of
from ifttn.vocabulary import IfttnError


def begun(folder, **changes):
    run = Run(folder)
    where = {"dataset": "d", "split": 1, "seed": 0, "actions": ("a", "b"), **changes}
    run.begin(identity_of("spatial", RECIPES["spatial"], "tiny", PRESETS["tiny"], **where))
    return run


def test_a_run_folder_says_how_to_rebuild_its_preset(tmp_path):
    for name, preset in PRESETS.items():
        run = Run(tmp_path / name)
        run.begin(
            identity_of("spatial", RECIPES["spatial"], name, preset, dataset="d", split=1, seed=0, actions=("a",))
        )
        own = replace(preset, schedules={"spatial": preset.schedules["spatial"]}, peers=None)
        assert json.dumps(run.preset(), default=vars) == json.dumps(own, default=vars)


def test_the_same_run_may_begin_again_and_another_may_not(tmp_path):
    begun(tmp_path)
    begun(tmp_path)
    with pytest.raises(IfttnError, match=r"another run \(its split, actions"):
        begun(tmp_path, split=2, actions=("a",))


def test_the_length_of_a_stage_that_a_run_does_not_have_is_not_its_concern(tmp_path, monkeypatch):
    begun(tmp_path)
    tiny = PRESETS["tiny"]
    monkeypatch.setitem(PRESETS, "tiny", replace(tiny, schedules={**tiny.schedules, "ttn": tiny.schedules["joint"]}))
    begun(tmp_path)
    longer = {**tiny.schedules, "spatial": replace(tiny.schedules["spatial"], epochs=99)}
    monkeypatch.setitem(PRESETS, "tiny", replace(tiny, schedules=longer))
    with pytest.raises(IfttnError, match=r"its preset_row\.schedules\.spatial\.epochs differ"):
        begun(tmp_path)


def test_an_epoch_that_was_trained_twice_counts_once(tmp_path):
    run = begun(tmp_path)
    for epoch, loss in ((0, 3.0), (1, 2.0), (1, 2.5)):
        run.log({"stage": "spatial", "epoch": epoch, "loss": loss})
    pd.testing.assert_series_equal(run.metrics().loss, pd.Series([3.0, 2.5], name="loss"))


def test_a_stage_that_ended_short_of_what_is_usual_is_named(tmp_path):
    run = Run(tmp_path)
    where = {"dataset": "d", "split": 1, "seed": 0, "actions": ("a",)}
    run.begin(identity_of("if-ttn", RECIPES["if-ttn"], "tiny", PRESETS["tiny"], **where))
    assert shortfalls(tmp_path) == ()
    for stage, epoch, accuracy in (("ttn", 0, 0.3), ("ttn", 1, 0.64), ("joint", 0, 0.9)):
        run.log({"stage": stage, "epoch": epoch, "of": {"ttn": 2, "joint": 1}[stage], "accuracy": accuracy})
    (line,) = shortfalls(tmp_path)
    assert line.startswith(
        "if-ttn on d, split 1, seed 0: stage ttn ended with 0.64 of its training videos right, where "
    )


def test_of_a_network_without_fusion_no_share_is_expected(tmp_path):
    run = Run(tmp_path)
    where = {"dataset": "d", "split": 1, "seed": 0, "actions": ("a",)}
    run.begin(identity_of("ttn-separate", RECIPES["ttn-separate"], "tiny", PRESETS["tiny"], **where))
    run.log({"stage": "ttn", "epoch": 0, "of": 1, "accuracy": 0.5})
    assert shortfalls(tmp_path) == ()


def test_a_small_data_set_trains_for_as_many_steps_as_a_large_one():
    def steps(videos):
        schedule = PRESETS["tiny"].fitted(RECIPES["if-ttn"], videos).schedules["ttn"]
        return schedule.epochs * -(-videos // 16)

    assert steps(688) == 26 * 43
    assert 26 * 43 <= steps(432) < 27 * 43
    assert steps(1376) == 2 * steps(688)


def test_a_run_of_another_version_is_named(tmp_path):
    run = begun(tmp_path)
    path = tmp_path / "recipe.json"
    recipe = json.loads(path.read_text())
    del recipe["preset_row"]["joint_loss"]
    path.write_text(json.dumps(recipe))
    with pytest.raises(IfttnError, match=r"another version of ifttn made .*'joint_loss'.*train it again"):
        run.preset()


def test_what_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(IfttnError, match="no run in"):
        Run(tmp_path / "none").identity  # noqa: B018
    run = begun(tmp_path / "run")
    for ask in (run.network, run.weights):
        with pytest.raises(IfttnError, match="is not finished"):
            ask()
    with pytest.raises(IfttnError, match="`ifttn test` makes them"):
        run.scores()
    assert run.metrics().empty
