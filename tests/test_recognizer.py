import numpy as np
import pytest
import torch

from ifttn.data.snippets import SnippetDataset
from ifttn.experiment import training
from ifttn.experiment.recipes import LATE_FUSION
from ifttn.recognizer import Recognizer


@pytest.fixture(scope="module")
def work(embedded, tmp_path_factory):
    work = embedded.work(tmp_path_factory.mktemp("runs"))
    for recipe in ("spatial", "temporal", "mv-temporal", "if-ttn", "mv-if-ttn"):
        training.train(work, recipe)
    return work


@pytest.mark.parametrize("recipe", ["if-ttn", "mv-if-ttn"])
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
