import gc
import itertools
import json
import shutil
import tracemalloc

import cv2
import numpy as np
import pytest
import torch

from ifttn import cli, recognizer
from ifttn.data.doctor import pan
from ifttn.data.samples import SnippetDataset
from ifttn.data.video import decode, read_frames
from ifttn.experiment import training
from ifttn.experiment.processes import Machine
from ifttn.experiment.scores import LATE_FUSION
from ifttn.memory import Pieces
from ifttn.recognizer import Recognizer
from ifttn.vocabulary import STACK, IfttnError


@pytest.fixture(scope="module")
def work(embedded, tmp_path_factory):
    work = embedded.work(tmp_path_factory.mktemp("runs"))
    for recipe in ("spatial", "temporal", "if-ttn", "mv-temporal", "mv-if-ttn", "rgbdiff"):
        training.train(work, recipe)
    return work


@pytest.mark.parametrize("recipe", ["if-ttn", "mv-if-ttn", "rgbdiff"])
def test_a_file_is_recognised_as_its_prepared_self_is(work, recipe):
    run = work.run(recipe)
    video = work.split.test[3]
    prediction = Recognizer.load(run)(video.path)
    network = run.network()
    dataset = SnippetDataset(work.store, [video], network.settings.modalities, segments=4, size=64)
    inputs = {m: torch.from_numpy(x)[None] for m, x in dataset[0, 0][0].items()}
    with torch.no_grad():
        expected = network(inputs)
    for head, votes in expected.votes.items():
        # The store's JPEGs are all that stands between the two.
        np.testing.assert_allclose(prediction.votes[head], votes[0], atol=0.05 * votes.abs().max() + 0.02)
    fused = sum(LATE_FUSION[head] * scores for head, scores in prediction.heads.items())
    np.testing.assert_allclose(prediction.scores, fused, rtol=1e-5)


def test_a_compiled_network_that_reuses_its_output_gives_the_same_votes(work, gpu, monkeypatch):
    """CUDA graphs write every output to the same memory."""
    modes = []

    def graph(network, mode):
        modes.append(mode)
        kept = {}

        def replayed(inputs):
            output = network(inputs)
            votes = {head: kept.setdefault(head, x.clone()).copy_(x) for head, x in output.votes.items()}
            return output._replace(votes=votes)

        return replayed

    plain = Recognizer.load(work.run("if-ttn"), gpu, crops=10)(work.split.test[3].path)
    monkeypatch.setattr(torch, "compile", graph)
    monkeypatch.setattr(recognizer, "Pieces", lambda _, item: Pieces(5, item))
    compiled = Recognizer.load(work.run("if-ttn"), gpu, crops=10, machine=Machine(compile=True))
    votes = compiled(work.split.test[3].path).votes
    for head, expected in plain.votes.items():
        np.testing.assert_allclose(votes[head], expected, rtol=1e-4, atol=1e-4)
    assert modes == ["reduce-overhead"]


def test_a_folder_of_a_films_frames_is_recognised_as_the_film_is(work, tmp_path):
    path, recognizer = work.split.test[3].path, Recognizer.load(work.run("if-ttn"))
    for number, frame in enumerate(decode(path).frames):
        cv2.imwrite(str(tmp_path / f"{number:05}.png"), frame[..., ::-1])
    film, folder = recognizer(path), recognizer(tmp_path)
    for head, votes in film.votes.items():
        np.testing.assert_allclose(folder.votes[head], votes, rtol=1e-4, atol=1e-4)
    assert len(list(recognizer.stream(tmp_path, every=0.4))) > 1


def test_features_of_an_entry_of_the_store_are_those_of_the_network(work):
    run, video = work.run("if-ttn"), work.split.test[3]
    with work.store.open(video.name) as entry:
        found = Recognizer.load(run).features(entry)
    network = run.network()
    dataset = SnippetDataset(work.store, [video], network.settings.modalities, segments=4, size=64)
    with torch.no_grad():
        expected = network({m: torch.from_numpy(x)[None] for m, x in dataset[0, 0][0].items()})
    assert {name for name in found if name.startswith("level:")} == {f"level:{tap}" for tap in expected.taps}
    for tap, x in expected.taps.items():
        np.testing.assert_allclose(found[f"level:{tap}"], x.mean((2, 3)), rtol=1e-4, atol=1e-5)
    assert (len(found["level:fused.2"]), len(found["level:ttn.5"])) == (4, 3)  # of snippets, and of pairs
    for head, votes in expected.votes.items():
        np.testing.assert_allclose(found[f"votes:{head}"], votes[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found[f"head:{head}"], votes[0].mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        found["scores"], sum(LATE_FUSION[head] * found[f"head:{head}"] for head in votes_of(found))
    )
    assert found["actions"].tolist() == list(work.split.actions)
    np.testing.assert_allclose(found["seconds"], found["frames"] / 25)


def votes_of(found):
    return [name.partition(":")[2] for name in found if name.startswith("votes:")]


def test_features_of_files_are_written_once_and_failures_are_named_at_the_end(work, tmp_path, capsys):
    run, out, (first, second) = str(work.run("if-ttn").folder), tmp_path / "out", work.split.test[:2]
    (tmp_path / "mine").mkdir()
    shutil.copy(first.path, tmp_path / "mine")
    (tmp_path / "mine" / "broken.mp4").write_bytes(b"no video")
    words = ["features", str(tmp_path / "mine"), str(second.path), "--run", run, "--out", str(out), "--device", "cpu"]
    assert cli.main(words) == 1
    said = capsys.readouterr()
    assert f"2 of 3 videos: {out}" in said.out
    assert "failed: broken: " in said.err
    assert "features: 100%" in said.err
    files = {path: path.stat().st_mtime_ns for path in out.glob("*.npz")}
    assert {path.stem for path in files} == {first.path.stem, second.path.stem}
    prediction = Recognizer.load(run)(first.path)
    with np.load(out / f"{first.path.stem}.npz") as found:
        np.testing.assert_array_equal(found["scores"], prediction.scores)
        np.testing.assert_array_equal(found["seconds"], prediction.seconds)
        assert found["notes"].tolist() == []
    shutil.copy(second.path, tmp_path / "mine" / "broken.mp4")
    assert cli.main(words) == 0
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (out / "broken.npz").exists()
    assert cli.main([*words, "--crops", "3"]) == 1
    assert "holds features of another network or of other views" in capsys.readouterr().err


def test_a_prepared_data_set_gives_features_under_the_names_of_its_videos(work, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Recognizer, "features", lambda self, video: {"frames": np.array(video.frames)})
    where = ["--run", str(work.run("if-ttn").folder), "--device", "cpu"]
    assert cli.main(["features", str(work.store.folder), *where, "--out", str(tmp_path / "a")]) == 0
    names = {f"{video.name}.npz" for video in work.split.train + work.split.test}
    assert {path.relative_to(tmp_path / "a").as_posix() for path in (tmp_path / "a").rglob("*.npz")} == names
    twice = ["features", *[str(work.split.test[0].path)] * 2, *where, "--out", str(tmp_path / "b")]
    assert cli.main(twice) == 1
    assert "two of these videos would be" in capsys.readouterr().err


def test_the_likeliest_actions_come_first_and_add_up(work):
    prediction = Recognizer.load(work.run("if-ttn"))(work.split.test[0].path)
    everything = prediction.top(100)
    assert len(everything) == 16
    assert everything[0][0] == prediction.actions[prediction.scores.argmax()]
    shares = [share for _, share in everything]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) == pytest.approx(1)
    assert prediction.seconds.tolist() == sorted(prediction.seconds.tolist())
    assert prediction.seconds[-1] < 80 / 25


@pytest.fixture(scope="module")
def film(tmp_path_factory, encode):
    """A pan of K n + L frames, n = 9: as a file that is read as it is, and its frames as the file has them."""
    path = encode(tmp_path_factory.mktemp("film") / "pan.avi", pan(4 * 9 + STACK, 160, 120, (3, 1)))
    return path, read_frames(path)


@pytest.mark.parametrize("recipe", ["if-ttn", "mv-if-ttn"])
def test_a_file_that_is_streamed_ends_where_the_whole_file_does(work, film, recipe):
    recognize, (path, frames) = Recognizer.load(str(work.run(recipe).folder)), film
    whole, streamed = recognize(str(path)), [*recognize.stream(str(path), every=9 / 25)]
    assert [len(part.seconds) for part in streamed] == [1, 2, 3, 4]
    assert set(streamed[0].heads) == {(recipe == "if-ttn" and "flow") or "mv", "rgb"}  # one snippet makes no pair
    np.testing.assert_allclose(streamed[-1].seconds, whole.seconds)
    for head, votes in whole.votes.items():
        np.testing.assert_allclose(streamed[-1].votes[head], votes, atol=1e-4 * abs(votes).max())
    np.testing.assert_allclose(streamed[-1].scores, whole.scores, atol=1e-4 * abs(whole.scores).max())
    if recipe == "if-ttn":  # flow asks for no more than the frames, wherever they come from
        live = [*recognize.stream(iter(frames), every=9 / 25)][-1]
        np.testing.assert_allclose(live.seconds, whole.seconds)
        # The two decoders turn YUV into RGB with other roundings, and resize on either side of that.
        np.testing.assert_allclose(live.scores, whole.scores, atol=0.1 * abs(whole.scores).max())


def test_frames_without_a_file_get_their_vectors_from_an_encoder_or_from_flow(work, film, monkeypatch):
    recognize, (_, frames) = Recognizer.load(work.run("mv-if-ttn")), film
    seen = []
    planes_of = recognize._step
    monkeypatch.setattr(recognize, "_step", lambda planes, past: seen.append(planes["mv"]) or planes_of(planes, past))
    for motion in (None, "dis"):
        seen.clear()
        assert len([*recognize.stream(iter(frames), every=9 / 25, motion=motion)]) == 4
        fields = (np.stack(seen).reshape(-1, 2, *seen[0].shape[-2:]) - 128.0) / 127 * recognize.preset.store.bound
        scale = recognize.preset.store.width / 160
        inner = np.median(fields[:, :, 20:-20, 20:-20], axis=(0, 2, 3))
        np.testing.assert_allclose(inner, [3 * scale, 1 * scale], atol=0.25)


def test_hours_of_frames_take_no_more_memory_than_minutes(work):
    recognize, noise = Recognizer.load(work.run("mv-if-ttn")), np.random.default_rng(0)
    few = [noise.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(7)]
    stream = recognize.stream(itertools.cycle(few), motion="dis")
    arrays = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    tensors, bytes_of_arrays = [], []
    tracemalloc.start()
    for _ in range(3):
        for prediction in itertools.islice(stream, 20):  # 500 frames
            assert len(prediction.seconds) <= 4
        gc.collect()
        tensors.append(sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects()))
        held = tracemalloc.take_snapshot().filter_traces([arrays]).statistics("filename")
        bytes_of_arrays.append(sum(one.size for one in held))
    tracemalloc.stop()
    assert prediction.seconds[-1] == pytest.approx(59 + (12 + 2) / 25)
    assert tensors[2] <= tensors[0]
    assert bytes_of_arrays[0] > 4 * 16 * 4  # the votes, at least
    assert bytes_of_arrays[2] <= bytes_of_arrays[0]


def test_the_encoder_of_a_live_source_keeps_a_frame_or_two(work):
    recognize = Recognizer.load(work.run("mv-if-ttn"))
    frames, given = pan(60, 96, 72), itertools.count()
    stream = recognize.stream((frames[next(given) % 60] for _ in itertools.repeat(0)), every=0.4)
    for number, _ in enumerate(itertools.islice(stream, 100)):
        # The snippet's last frame, and what encoder and decoder hold back.
        assert next(given) - number <= 10 * number + 5 + STACK + 4


def test_times_of_votes_and_segments_are_those_of_their_frames(work, film):
    prediction = Recognizer.load(work.run("if-ttn"))(film[0])
    times = prediction.times
    np.testing.assert_allclose(times["rgb"], np.stack([prediction.seconds] * 2, 1))
    np.testing.assert_allclose(times["ttn"], np.stack([prediction.seconds[:-1], prediction.seconds[1:]], 1))
    parts = prediction.segments
    assert "ttn" not in parts[0].heads
    for k, part in enumerate(parts):
        np.testing.assert_array_equal(part.heads["rgb"], prediction.votes["rgb"][k])
        if k:
            np.testing.assert_array_equal(part.heads["ttn"], prediction.votes["ttn"][k - 1])
    written = json.loads(json.dumps(prediction.as_json()))
    assert [vote["from"] for vote in written["votes"]["ttn"]] == pytest.approx(prediction.seconds[:-1].tolist())
    np.testing.assert_allclose(written["votes"]["ttn"][2]["scores"], prediction.votes["ttn"][2])
    assert written["top"][0]["action"] == prediction.top()[0][0]


def test_one_view_is_the_centre_of_many(work, film):
    one, ten = (Recognizer.load(work.run("mv-if-ttn"), crops=crops) for crops in (1, 10))
    assert one.crops[0] in ten.crops
    assert not np.allclose(one(film[0]).scores, ten(film[0]).scores)
    whole, streamed = ten(film[0]), [*ten.stream(film[0], every=9 / 25)][-1]
    np.testing.assert_allclose(streamed.scores, whole.scores, atol=1e-4 * abs(whole.scores).max())


def test_all_crops_of_a_video_are_one_batch_and_halved_where_memory_does_not_suffice(work, film, monkeypatch):
    recognize, seen = Recognizer.load(work.run("mv-if-ttn"), crops=10), []
    recognize._folded.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]["rgb"])))
    whole = recognize(film[0])
    assert seen == [10]

    def refuse(_, inputs):
        if len(inputs[0]["rgb"]) > 4:
            raise RuntimeError("CUDA out of memory")

    recognize._folded.register_forward_pre_hook(refuse)
    np.testing.assert_allclose(recognize(film[0]).scores, whole.scores, rtol=1e-4, atol=1e-5)
    assert seen[1:] == [10, 5, 2, 2, 2, 2, 2]


def test_a_stream_says_what_it_cannot_do(work, film):
    recognize = Recognizer.load(work.run("mv-if-ttn"))
    with pytest.raises(IfttnError, match="choose from tvl1, tvl1-fast, dis"):
        next(recognize.stream(film[0], motion="none"))
    with pytest.raises(IfttnError, match="more than 0"):
        next(recognize.stream(film[0], every=0.0))
    assert [*recognize.stream(iter([]))] == []
    few = read_frames(film[0])[:3]
    with pytest.raises(IfttnError, match=r"live frames: has 3 frames, and a snippet of a stream needs 6"):
        next(recognize.stream(iter(few), every=0.1))
    with pytest.raises(IfttnError, match=r"pan\.avi: ends after 1\.60 s, .* choose fewer seconds for a segment"):
        next(recognize.stream(film[0], every=3.0))
    assert len(decode(film[0]).kinds) == 41


def test_a_file_of_one_frame_is_named(work, tmp_path, encode):
    with pytest.raises(IfttnError, match=r"one\.avi: has only one frame, and motion needs two"):
        Recognizer.load(work.run("mv-if-ttn"))(encode(tmp_path / "one.avi", pan(1)))


def test_times_are_the_videos_own_and_segments_are_cut_by_them(work, shared_data):
    path, recognize = shared_data / "faults" / "variable_rate.mp4", Recognizer.load(work.run("mv-if-ttn"))
    shown = decode(path).seconds
    whole, streamed = recognize(path), [*recognize.stream(path, every=1.0)]
    assert set(whole.seconds) < set(shown)
    assert whole.seconds[-1] > 3  # 50 frames, of which 25 take a second and the others five
    last = [prediction.seconds[-1] for prediction in streamed]
    assert [int(seconds) for seconds in last] == [0, 1, 2, 3, 4]
    assert json.loads(json.dumps(whole.as_json()))["segments"][-1]["seconds"] == whole.seconds[-1]


def test_what_a_file_lost_is_noted_and_a_stream_of_it_predicts_up_to_there(work, shared_data):
    recognize = Recognizer.load(work.run("mv-if-ttn"))
    assert recognize(shared_data / "faults" / "damaged_tail.mp4").notes[0].startswith("lost frames (3 of 100")
    assert recognize(shared_data / "faults" / "cut_half.webm").as_json()["notes"][0].startswith("cut short")
