"""Scores test videos and held-out videos with finished runs."""

from dataclasses import replace

from ifttn.data.catalogue import hold_out
from ifttn.data.samples import SnippetDataset
from ifttn.experiment.evaluation import evaluate
from ifttn.experiment.leakage import refuse_leak
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import Scores
from ifttn.experiment.work import Work
from ifttn.files import held
from ifttn.vocabulary import IfttnError, Video


def test(work: Work, name: str) -> Run:
    """Score the test videos with a finished run, also with their snippets in other orders.

    Existing scores are kept, unless the test videos have changed.

    Raises:
        IfttnError: the run is not finished, or was trained on a test video, with other actions or on videos that were
            prepared otherwise; there is no test video, or one is not in the store; another process trains or tests it.
    """
    run, videos = work.trained(name), work.split.side("test")
    if not (run.tested and run.scores().identity == work.store.identity(video.name for video in videos)):
        with held(run.folder):
            _score(work, run, videos, orders=True).save(run.folder / "scores.npz")
    return run


def score_held_out(work: Work, name: str) -> Scores:
    """The scores of the videos that were held out while a run trained, for `scores.tune`.

    Raises:
        IfttnError: nothing was held out, the run is not finished, or a run that it starts from was trained on them.
    """
    run = work.trained(name)
    identity = run.identity
    if not identity.get("hold_out"):
        raise IfttnError(f"the run in {run.folder} held nothing out of training: train one with --hold-out")
    _, videos = hold_out(work.split, identity["hold_out"], identity["seed"])
    return _score(work, run, videos)


def _score(work: Work, run: Run, videos: tuple[Video, ...], orders: bool = False) -> Scores:
    refuse_leak(run.trained_on, videos, f"the network in {run.folder}")
    work.store.refuse_unprepared(videos)
    preset, network = run.preset(), run.scorer(work.device)
    modalities = network.settings.modalities
    dataset = SnippetDataset(work.store, videos, modalities, preset.segments, preset.size, crops=preset.crops)
    scores = evaluate(
        network,
        dataset,
        work.split.actions,
        batch=preset.batch,
        workers=work.workers,
        machine=work.machine,
        orders=orders,
    )
    return replace(scores, identity=work.store.identity(scores.videos))
