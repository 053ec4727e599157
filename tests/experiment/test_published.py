import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ifttn.cli import main
from ifttn.data.catalogue import read_split
from ifttn.experiment import published, results, testing, training
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import late_fusion
from ifttn.experiment.study import Places, StudySettings, work_on
from ifttn.vocabulary import IfttnError

MOST_BYTES = 10_000_000


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """The published run, with the few videos that its network gets wrong."""
    folder = tmp_path_factory.mktemp("published") / "published"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "TAKES", ())
        shares = list(published.unpack(folder))
    assert shares == sorted(shares)
    return folder


def test_its_folder_is_small_and_holds_what_its_provenance_says():
    about = json.loads((published.PACKAGED / results.PUBLISHED).read_text())
    files = {path.relative_to(published.PACKAGED).as_posix(): path for path in published.PACKAGED.rglob("*.*")}
    assert files.keys() == {results.PUBLISHED, *about["files"]}
    assert sum(path.stat().st_size for path in files.values()) <= MOST_BYTES
    for name, file in about["files"].items():
        assert hashlib.sha256(files[name].read_bytes()).hexdigest() == file["sha256"], name
    assert len(about["commit"]) == 40
    assert about["scores"].keys() == {f"split{split}/{recipe}" for split, recipe in published.NETWORKS}
    for scores in about["scores"].values():
        assert abs(scores["top-1 as kept"] - scores["top-1 as trained"]) < 0.005


def test_a_study_is_made_of_it_once(root):
    places = Places(root)
    run = Run.of(places.runs, published.DATASET, 1, "if-ttn")
    split = read_split(places.data(published.DATASET), 1)
    scores = run.scores()
    assert len(scores.videos) == 272
    predicted = late_fusion(scores.heads).argmax(1)
    assert {video.name for video in split.test} == {
        name for name, action, label in zip(scores.videos, predicted, scores.labels, strict=True) if action != label
    }
    assert list(published.unpack(root)) == []


def test_its_network_says_of_a_prepared_video_what_its_scores_say(root, tmp_path):
    places = Places(root)
    work = replace(work_on(places, published.DATASET, 1, StudySettings(published.PRESET)), runs=tmp_path)
    shutil.copytree(Run.of(places.runs, published.DATASET, 1, "if-ttn").folder, work.run("if-ttn").folder)
    kept = work.run("if-ttn").scores()
    now = testing.test(work, "if-ttn").scores()
    assert 0 < len(now.videos) < len(kept.videos)
    rows = [kept.videos.index(video) for video in now.videos]
    for head, scores in now.heads.items():
        np.testing.assert_allclose(scores, kept.heads[head][rows], atol=0.02)


def test_one_more_video_can_be_written(root):
    data = Places(root).data(published.DATASET)
    name = read_split(data, 1).missing[0]
    published.add_video(root, name)
    assert name not in read_split(data, 1).missing


def test_a_file_that_is_missing_or_has_changed_is_named(tmp_path):
    folder = tmp_path / "kept"
    shutil.copytree(published.PACKAGED, folder)
    weights = folder / "runs" / published.DATASET / "split1" / "if-ttn" / "weights.npz"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(IfttnError, match=r"weights\.npz .* has changed"):
        list(published.unpack(tmp_path / "out", folder))
    weights.unlink()
    with pytest.raises(IfttnError, match=r"weights\.npz .* is missing"):
        list(published.unpack(tmp_path / "out", folder))


def test_it_does_not_go_into_a_study(tmp_path):
    (tmp_path / "runs").mkdir()
    with pytest.raises(IfttnError, match="holds a study"):
        list(published.unpack(tmp_path))


def test_no_verb_takes_it_for_a_study(root, capsys):
    runs, data = f"--runs={root / 'runs'}", f"--data={root / 'data' / published.DATASET}"
    for arguments in (["tables", runs], ["reproduce", f"--out={root}"], ["test", "if-ttn", runs, data]):
        assert main(arguments) == 1
        assert "published run, which is only to be looked at" in capsys.readouterr().err


def test_weights_of_one_byte_are_within_half_a_level(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "filters": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(4).astype(np.float32),
        "none": np.zeros((2, 5), np.float32),
        "batches": np.array(1234),
    }
    safetensors.numpy.save_file(tensors, tmp_path / "of.safetensors", {"trained_on": "[]"})
    (tmp_path / "back.safetensors").write_bytes(
        published.rounded_weights(published.one_byte_weights(tmp_path / "of.safetensors"))
    )
    back = safetensors.numpy.load_file(tmp_path / "back.safetensors")
    assert {name: (x.dtype, x.shape) for name, x in back.items()} == {
        name: (x.dtype, x.shape) for name, x in tensors.items()
    }
    for name in ("bias", "none", "batches"):
        np.testing.assert_array_equal(back[name], tensors[name])
    level = np.abs(tensors["filters"]).max((1, 2, 3), keepdims=True) / published.WEIGHT_LEVELS
    difference = np.abs(back["filters"] - tensors["filters"])
    assert difference.max() > 0
    assert (difference <= 0.501 * level).all()
    with safetensors.safe_open(tmp_path / "back.safetensors", "np") as file:
        assert file.metadata() == {"trained_on": "[]"}


@pytest.fixture
def small(embedded, tmp_path, monkeypatch) -> Path:
    """A small study, in the place of the one that the published run is made of."""
    root = tmp_path / "results"
    for name in ("data", "stores"):
        shutil.copytree(embedded.data.parents[1] / name, root / name)
    work = embedded.work(root / "runs")
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(work, recipe)
        testing.test(work, recipe)
    monkeypatch.setattr(published, "PRESET", "smallest")
    monkeypatch.setattr(published, "NETWORKS", ((1, "if-ttn"),))
    monkeypatch.setattr(published, "SCORED", ("spatial",))
    monkeypatch.setitem(published.EMBEDDED, published.DATASET, ("ucf", 32))
    return root


def test_it_is_made_again_from_a_study_with_all_that_drawing_needs(small, tmp_path):
    denoiser = small / "runs" / published.DATASET / "split1" / "denoiser-rgb-flow.safetensors"
    safetensors.numpy.save_file({"enter": np.ones((2, 2), np.float32), "bias": np.ones(2, np.float32)}, denoiser)
    folder, out = tmp_path / "kept", tmp_path / "out"
    (folder / "runs").mkdir(parents=True)
    (folder / "runs" / "old.npz").touch()
    about = published.publish(small, "c" * 40, folder)
    assert about["scores"]["split1/if-ttn"]["test videos"] == 16
    assert not (folder / "runs" / "old.npz").exists()
    list(published.unpack(out, folder))
    split1 = out / "runs" / published.DATASET / "split1"
    assert {path.relative_to(split1).as_posix() for path in split1.rglob("*.*") if not path.name.startswith(".")} == {
        "denoiser-rgb-flow.safetensors",
        *(f"if-ttn/{name}" for name in ("recipe.json", "metrics.jsonl", "scores.npz", "weights.safetensors")),
        *(f"spatial/{name}" for name in ("recipe.json", "metrics.jsonl", "scores.npz")),
    }
    kept, trained = (Run.of(each / "runs", published.DATASET, 1, "if-ttn") for each in (out, small))
    assert kept.trained_on == trained.trained_on
    for head, scores in trained.scores().heads.items():
        assert np.abs(kept.scores().heads[head] - scores).max() < 0.1 * np.abs(scores).max()


@pytest.mark.slow
def test_a_network_that_is_trained_now_is_as_good_as_the_published_one(tmp_path):
    assert main(["reproduce", "--quick", "--brief", f"--out={tmp_path}"]) == 0
    scores = Run.of(tmp_path / "runs", published.DATASET, 1, "if-ttn").scores()
    accuracy = (late_fusion(scores.heads).argmax(1) == scores.labels).mean()
    about = json.loads((published.PACKAGED / results.PUBLISHED).read_text())
    assert abs(accuracy - about["scores"]["split1/if-ttn"]["top-1 as kept"]) < 0.03
