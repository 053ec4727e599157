"""From trained runs to the paper's Figures 1, 6 and 7, and to the curves of their training.

It stands beside `ifttn.cli`, above `lab`: it opens runs, asks `ifttn.insight`, and lets `lab.figures` draw.
"""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ifttn.data.snippets import SnippetDataset
from ifttn.experiment.evaluation import late_fusion
from ifttn.experiment.recipes import LATE_FUSION, PRESETS, RECIPES, find
from ifttn.experiment.runs import Run, write_atomically
from ifttn.experiment.study import Places, work_on
from ifttn.experiment.training import Work
from ifttn.insight import deepdraw
from ifttn.insight.cam import class_activation_maps
from ifttn.insight.order import nearest_frames, swap_report
from ifttn.model.network import Network
from ifttn.vocabulary import IfttnError, Video
from lab import figures, report

COMPLETE = ("if-ttn", "mv-if-ttn")
"""Recipes whose network is complete; the figures show the first that is trained."""


def draw(work: Work, out: Path) -> list[report.Figure]:
    """Draw every figure that the trained runs of a split allow, as PNG files in `out`; a line of caption beside each.

    Raises:
        IfttnError: no complete network is trained on this split.
    """
    run = next((work.run(recipe) for recipe in COMPLETE if work.run(recipe).tested), None)
    if run is None:
        raise IfttnError(
            f"no tested run of {' or '.join(COMPLETE)} in {work.run('').folder}: `ifttn train if-ttn` first"
        )
    drawn = []
    for name, title, caption, figure in _figures(work, run):
        png = BytesIO()
        figure.savefig(png, format="png")
        write_atomically(out / f"{name}.png", png.getvalue())
        write_atomically(out / f"{name}.txt", f"{title}\n{caption}\n".encode())
        drawn.append(report.Figure(title, caption, png.getvalue()))
    return drawn


def draw_split(places: Places, dataset: str, split: int, preset: str, device: str, seed: int) -> None:
    """The step of the study that draws."""
    draw(work_on(places, dataset, split, preset, device, seed), places.root / "figures")


def load(out: Path) -> list[report.Figure]:
    """The figures that `draw` wrote."""
    texts = {path.with_suffix(".png"): path.read_text().split("\n") for path in sorted(out.glob("*.txt"))}
    return [report.Figure(title, caption, png.read_bytes()) for png, (title, caption, _) in texts.items()]


def _figures(work: Work, run: Run) -> Iterator[tuple[str, str, str, figures.Figure]]:
    network = run.network(work.device)
    motion = network.settings.modalities[1]
    where = f"{run.folder.name} on {work.split.dataset}, split {work.split.number}, preset {work.preset}"
    yield (
        "figure_1_7",
        "Figures 1 and 7: what an action looks like to TSN and to TTN",
        f"DeepDraw on {where}, seed 0. Below, from noise alone: what drives the spatial stream (TSN), and the ordered "
        "pair of snippets, with their motion, that drives the TTN branch. Above: the nearest training frames of the "
        "action by the spatial stream's features; black where none is near. p(A,B) and p(B,A): probability of the "
        "action for the drawn pair and for its swap.",
        figures.figure_1_7(_drawn_actions(work, network)),
    )
    yield (
        "figure_6",
        "Figure 6: where the streams and IF-TTN look",
        f"Class activation maps of {where}, for the true action, on test videos that it gets right where there are "
        f"any; the snippets lie on either side of the video's middle. Motion is {motion}. IF-TTN has one map for both "
        "snippets, because it reads them only after their subtraction.",
        figures.figure_6(_cam_examples(work, run, network)),
    )
    runs = {name: work.run(name) for name in (*RECIPES[run.folder.name].needs, run.folder.name)}
    yield (
        "training",
        "Training",
        f"Loss of each recipe over its stages ({work.split.dataset}, split {work.split.number}).",
        figures.training_curves({name: each.metrics() for name, each in runs.items()}),
    )
    scores = run.scores()
    fused = late_fusion([(scores, {head: LATE_FUSION[head] for head in scores.heads})])
    yield (
        "confusion",
        "What is taken for what",
        f"Late-fused scores of {where}, test videos.",
        figures.confusion(fused, scores.labels, scores.actions),
    )


def _snippets(work: Work, videos: tuple[Video, ...], network: Network, index: int) -> dict[str, Tensor]:
    """The central view of one video: per modality (K, C, H, W)."""
    preset = find(work.preset, PRESETS, "preset")
    dataset = SnippetDataset(
        work.store, videos, network.settings.modalities, segments=preset.segments, size=preset.size
    )
    return {modality: torch.from_numpy(x).to(work.device) for modality, x in dataset[0, index][0].items()}


def _images(planes: Tensor) -> UInt8[np.ndarray, "_ H W 3"]:
    return planes.clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def _spread(actions: int, count: int) -> list[int]:
    """Some actions, in neighbouring couples, spread over the list (embedded sets: couples differ in order alone)."""
    first = [2 * round(x) for x in np.linspace(0, actions // 2 - 1, max(1, count // 2))]
    return sorted({action for each in first for action in (each, each + 1) if action < actions})


def _cam_examples(work: Work, run: Run, network: Network) -> list[figures.CamExample]:
    scores = run.scores()
    right = late_fusion([(scores, {h: LATE_FUSION[h] for h in scores.heads})]).argmax(1) == scores.labels
    names = {video.name: index for index, video in enumerate(work.split.test)}
    examples = []
    for action in _spread(len(work.split.actions), 4):
        own = scores.labels == action
        video = scores.videos[int(np.argmax(own & right if (own & right).any() else own))]
        inputs = _snippets(work, work.split.test, network, names[video])
        batch = {modality: x[None].float() for modality, x in inputs.items()}
        maps = class_activation_maps(network, batch, torch.tensor([[action]], device=work.device))
        with torch.inference_mode():
            logits = network(batch).logits
        appearance, motion = network.settings.modalities
        middle = (len(inputs[appearance]) - 1) // 2  # the pair around the middle of the video
        pair = slice(middle, middle + 2)
        shown = {head: each[0, :, 0].cpu().numpy() for head, each in maps.items()}
        said = [logits[head][0].softmax(0)[action].item() for head in (appearance, motion, "ttn")]
        examples.append(
            figures.CamExample(
                title=work.split.actions[action],
                frames=_images(inputs[appearance][pair]),
                motion=inputs[motion][pair].cpu().numpy(),
                spatial=shown[appearance][pair],
                temporal=shown[motion][pair],
                pair=shown["ttn"][middle],
                probabilities=(said[0], said[1], said[2]),
            )
        )
    return examples


def _drawn_actions(work: Work, network: Network) -> list[figures.DrawnAction]:
    size = find(work.preset, PRESETS, "preset").size
    settings = next(settings for settings in deepdraw.PRESETS.values() if settings.crop == size)
    apart = _trained_apart(work, network)
    drawn = []
    for action in _spread(len(work.split.actions), 4):
        *_, tsn = deepdraw.draw(network, action, settings, head="rgb")
        *_, ttn = deepdraw.draw(network, action, settings, head="ttn")
        assert isinstance(tsn.rgb, Tensor)
        assert isinstance(ttn.rgb, Tensor)
        assert isinstance(ttn.motion, Tensor)
        drawings = torch.cat([tsn.rgb, ttn.rgb])
        own = tuple(video for video in work.split.train if video.label == action)[:12]
        frames = torch.cat([_snippets(work, own, network, index)["rgb"] for index in range(len(own))])
        nearest = nearest_frames(network, drawings, frames.float())
        photographs = _images(frames)[nearest.indices[:, 0].cpu().numpy()]
        pair = {"rgb": ttn.rgb, network.settings.modalities[1]: ttn.motion}
        probabilities = swap_report({"this network": network, **apart}, pair, action)
        drawn.append(
            figures.DrawnAction(
                action=work.split.actions[action],
                drawings=_images(drawings),
                photographs=[p if ok else None for p, ok in zip(photographs, nearest.resembles.tolist(), strict=True)],
                motion=ttn.motion.round().byte().cpu().numpy(),
                note="\n".join(
                    f"{name}: p(A,B) {row['p(A,B)']:.2f}, p(B,A) {row['p(B,A)']:.2f}"
                    for name, row in probabilities.iterrows()
                ),
            )
        )
    return drawn


def _trained_apart(work: Work, network: Network) -> dict[str, Network]:
    """A network of another split, which never saw this one: only it can bear witness to a drawing."""
    for split in {1, 2, 3} - {work.split.number}:
        other = Run.of(work.runs, work.split.dataset, split, COMPLETE[0 if "flow" in network.streams else 1])
        if other.finished:
            return {f"network of split {split}": other.network(work.device)}
    return {}
