import math
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ifttn.data.samples import SnippetDataset
from ifttn.data.store import Entry, Store
from ifttn.experiment import optimisation, testing, training
from ifttn.experiment.networks import network_settings
from ifttn.experiment.presets import PRESETS, Schedule
from ifttn.experiment.processes import Machine
from ifttn.experiment.pyramids import FrozenPyramids, drop_pyramids
from ifttn.experiment.recipes import JOINT, RECIPES, TTN
from ifttn.experiment.scores import READINGS
from ifttn.files import held
from ifttn.model.network import Network
from ifttn.model.peers.trained import build_network
from ifttn.vocabulary import IfttnError


@pytest.fixture(scope="module")
def streams(embedded, tmp_path_factory):
    """Trained streams that other runs start from."""
    work = embedded.work(tmp_path_factory.mktemp("runs"))
    for recipe in ("spatial", "temporal"):
        training.train(work, recipe)
    return work


def test_a_stage_moves_only_what_it_trains(streams):
    preset = PRESETS["smallest"]
    network = Network(network_settings(RECIPES["if-ttn"], preset, 16))
    training.initialise(network, streams, "if-ttn")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    run = streams.run("moves")
    run.folder.mkdir(parents=True)
    training.Training(streams, run, network, TTN, 0, preset).train(None)
    for key, value in network.state_dict().items():
        if key.startswith(("streams.", "heads.rgb", "heads.flow")):
            assert torch.equal(value, before[key]), key  # weights, and batch statistics to the bit
    moved = {key.split(".")[0] for key, value in network.state_dict().items() if not torch.equal(value, before[key])}
    assert moved == {"temporal", "heads"}


def test_a_frozen_stream_neither_drops_nor_counts():
    network = Network(network_settings(RECIPES["if-ttn"], PRESETS["smallest"], 16))
    training.freeze_all_but(network, TTN.trains, "trained")
    assert not network.streams["rgb"].bn1.training
    assert not network.heads["rgb"].dropout.training
    assert network.heads["ttn"].dropout.training
    assert network.temporal["ttn"].layer2[0].bn1.training
    training.freeze_all_but(network, JOINT.trains, "partial")
    assert network.streams["rgb"].bn1.training
    assert not network.streams["rgb"].layer1[0].bn1.training
    assert not network.streams["rgb"].layer1[0].bn1.weight.requires_grad
    assert network.temporal["ttn"].layer2[0].bn1.training  # signed input: TTN's statistics are its own


def test_each_part_starts_where_its_recipe_says(streams, monkeypatch):
    spatial = streams.run("spatial").weights("streams.rgb")
    preset = PRESETS["smallest"]
    temporal = Network(network_settings(RECIPES["temporal"], preset, 16))
    training.initialise(temporal, streams, "temporal")
    stem, mean = temporal.streams["flow"].conv1.weight, spatial["conv1.weight"].mean(1)
    assert all(torch.equal(stem[axis::2, axis::2], 2**0.5 * mean[axis::2, None].repeat(1, 5, 1, 1)) for axis in (0, 1))
    assert not stem[0::2, 1::2].any()
    monkeypatch.setitem(PRESETS, "smallest", replace(preset, stem="averaged"))
    training.initialise(temporal, streams, "temporal")
    assert all(torch.equal(stem[:, channel], mean) for channel in range(10))
    complete = Network(network_settings(RECIPES["if-ttn"], preset, 16))
    training.initialise(complete, streams, "if-ttn")
    for key, value in complete.temporal["ttn"].state_dict().items():
        assert torch.equal(value, spatial[key])
    for key, value in complete.heads["flow"].state_dict().items():
        assert torch.equal(value, streams.run("temporal").weights("heads.flow")[key])


def test_every_start_of_every_recipe_exists_on_both_sides_at_full_size():
    with torch.device("meta"):
        networks = {name: build_network(network_settings(r, PRESETS["paper"], 101)) for name, r in RECIPES.items()}
    for name, recipe in RECIPES.items():
        for start in recipe.starts_from:
            part, source = networks[name].get_submodule(start.part), networks[start.recipe].get_submodule(start.source)
            have = source.state_dict()
            for key, tensor in part.state_dict().items():
                assert key in have, f"{name}: {start.part} from {start.recipe}: {key}"
                assert tensor.shape == have[key].shape or key == "conv1.weight"
        trained = set()
        for stage in recipe.stages:
            assert any(key.startswith(stage.trains) for key, _ in networks[name].named_parameters())
            trained |= {key for key, _ in networks[name].named_parameters() if key.startswith(stage.trains)}
        assert trained == {key for key, _ in networks[name].named_parameters()}


@pytest.mark.parametrize("recipe", ["spatial", "din"])
def test_an_interrupted_run_ends_where_an_undisturbed_one_does(embedded, tmp_path, monkeypatch, recipe):
    dropout = dict.fromkeys(PRESETS["smallest"].dropout, 0.2)
    longer = replace(PRESETS["smallest"], schedules={recipe: Schedule(3, 1e-3, None)}, dropout=dropout)
    monkeypatch.setitem(PRESETS, "smallest", longer)
    undisturbed = training.train(embedded.work(tmp_path / "a"), recipe)
    epoch = training.Training.epoch

    def stop(self, number):
        if number == 2:
            raise KeyboardInterrupt
        return epoch(self, number)

    work = embedded.work(tmp_path / "b")
    monkeypatch.setattr(training.Training, "epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        training.train(work, recipe)
    assert not work.run(recipe).finished
    monkeypatch.setattr(training.Training, "epoch", epoch)
    resumed = training.train(work, recipe)
    assert resumed.metrics().epoch.tolist() == [0, 1, 2]
    for key, value in undisturbed.weights().items():
        assert torch.equal(value, resumed.weights()[key]), key


def test_a_finished_run_is_found_done(streams, monkeypatch):
    monkeypatch.setattr(training.Training, "epoch", lambda *_: pytest.fail("trained again"))
    training.train(streams, "spatial")


def test_a_run_is_tested_once_and_again_when_the_test_videos_have_changed(streams, monkeypatch):
    run = testing.test(streams, "spatial")
    scores = run.scores()
    assert tuple(scores.readings) == READINGS
    fewer = replace(streams, split=replace(streams.split, test=streams.split.test[1:]))
    assert testing.test(fewer, "spatial").scores().videos == scores.videos[1:]
    again = testing.test(streams, "spatial").scores()
    np.testing.assert_array_equal(again.heads["rgb"], scores.heads["rgb"])
    monkeypatch.setattr(testing, "evaluate", lambda *_, **__: pytest.fail("scored again"))
    testing.test(streams, "spatial")


def test_a_run_is_used_only_with_the_actions_that_it_was_trained_on_in_their_order(streams):
    first, second, *rest = streams.split.actions
    swapped = replace(streams, split=replace(streams.split, actions=(second, first, *rest)))
    line = rf"was trained with {first} as action 1 of 16, and the data set has {second} there, of 16"
    for use in (testing.test, testing.score_held_out):
        with pytest.raises(IfttnError, match=line):
            use(swapped, "spatial")
    with pytest.raises(IfttnError, match=line):
        training.initialise(
            Network(network_settings(RECIPES["temporal"], PRESETS["smallest"], 16)), swapped, "temporal"
        )
    fewer = replace(streams, split=replace(streams.split, actions=streams.split.actions[:-1]))
    with pytest.raises(IfttnError, match=r"as action 16 of 16, and the data set has nothing there, of 15"):
        testing.test(fewer, "spatial")


def test_a_run_records_the_store_that_it_was_trained_on_and_is_used_with_no_other(streams, tmp_path):
    store = PRESETS["smallest"].store
    other = Store.create(tmp_path / "store", replace(store, bound=9.0, flow="tvl1-fast"))
    for name in streams.store.index().video:  # what is in them does not matter here
        (tmp_path / "store" / "videos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(
            streams.store.folder / "videos" / f"{name}.safetensors",
            tmp_path / "store" / "videos" / f"{name}.safetensors",
        )
    work = replace(streams, store=other, runs=tmp_path / "runs")
    with pytest.raises(
        IfttnError, match=r"holds another run \(its .*preset_row\.store\.bound, preset_row\.store\.flow differ\)"
    ):
        training.train(replace(work, runs=streams.runs), "spatial")
    for recipe in ("spatial", "temporal"):
        assert training.train(work, recipe).preset().store == other.settings
    testing.test(replace(work, store=streams.store), "spatial")  # RGB has no bound
    with pytest.raises(IfttnError, match=r"temporal was trained on a store with bound 9\.0, and this store has 5\.0"):
        testing.test(replace(work, store=streams.store), "temporal")
    large = Store.create(tmp_path / "large", PRESETS["paper"].store)
    with pytest.raises(
        IfttnError, match=r"holds pictures of 340x256, and preset smallest trains on 96x72: `ifttn prepare"
    ):
        training.train(replace(work, store=large), "spatial")


def test_a_run_is_trained_by_one_process_at_a_time(streams, tmp_path):
    work = replace(streams, runs=tmp_path)
    with held(work.run("spatial").folder), pytest.raises(IfttnError, match=r"split1/spatial: is in use by .*process"):
        training.train(work, "spatial")
    training.train(work, "spatial")
    with held(work.run("spatial").folder):
        training.train(work, "spatial")  # it is found done
        with pytest.raises(IfttnError, match="is in use by"):
            testing.test(work, "spatial")


def test_the_folder_of_another_run_is_left_alone(embedded, streams):
    with pytest.raises(IfttnError, match=r"holds another run \(its seed differ"):
        training.train(replace(streams, seed=1), "spatial")


def test_a_recipe_whose_start_is_missing_says_which(embedded, tmp_path):
    with pytest.raises(IfttnError, match="spatial"):
        training.train(embedded.work(tmp_path), "temporal")


def test_an_unknown_recipe_names_the_choices(embedded, tmp_path):
    with pytest.raises(IfttnError, match="unknown recipe 'slowfast': choose from spatial, temporal"):
        training.train(embedded.work(tmp_path), "slowfast")


def test_a_loss_that_is_no_number_stops_with_the_videos(embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(optimisation.functional, "cross_entropy", lambda *_: torch.tensor(math.nan, requires_grad=True))
    with pytest.raises(IfttnError, match=r"epoch 0, step 0 is nan; its videos: \w+/v_"):
        training.train(embedded.work(tmp_path), "spatial")


@pytest.mark.parametrize(("recipe", "rate", "batch"), [("spatial", 5e-3, 8), ("emv-cnn", 1e-3, 2)])
def test_a_network_learns_what_it_trains_on(embedded, tmp_path, monkeypatch, recipe, rate, batch):
    longer = replace(PRESETS["smallest"], schedules={recipe: Schedule(12, rate, None)}, batch=batch)
    monkeypatch.setitem(PRESETS, "smallest", longer)
    run = training.train(embedded.work(tmp_path), recipe)
    losses = run.metrics().loss
    assert losses.iloc[-1] < losses.iloc[0] - 0.3  # the scene alone is worth log 2 = 0.69


def test_every_recipe_trains_and_tests(streams):
    for recipe in ("if-ttn", "mv-temporal", "mv-if-ttn", "ttn-separate", "if-ttn-adaptive", "trn", "ifm-average"):
        run = testing.test(streams, training.train(streams, recipe).folder.name)
        scores = run.scores()
        assert set(scores.videos) == {video.name for video in streams.split.test}
        assert all(np.isfinite(head).all() and head.shape == (16, 16) for head in scores.heads.values())
        assert run.metrics().stage.tolist() == [stage.name for stage in RECIPES[recipe].stages]


@pytest.mark.parametrize("recipe", ["din", "c3d", "emv-cnn", "coviar"])
def test_a_peer_trains_and_tests_and_opens_for_nothing_else(embedded, tmp_path, recipe):
    work = embedded.work(tmp_path)
    training.train(work, recipe)
    run = testing.test(work, recipe)
    scores = run.scores()
    assert set(scores.videos) == {video.name for video in work.split.test}
    for head, once in scores.readings["one view"].items():  # votes by snippet: no order, and the mean of one crop
        np.testing.assert_allclose(scores.readings["reversed"][head], once, atol=1e-5)
    with pytest.raises(IfttnError, match="is a peer's: it has scores"):
        run.network()


def test_frozen_pyramids_are_the_streams_own_and_computed_once(streams, tmp_path, monkeypatch):
    preset = PRESETS["smallest"]
    network = streams.run("spatial").network()
    dataset = SnippetDataset(
        streams.store, streams.split.train, ("rgb",), segments=4, size=64, scales=preset.scales["rgb"]
    )
    frozen = FrozenPyramids(tmp_path, network.streams["rgb"], "rgb", dataset, ("here",))
    rows = np.array([5, 2])
    pyramid = frozen.rows(1, rows, "cpu")
    images = torch.stack([torch.from_numpy(dataset[1, int(row)][0]["rgb"]) for row in rows])
    with torch.no_grad():
        own = network.pyramids({"rgb": images})["rgb"]
    for level, features in own.items():
        torch.testing.assert_close(pyramid[level], features, rtol=2e-3, atol=2e-3)
    again = FrozenPyramids(tmp_path, network.streams["rgb"], "rgb", dataset, ("here",))
    monkeypatch.setattr(again, "_compute", lambda *_: pytest.fail("computed again"))
    assert torch.equal(again.rows(1, rows, "cpu")[3], pyramid[3])
    with torch.no_grad():
        network.streams["rgb"].bn1.bias += 1
    other = FrozenPyramids(tmp_path, network.streams["rgb"], "rgb", dataset, ("here",))
    assert other.folder != frozen.folder


def test_frozen_pyramids_are_of_these_videos_in_this_order_as_they_are_now(streams, tmp_path, monkeypatch):
    stream = streams.run("spatial").network().streams["rgb"]
    videos = streams.split.train

    def folder(videos):
        dataset = SnippetDataset(streams.store, videos, ("rgb",), segments=4, size=64)
        return FrozenPyramids(tmp_path, stream, "rgb", dataset, ("here",)).folder

    first = folder(videos)
    assert folder(videos) == first
    assert len({first, folder(videos[1:]), folder((*videos[1:], videos[0]))}) == 3
    origins = streams.store.origins()
    repaired = {**origins, videos[3].name: replace(origins[videos[3].name], sha256="another")}
    monkeypatch.setattr(Store, "origins", lambda _: repaired)
    assert folder(videos) != first


def test_pyramids_are_announced_and_dropped_unless_a_training_reads_them(streams, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(PRESETS, "smallest", replace(PRESETS["smallest"], frozen_views=2))
    work = replace(streams, runs=tmp_path, progress=True)
    for recipe in ("spatial", "temporal"):
        shutil.copytree(streams.run(recipe).folder, work.run(recipe).folder)
    training.train(work, "if-ttn")
    kept = work.folder / "pyramids"
    written = sum(path.stat().st_size for path in kept.rglob("*.npy"))
    assert f"pyramids: features of the frozen streams take {written / 1e6:,.0f} MB of disk" in capsys.readouterr().err
    with held(work.folder, shared=True):
        drop_pyramids(work.folder)
        assert kept.exists()
    drop_pyramids(work.folder)
    assert not kept.exists()
    monkeypatch.setattr("ifttn.experiment.pyramids.shutil.disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(IfttnError, match=r"MB of disk, and 0 MB are free: make room"):
        training.train(work, "if-ttn-additive")


@pytest.mark.parametrize(
    ("recipe", "kind"), [("spatial", "rgb"), ("c3d", "rgb"), ("rgbdiff", "motion"), ("off", "motion")]
)
def test_the_smallest_crops_are_for_rgb_images_alone(embedded, tmp_path, monkeypatch, recipe, kind):
    scales = {"rgb": (1.0, 0.875, 0.66), "motion": (1.0, 0.875)}
    preset = replace(PRESETS["smallest"].fitted(RECIPES[recipe], 32), scales=scales)
    network = build_network(network_settings(RECIPES[recipe], preset, 16))
    work = embedded.work(tmp_path)
    stage = training.Training(work, work.run(recipe), network, RECIPES[recipe].stages[0], 0, preset)
    assert stage.dataset.scales == scales[kind]


def test_rates_follow_the_papers_steps():
    schedule = PRESETS["paper"].schedules["spatial"]
    rates = [training.learning_rate(schedule, epoch) for epoch in (0.0, 29.9, 30.0, 59.0, 60.0, 79.0)]
    assert rates == pytest.approx([1e-3, 1e-3, 1e-4, 1e-4, 1e-5, 1e-5])


def test_tsns_parameter_groups():
    with torch.device("meta"):
        network = Network(network_settings(RECIPES["temporal"], PRESETS["paper"], 101))
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = {
        names[parameter]: (group["weight_decay"], group["times"])
        for group in training.optimiser(network, PRESETS["paper"]).param_groups
        for parameter in group["params"]
    }
    assert groups["streams.flow.conv1.weight"] == (5e-4, 5.0)
    assert groups["streams.flow.layer1.0.conv1.weight"] == (5e-4, 1.0)
    assert groups["heads.flow.bias"] == (0.0, 2.0)
    assert groups["streams.flow.bn1.weight"] == (0.0, 1.0)


def test_no_sample_is_decoded_twice(streams, tmp_path, monkeypatch):
    read = []
    usual = Entry.read

    def counted(self, modality, *rest):
        read.append((self.name, modality))
        return usual(self, modality, *rest)

    monkeypatch.setattr(Entry, "read", counted)
    monkeypatch.setitem(PRESETS, "smallest", replace(PRESETS["smallest"], batch=6))
    videos = [video.name for video in streams.split.train]
    micro = replace(streams, machine=Machine(micro_batch=4))
    for name in ("spatial", "temporal"):
        training.train(replace(micro, runs=tmp_path), name)
        assert sorted(read) == sorted((video, {"spatial": "rgb", "temporal": "flow"}[name]) for video in videos)
        read.clear()
    training.train(replace(micro, runs=tmp_path), "if-ttn")  # frozen pyramids of one view, then the joint stage
    assert sorted(read) == sorted(2 * [(video, modality) for video in videos for modality in ("rgb", "flow")])


def test_micro_batches_add_up_to_the_gradient_of_the_batch(embedded, tmp_path, monkeypatch):
    frozen = replace(PRESETS["smallest"], batch=6, batch_norm="frozen", schedules={"spatial": Schedule(2, 2e-3, None)})
    monkeypatch.setitem(PRESETS, "smallest", frozen)
    whole = training.train(embedded.work(tmp_path / "whole"), "spatial").metrics()
    work = replace(embedded.work(tmp_path / "parts"), machine=Machine(micro_batch=4))
    parts = training.train(work, "spatial").metrics()
    assert parts.loss.tolist() == pytest.approx(whole.loss.tolist(), rel=1e-4)


def test_all_that_a_machine_can_choose_trains(streams, tmp_path):
    machine = Machine(micro_batch=6, precision="bf16", recompute=True, workers=0)
    run = training.train(replace(streams, machine=machine, runs=tmp_path), "spatial")
    assert np.isfinite(run.metrics().loss).all()
    assert run.metrics().waiting.between(0, 1).all()


@pytest.mark.usefixtures("compiled_eagerly")
def test_a_compiled_training_leaves_the_same_weights_by_the_same_names(streams, tmp_path, monkeypatch):
    monkeypatch.setitem(PRESETS, "smallest", replace(PRESETS["smallest"], batch=12, frozen_views=None))
    ends = {}
    for way in (False, True):  # 32 videos: the last batch is smaller, and is not compiled
        work = replace(streams, machine=Machine(compile=way), runs=tmp_path / str(way))
        for recipe in ("spatial", "temporal"):
            shutil.copytree(streams.run(recipe).folder, work.run(recipe).folder)
        ends[way] = training.train(work, "if-ttn").weights()
    assert ends[False].keys() == ends[True].keys()
    for key, value in ends[False].items():
        torch.testing.assert_close(value, ends[True][key], msg=key)


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("recipe", ["spatial", "if-ttn"])
def test_the_host_waits_for_no_step_of_a_gpu(streams, recipe, gpu):
    preset = replace(PRESETS["smallest"], frozen_views=None)
    work, network = replace(streams, device=gpu), Network(network_settings(RECIPES[recipe], preset, 16)).to(gpu)
    stage = training.Training(work, work.run("unwaited"), network, RECIPES[recipe].stages[0], 0, preset)
    part = training.shares(np.arange(4), 4, work.processes, None)[0]
    batch = next(stage.feed(0, part))
    stage.step(part, iter([batch]), 1e-3)
    try:
        torch.cuda.set_sync_debug_mode("error")
        stage.step(part, iter([batch]), 1e-3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    stage._read_pending()
    assert np.isfinite(stage.at.loss)


def test_tensorboard_is_asked_for_before_anything_is_trained(streams, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard.writer", raising=False)
    monkeypatch.setattr(training.Training, "epoch", lambda *_: pytest.fail("trained"))
    with pytest.raises(IfttnError, match="pip install tensorboard"):
        training.train(replace(streams, machine=Machine(tensorboard=True), runs=tmp_path), "spatial")


def test_a_gradient_that_is_no_number_stops_before_it_moves_a_weight(embedded, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "clip", lambda *_: torch.tensor(math.inf))
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("moved"))
    with pytest.raises(IfttnError, match=r"the gradient of spatial, epoch 0, step 0 is inf; its videos: \w+/v_"):
        training.train(embedded.work(tmp_path), "spatial")
