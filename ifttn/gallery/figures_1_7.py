"""Figures 1 and 7: what an action looks like to TSN and to TTN, and whether the drawings carry order."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple, cast

import pandas as pd
import torch
from torch import Tensor

from ifttn.gallery.sources import SEEDS, Drawn, Sources, as_images
from ifttn.insight.deepdraw import DrawingStep, draw_many
from ifttn.insight.drawing_settings import DRAWING_PRESETS, Material, Settings, preset_for
from ifttn.insight.order import SUCCESS, Pair, in_words, nearest_frames, order_report
from ifttn.insight.palette import fit_palettes
from ifttn.model.network import Network
from lab import figures

AT_ONCE = 16
"""Drawings in one batch."""
BLURRED = "From noise alone, blurred after every step"
DENOISED = (
    "From noise alone, through a denoiser of pairs of training snippets, which knows what two snippets of a video look "
    "like, but neither their action nor which came first"
)


class DrawnPairs(NamedTuple):
    """The drawings of all subjects by one method, and what they show about order."""

    settings: Settings
    material: Material
    shown: dict[int, tuple[DrawingStep, DrawingStep]]
    """By action in the figure: TTN's drawing and TSN's, of seed 0."""
    report: pd.DataFrame
    """`order_report` of TTN's drawings."""
    tsn_right: list[bool]
    """Whether TSN's drawings show the form that comes first; empty without a jury."""


def draw_figures_1_7(sources: Sources) -> Iterator[Drawn]:
    """By DeepDraw as published. If a denoiser is trained, its drawings are the main figure, and those stand beside."""
    palettes = fit_palettes(
        sources.work.store, sources.work.split.train, sources.modalities, sources.segments, sources.work.device
    )
    published = _draw_pairs(sources, preset_for(sources.preset.size), Material(palettes))
    if sources.denoiser is None:
        hint = DRAWING_PRESETS["tiny-denoised"].crop == sources.preset.size
        how = f"{BLURRED} (`ifttn figures --denoise` draws them through a denoiser)" if hint else BLURRED
        yield _figure_1_7(sources, published, "figure_1_7", "Figures 1 and 7", how)
        yield _order(sources, published, "order", "")
        return
    denoised = _draw_pairs(sources, DRAWING_PRESETS["tiny-denoised"], Material(denoiser=sources.denoiser))
    yield _figure_1_7(sources, denoised, "figure_1_7", "Figures 1 and 7", DENOISED)
    yield _order(sources, denoised, "order", "")
    yield _figure_1_7(sources, published, "figure_1_7_published", "Figures 1 and 7 by DeepDraw as published", BLURRED)
    yield _order(sources, published, "order_published", ", by DeepDraw as published")


def _draw_pairs(sources: Sources, settings: Settings, material: Material) -> DrawnPairs:
    """Draw in batches, and keep only the drawings that are shown: all drawings of UCF101 would fill a GPU."""
    actions, seeds = (range(len(sources.actions)), SEEDS) if sources.full else (sources.shown, 1)
    shown: dict[int, tuple[DrawingStep, DrawingStep]] = {}
    reports, tsn_right = [], list[bool]()
    for batch in _batches(list(product(actions, range(seeds)))):
        ttn = _last_steps(list(sources.drawing.values()), batch, settings, "ttn", material)
        tsn = _last_steps([sources.network], batch, settings, "spatial", material)
        reports.append(_order_report(sources, _pairs(sources, batch, ttn), sources.drawing, sources.apart, frames=True))
        tsn_right += _form_that_comes_first(sources, batch, tsn)
        for (action, seed), *both in zip(batch, ttn, tsn, strict=True):
            if seed == 0 and action in sources.shown:
                shown[action] = both[0], both[1]
    return DrawnPairs(settings, material, shown, pd.concat(reports, ignore_index=True), tsn_right)


def _batches(subjects: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
    return (subjects[first : first + AT_ONCE] for first in range(0, len(subjects), AT_ONCE))


def _last_steps(
    networks: Sequence[Network],
    subjects: Sequence[tuple[int, int]],
    settings: Settings,
    head: str,
    material: Material,
) -> tuple[DrawingStep, ...]:
    (last,) = deque(draw_many(networks, subjects, settings, head=head, material=material), maxlen=1)
    return last


def _pairs(sources: Sources, subjects: Sequence[tuple[int, int]], drawings: Sequence[DrawingStep]) -> Iterator[Pair]:
    for (action, seed), drawn in zip(subjects, drawings, strict=True):
        assert drawn.motion is not None
        yield Pair(action, seed, dict(zip(sources.modalities, (_rgb(drawn), drawn.motion), strict=True)))


def _order_report(
    sources: Sources, pairs: Iterator[Pair], own: dict[str, Network], apart: dict[str, Network], *, frames: bool = False
) -> pd.DataFrame:
    margin = None if sources.jury is None else sources.margin
    return order_report(pairs, own, apart, frames=sources.frames if frames else None, margin=margin)


def _form_that_comes_first(
    sources: Sources, subjects: Sequence[tuple[int, int]], drawings: Sequence[DrawingStep]
) -> list[bool]:
    """TSN draws one snippet, which has no order; but it may show what comes first in the action."""
    if sources.jury is None:
        return []
    with torch.no_grad():
        logits = sources.jury(torch.cat([_rgb(drawn) for drawn in drawings])).tolist()
    return [logit * sources.first_form[action] > 0 for logit, (action, _) in zip(logits, subjects, strict=True)]


def _rgb(drawn: DrawingStep) -> Tensor:
    assert drawn.rgb is not None
    return drawn.rgb


def _figure_1_7(sources: Sources, drawn: DrawnPairs, name: str, title: str, how: str) -> Drawn:
    apart = " and ".join(sources.apart)
    witness = f"the network of {apart} did not draw." if apart else "no network of another split is trained."
    return Drawn(
        name,
        f"{title}: what an action looks like to TSN and to TTN",
        f"DeepDraw on {sources.where}, seed 0, networks of {' and '.join(sources.drawing)}. {how}. Below: what drives "
        "the spatial stream (TSN), and the ordered pair of snippets, with their motion, that drives the TTN branch. "
        "Above: the nearest training frames of the action by the spatial stream's features; black where none is near. "
        f"p(A,B) and p(B,A): probability of the action for the drawn pair and for its swap; {witness}",
        figures.figure_1_7([_drawn_action(sources, drawn, action) for action in sources.shown]),
    )


def _drawn_action(sources: Sources, drawn: DrawnPairs, action: int) -> figures.DrawnAction:
    ttn, tsn = drawn.shown[action]
    row = drawn.report[(drawn.report.action == action) & (drawn.report.seed == 0)].iloc[0]
    drawings, frames = torch.cat([_rgb(tsn), _rgb(ttn)]), sources.frames(action)
    nearest = nearest_frames(sources.network, drawings, frames.images)
    photographs = as_images(frames.images)[nearest.indices[:, 0].cpu().numpy()]
    note = f"drawing networks: p(A,B) {row['own p(A,B)']:.2f}, p(B,A) {row['own p(B,A)']:.2f}"
    if sources.apart:
        note += f"; apart: p(A,B) {row['apart p(A,B)']:.2f}, p(B,A) {row['apart p(B,A)']:.2f}"
    if "margin" in row:
        note += f"\njudge of form: {'right' if row.margin > 0 else 'wrong'} sequence ({row.margin:+.1f})"
    assert ttn.motion is not None
    return figures.DrawnAction(
        action=sources.actions[action],
        drawings=as_images(drawings),
        photographs=[p if ok else None for p, ok in zip(photographs, nearest.resembles.tolist(), strict=True)],
        motion=ttn.motion.round().clamp(0, 255).byte().cpu().numpy(),
        note=note,
        succeeded=bool(row["own p(A,B)"] >= SUCCESS),
    )


def _order(sources: Sources, drawn: DrawnPairs, name: str, how: str) -> Drawn:
    real = order_report(_real_pairs(sources, 320 if sources.full else 32), {}, sources.witnesses)
    untrained = _untrained_report(sources, drawn) if sources.full else None
    gaps = {
        "drawn, by the drawing networks": drawn.report["own gap"],
        "drawn, by a network apart": drawn.report.get("apart gap"),
        "drawn from random weights": None if untrained is None else untrained["apart gap"],
        "drawn, by TSN": drawn.report["tsn gap"],
        "real neighbouring snippets": real["apart gap"],
    }
    words = in_words(drawn.report)
    if sources.jury is not None and drawn.tsn_right:
        words += f" The judge of form is a jury of {len(sources.jury.judges)}."
        words += f" Of TSN's drawings, {sum(drawn.tsn_right)} of {len(drawn.tsn_right)} show what comes first."
    if untrained is not None and "margin" in untrained:
        right = (untrained.margin > 0).sum()
        words += f" Of drawings from random weights, {right} of {len(untrained)} have the right sequence."
    return Drawn(
        name,
        f"Do the drawings carry order{how}?",
        f"Each dot is a pair of snippets of {sources.where}. {words}",
        figures.order_gaps({line: gap.to_numpy() for line, gap in gaps.items() if gap is not None}),
        drawn.report.assign(action=[sources.actions[int(action)] for action in drawn.report.action]),
    )


def _real_pairs(sources: Sources, count: int) -> Iterator[Pair]:
    """The pair around the middle of test videos that are spread over the list."""
    test, middle = sources.work.split.test, sources.middle
    for video in test[:: max(1, len(test) // count)]:
        inputs = {modality: x[middle : middle + 2].float() for modality, x in sources.snippets(video).items()}
        yield Pair(video.label, 0, inputs)


def _untrained_report(sources: Sources, drawn: DrawnPairs) -> pd.DataFrame:
    """What untrained networks draw, one for each seed: the share of the method itself."""
    reports = []
    for seed, own in drawn.report.groupby("seed"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cast(int, seed))
            untrained = Network(sources.network.settings).to(sources.work.device).eval()
        for batch in _batches([(int(action), cast(int, seed)) for action in own.action]):
            steps = _last_steps([untrained], batch, drawn.settings, "ttn", drawn.material)
            reports.append(_order_report(sources, _pairs(sources, batch, steps), {}, sources.witnesses))
    return pd.concat(reports, ignore_index=True)
