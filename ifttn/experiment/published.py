"""The published run: a small trained study in the repository, which a fresh clone can open at once.

    published/published.json               how it was made: commands, commit, seed, scores, SHA-256 of every file
    published/runs/...                     runs with the layout of a study, with .npz instead of .safetensors

A weight takes one byte. `publish` makes the folder from a finished study (`make published`). `unpack` makes a study
from the folder in seconds, with a few of the embedded videos. The lab shows it, and no verb uses it.
"""

import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from ifttn.data import diagnostic
from ifttn.data.preparation import prepare
from ifttn.experiment import testing
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.results import EMBEDDED, PUBLISHED, is_published
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import Scores, late_fusion
from ifttn.experiment.study import Places, StudySettings, work_on
from ifttn.files import held, write_whole
from ifttn.vocabulary import IfttnError

PACKAGED = Path(__file__).parents[1] / "published"
"""The folder in the package."""
DATASET, PRESET = "embedded-ucf", "tiny"
NETWORKS = ((1, "if-ttn"), (2, "if-ttn"), (3, "if-ttn"))
"""Split and recipe of each network. The lab shows the first. The others judge its drawings."""
SCORED = ("spatial", "temporal", "mv-if-ttn")
"""Recipes of split 1 whose scores are kept without weights, for panels that show a table."""
WEIGHT_LEVELS = 47
"""Number of levels up to a filter's largest weight. Weights are rounded to levels. With 31, some predictions change."""
TAKES = (0, 20, 40)
"""The videos of each action that are written. Split 1 tests the first, split 2 the second, split 3 the third."""


# To a study


def unpack(root: Path, folder: Path = PACKAGED) -> Iterator[float]:
    """Make a study from the published run in `root`. Yields the share that is done, or nothing if the study exists.

    If another process makes the study, this one waits.

    Raises:
        IfttnError: a file of the published run is missing or has changed, or `root` holds a study.
    """
    about = (folder / PUBLISHED).read_bytes()
    with held(root, wait=True):
        if is_published(root) and (root / PUBLISHED).read_bytes() == about:
            return
        places = Places(root)
        if places.runs.exists() and not is_published(root):
            raise IfttnError(f"{root} holds a study: the published run needs a folder of its own")
        write_whole(root / PUBLISHED, b"{}")  # it is begun
        for name, file in json.loads(about)["files"].items():
            _unpack_file(folder / name, file["sha256"], root / name)
        yield 0.1
        yield from _make_videos(places, _shown_videos(places))
        write_whole(root / PUBLISHED, about)


def _unpack_file(path: Path, sha256: str, to: Path) -> None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise IfttnError(f"{path} of the published run is missing: get it again from the repository") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise IfttnError(f"{path} of the published run has changed: get it again from the repository")
    if path.name == "scores.npz":
        scores = Scores.load(path)
        replace(scores, **_as_type(scores, np.float32)).save(to)
    elif path.suffix == ".npz":
        write_whole(to.with_suffix(".safetensors"), rounded_weights(content))
    else:
        write_whole(to, content)


def _shown_videos(places: Places) -> set[str]:
    """The names of the videos to write: TAKES, and the test videos that the first network gets wrong."""
    planned = diagnostic.plan_videos(*EMBEDDED[DATASET], seed=0)
    split, recipe = NETWORKS[0]
    scores = Run.of(places.runs, DATASET, split, recipe).scores()
    wrong = late_fusion(scores.heads).argmax(1) != scores.labels
    takes = planned["index"].to_numpy() // len(diagnostic.actions("ucf"))
    return {*planned.index[np.isin(takes, TAKES)], *np.array(scores.videos)[wrong].tolist()}


def _make_videos(places: Places, names: set[str]) -> Iterator[float]:
    """Write some of the embedded videos and prepare them. Yields the share that is done, from 0.1 to 1."""
    data, store = places.data(DATASET), places.store(DATASET, PRESET)
    flavour, videos = EMBEDDED[DATASET]
    failed: list[BaseException] = []

    def work() -> None:
        try:
            diagnostic.write_some(data, flavour, names, videos=videos, seed=0)
            prepare(data, store, PRESETS[PRESET].store, progress=False)
        except BaseException as error:
            failed.append(error)

    worker = Thread(target=work)
    worker.start()
    while worker.is_alive():
        worker.join(0.3)
        written, prepared = len(list(data.rglob("*.avi"))), len(list(store.rglob("*.safetensors")))
        yield min(1.0, 0.1 + (0.3 * written + 0.6 * prepared) / len(names))
    if failed:
        raise failed[0]


def add_video(root: Path, name: str) -> None:
    """Write one more embedded video into a study that was made from the published run."""
    flavour, videos = EMBEDDED[DATASET]
    diagnostic.write_some(Places(root).data(DATASET), flavour, {name}, videos=videos, seed=0)


# From a study


def publish(results: Path, commit: str, folder: Path = PACKAGED) -> dict[str, Any]:
    """Make the published run from a finished study, and test its rounded networks. Returns the provenance.

    Args:
        results: the folder of `ifttn reproduce`, with all splits.
        commit: the commit of the code that trained.
        folder: the folder to write. Its old files are removed.

    Raises:
        IfttnError: a run is not trained or not tested.
    """
    places, scores = Places(results), {}
    identity = Run.of(places.runs, DATASET, *NETWORKS[0]).identity
    settings = StudySettings(PRESET, seed=identity["seed"])
    for old in [path for path in folder.rglob("*") if path.is_file()]:
        old.unlink()
    with TemporaryDirectory() as temporary:
        copied = Places(Path(temporary))
        for split, recipe in NETWORKS:
            run, copy = (Run.of(each.runs, DATASET, split, recipe) for each in (places, copied))
            _copy_rows(run, copy)
            content = one_byte_weights(run.folder / "weights.safetensors")
            write_whole(_kept(folder, places, run) / "weights.npz", content)
            write_whole(copy.folder / "weights.safetensors", rounded_weights(content))
            work = replace(work_on(places, DATASET, split, settings), runs=copied.runs)
            scores[f"split{split}/{recipe}"] = _compared(testing.test(work, recipe).scores(), run.scores())
            _copy_rows(copy, Run(_kept(folder, places, run)), with_scores=split == 1)
    for recipe in SCORED:
        run = Run.of(places.runs, DATASET, 1, recipe)
        _copy_rows(run, Run(_kept(folder, places, run)), with_scores=True)
    for denoiser in sorted((places.runs / DATASET / "split1").glob("denoiser-*.safetensors")):
        write_whole(folder / "runs" / DATASET / "split1" / f"{denoiser.stem}.npz", one_byte_weights(denoiser))
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}
    about = {
        "about": f"Trained networks of the embedded data set {DATASET}, preset {PRESET}. They are kept with one byte a "
        f"weight ({WEIGHT_LEVELS} levels of each filter's largest weight), and tested as they are kept.",
        "commands": ["ifttn reproduce", "make published"],
        "commit": commit,
        "seed": identity["seed"],
        "made_with": identity["made_with"],
        "scores": scores,
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        },
    }
    write_whole(folder / PUBLISHED, json.dumps(about, indent=1).encode() + b"\n")
    return about


def _kept(folder: Path, places: Places, run: Run) -> Path:
    return folder / "runs" / run.folder.relative_to(places.runs)


def _copy_rows(run: Run, to: Run, *, with_scores: bool = False) -> None:
    """Copy the identity and metrics of a run, and its scores as half floats."""
    for name in ("recipe.json", "metrics.jsonl"):
        write_whole(to.folder / name, (run.folder / name).read_bytes())
    if with_scores:
        scores, content = run.scores(), io.BytesIO()
        replace(scores, **_as_type(scores, np.float16)).save(to.folder / "scores.npz")
        with np.load(to.folder / "scores.npz") as arrays:
            np.savez_compressed(content, **arrays)
        write_whole(to.folder / "scores.npz", content.getvalue())


def _as_type(scores: Scores, kind: type) -> dict[str, Any]:
    heads = {head: x.astype(kind) for head, x in scores.heads.items()}
    readings = {name: {head: x.astype(kind) for head, x in each.items()} for name, each in scores.readings.items()}
    return {"heads": heads, "readings": readings}


def _compared(kept: Scores, trained: Scores) -> dict[str, Any]:
    """The results of the kept (rounded) weights on the test videos, compared with those of the trained weights."""
    fused = [late_fusion(scores.heads) for scores in (kept, trained)]
    top1 = [round(float((each.argmax(1) == kept.labels).mean()), 4) for each in fused]
    return {
        "test videos": len(kept.videos),
        "top-1 as kept": top1[0],
        "top-1 as trained": top1[1],
        "other predictions": int((fused[0].argmax(1) != fused[1].argmax(1)).sum()),
        "largest difference of a fused score": round(float(np.abs(fused[0] - fused[1]).max()), 3),
        "largest fused score": round(float(np.abs(fused[1]).max()), 3),
    }


# A file of weights


def one_byte_weights(path: Path) -> bytes:
    """A .safetensors file of float32 weights as .npz, with one byte for each weight of a filter. Other tensors stay
    float32."""
    with safetensors.safe_open(path, "np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        metadata = file.metadata()
    filters = {name: x for name, x in tensors.items() if x.ndim > 1}
    others = {name: x for name, x in tensors.items() if x.ndim < 2}
    scales = {name: _scale(x) for name, x in filters.items()}
    shapes = {name: x.shape for name, x in (*filters.items(), *others.items())}
    whole = [name for name, x in others.items() if x.dtype.kind == "i"]  # counts of batches
    content = io.BytesIO()
    np.savez_compressed(
        content,
        levels=_flat([np.round(x / scales[name]).astype(np.int8) for name, x in filters.items()]),
        scales=_flat(list(scales.values())),
        others=_flat([x.astype(np.float32) for x in others.values()]),
        about=np.array(json.dumps({"metadata": metadata, "shapes": shapes, "whole": whole})),
    )
    return content.getvalue()


def _flat(arrays: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([x.ravel() for x in arrays])


def _scale(weights: np.ndarray) -> np.ndarray:
    """The size of one level, for each filter."""
    largest = np.abs(weights).max(tuple(range(1, weights.ndim)), keepdims=True)
    return np.where(largest > 0, largest / WEIGHT_LEVELS, 1).astype(np.float32)


def rounded_weights(content: bytes) -> bytes:
    """The .safetensors file with rounded weights, from the content of `one_byte_weights`."""
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        about = json.loads(str(file["about"]))
        left = {kind: file[kind] for kind in ("levels", "scales", "others")}

    def taken(kind: str, *shape: int) -> np.ndarray:
        own, left[kind] = np.split(left[kind], [prod(shape)])
        return own.reshape(shape)

    tensors = {}
    for name, shape in about["shapes"].items():
        if len(shape) > 1:
            tensors[name] = taken("levels", *shape) * taken("scales", shape[0], *[1] * (len(shape) - 1))
        else:
            tensors[name] = taken("others", *shape)
    tensors |= {name: tensors[name].astype(np.int64) for name in about["whole"]}
    return safetensors.numpy.save(tensors, about["metadata"])


if __name__ == "__main__":  # python -m ifttn.experiment.published RESULTS [COMMIT]
    found = sys.argv[2:] or [subprocess.check_output(["git", "rev-parse", "HEAD"], text=True).strip()]
    for run_name, of in publish(Path(sys.argv[1]), found[0])["scores"].items():
        print(run_name, of)
