import json
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from ifttn.experiment import training
from ifttn.experiment.scores import LATE_FUSION
from ifttn.exporting import EXTRA, export
from ifttn.vocabulary import IfttnError


@pytest.fixture(scope="module")
def run(embedded, tmp_path_factory):
    work = embedded.work(tmp_path_factory.mktemp("runs"))
    for recipe in ("spatial", "temporal", "if-ttn"):
        training.train(work, recipe)
    return work.run("if-ttn")


def asked(run, videos):
    rng, size = np.random.default_rng(videos), run.preset().size
    return [rng.integers(0, 256, (videos, run.preset().segments, c, size, size), dtype=np.uint8) for c in (3, 10)]


def expected(run, planes):
    with torch.no_grad():
        output = run.network()({"rgb": torch.from_numpy(planes[0]), "flow": torch.from_numpy(planes[1])})
    scores = sum(LATE_FUSION[head] * logits for head, logits in output.logits.items())
    return [scores.numpy(), *(votes.numpy() for votes in output.votes.values())]


def compare(run, answer):
    for videos in (1, 5):  # neither is the number that the graph was traced with
        planes = asked(run, videos)
        found, wanted = answer(planes), expected(run, planes)
        assert [x.shape for x in found] == [x.shape for x in wanted]
        for x, y in zip(found, wanted, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-4 * abs(y).max())


def test_an_exported_program_answers_as_the_network_does_for_any_number_of_videos(run, tmp_path):
    path = tmp_path / "net.pt2"
    assert export(run, path) < 1e-4
    about = {"actions": "", "outputs": ""}
    program = torch.export.load(path, extra_files=about).module()
    assert json.loads(about["actions"]) == list(run.identity["actions"])
    assert json.loads(about["outputs"]) == ["scores", "votes.rgb", "votes.flow", "votes.ttn"]

    def answer(planes):
        with torch.no_grad():
            return [x.numpy() for x in program(*map(torch.from_numpy, planes))]

    compare(run, answer)


@pytest.mark.skipif(
    not all(map(find_spec, EXTRA)), reason="the extra `export` (onnx, onnxscript, onnxruntime) is absent"
)
def test_an_onnx_file_answers_as_the_network_does_for_any_number_of_videos(run, tmp_path):
    import onnxruntime

    path = tmp_path / "net.onnx"
    assert export(run, path) < 1e-4
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["rgb", "flow"]
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["actions"]) == list(run.identity["actions"])
    assert [o.name for o in session.get_outputs()] == json.loads(about["outputs"])
    compare(run, lambda planes: session.run(None, dict(zip(("rgb", "flow"), planes, strict=True))))


def test_without_the_extra_an_onnx_file_says_what_is_missing(run, tmp_path, monkeypatch):
    monkeypatch.setattr("ifttn.exporting.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(IfttnError, match=r"needs onnxscript: .*ifttn\[export\]"):
        export(run, tmp_path / "net.onnx")


def test_a_file_that_answers_otherwise_is_not_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr("ifttn.exporting.LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(IfttnError, match="not written"):
        export(run, tmp_path / "net.pt2")
    assert not list(tmp_path.iterdir())
