"""Figures 1 and 7: what an action looks like to TSN and to TTN, and whether the drawings show an order."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from torch import Tensor

from ifttn.gallery.sources import Drawn, Sources, as_images
from ifttn.insight.deepdraw import DrawingStep, draw_best, drawn_pairs
from ifttn.insight.drawing_settings import STARTS, DrawingRecipe
from ifttn.insight.order import SUCCESS, Pair, in_words, nearest_frames, order_report
from ifttn.model.network import Network
from lab import figures

AT_ONCE = 16
"""Drawings in one batch."""
SEEDS_DRAWN = 5
"""Drawings of an action."""
MOST_ACTIONS = 16
"""Data sets with at most this many actions are drawn from five seeds without --full. The embedded data set has 16."""
BLURRED = "The drawings start from noise and are blurred after every step"
DENOISED = (
    "The drawings start from noise and pass through a denoiser of pairs of training snippets, which does not know the "
    f"action of a pair or its order. The networks that draw and the denoiser choose the best of {STARTS} starts"
)


class DrawnPairs(NamedTuple):
    """The drawings of all subjects, and what they show about order."""

    recipe: DrawingRecipe
    shown: dict[int, tuple[int, DrawingStep, DrawingStep]]
    """Action in the figure -> its best seed, and the drawings of TTN and TSN from this seed."""
    report: pd.DataFrame
    """`order_report` of TTN's drawings."""
    frames: dict[tuple[int, int], UInt8[np.ndarray, "2 H W 3"]]
    """(action, seed) -> TTN's frames; empty if there are too many for a sheet."""
    tsn_right: list[bool]
    """Whether each of TSN's drawings shows the form that comes first; empty without a panel."""


def draw_figures_1_7(sources: Sources) -> Iterator[Drawn]:
    """The figure, a sheet of all drawings, and the evidence for their order."""
    drawn = _draw_pairs(sources)
    yield _figure_1_7(sources, drawn)
    if drawn.frames and drawn.report.seed.nunique() > 1:
        yield _sheet(sources, drawn)
    yield _order(sources, drawn)


def _draw_pairs(sources: Sources) -> DrawnPairs:
    """Draw in batches, and keep only the drawings that are shown, because all drawings of UCF101 would fill a GPU."""
    few = sources.recipe.settings.denoised and len(sources.actions) <= MOST_ACTIONS
    actions, seeds = (range(len(sources.actions)), SEEDS_DRAWN) if sources.full or few else (sources.shown, 1)
    subjects, best = list(product(actions, range(seeds))), dict[int, float]()
    drawn = DrawnPairs(sources.recipe, {}, pd.DataFrame(), {}, [])
    reports = []
    for batch in _batches(subjects):
        ttn = _draw(sources.recipe, list(sources.drawing.values()), batch)
        tsn = _draw(sources.recipe._replace(head="spatial", starts=1), [sources.network], batch)
        pairs = drawn_pairs(sources.network, batch, ttn)
        reports.append(order_report(pairs, sources.drawing, sources.apart, frames=sources.frames, panel=sources.panel))
        drawn.tsn_right.extend(_form_that_comes_first(sources, batch, tsn))
        for (action, seed), merit, *both in zip(batch, reports[-1][_merit(reports[-1])], ttn, tsn, strict=True):
            if len(subjects) <= MOST_ACTIONS * SEEDS_DRAWN:
                drawn.frames[action, seed] = as_images(_rgb(both[0]))
            if action in sources.shown and merit > best.get(action, -np.inf):
                best[action] = merit
                drawn.shown[action] = seed, both[0], both[1]
    return drawn._replace(report=pd.concat(reports, ignore_index=True))


def _draw(
    recipe: DrawingRecipe, networks: Sequence[Network], subjects: Sequence[tuple[int, int]]
) -> tuple[DrawingStep, ...]:
    return draw_best(
        networks, subjects, recipe.settings, head=recipe.head, denoiser=recipe.denoiser, starts=recipe.starts
    )


def _merit(report: pd.DataFrame) -> str:
    """The column that chooses the best seed of an action. It is never a column of the network apart."""
    return "margin" if "margin" in report else "own p(A,B)"


def _batches(subjects: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
    return (subjects[first : first + AT_ONCE] for first in range(0, len(subjects), AT_ONCE))


def _form_that_comes_first(
    sources: Sources, subjects: Sequence[tuple[int, int]], drawings: Sequence[DrawingStep]
) -> list[bool]:
    """Whether each drawing of TSN, a single snippet without order, shows the form that comes first in the action."""
    if sources.panel is None:
        return []
    with torch.no_grad():
        logits = sources.panel.jury(torch.cat([_rgb(drawn) for drawn in drawings])).tolist()
    return [logit * sources.panel.rings_first(action) > 0 for logit, (action, _) in zip(logits, subjects, strict=True)]


def _rgb(drawn: DrawingStep) -> Tensor:
    assert drawn.rgb is not None
    return drawn.rgb


def _figure_1_7(sources: Sources, drawn: DrawnPairs) -> Drawn:
    apart = " and ".join(sources.apart)
    witness = f"The network apart (of {apart}) did not draw." if apart else "No network of another split is trained."
    seeds, judge = drawn.report.seed.nunique(), "the panel of judges" if sources.panel else "the networks that draw"
    chosen = f"the best of {seeds} seeds by {judge}, and the number of right seeds" if seeds > 1 else "seed 0"
    how = DENOISED if drawn.recipe.settings.denoised else BLURRED
    head = "the late fusion" if drawn.recipe.head == "fused" else "the TTN branch"
    return Drawn(
        "figure_1_7",
        "Figures 1 and 7: what an action looks like to TSN and to TTN",
        f"DeepDraw on {sources.where}, with the networks of {' and '.join(sources.drawing)}. Each action has {chosen}. "
        f"{how}. Below: the drawing for the spatial stream (TSN), and the ordered pair of snippets with its motion for "
        f"{head}. Above: the nearest training frames of the action by the features of the spatial stream; black if no "
        f"frame is near. p(A,B) and p(B,A): TTN's probability of the action for the pair and for its swap. {witness}",
        figures.figure_1_7([_drawn_action(sources, drawn, action) for action in sources.shown]),
    )


def _drawn_action(sources: Sources, drawn: DrawnPairs, action: int) -> figures.DrawnAction:
    seed, ttn, tsn = drawn.shown[action]
    rows = drawn.report[drawn.report.action == action]
    row = rows.set_index("seed").loc[seed]
    drawings, frames = torch.cat([_rgb(tsn), _rgb(ttn)]), sources.frames(action)
    nearest = nearest_frames(sources.network, drawings, frames.images)
    photographs = as_images(frames.images)[nearest.indices[:, 0].cpu().numpy()]
    note = f"drawing networks: p(A,B) {row['own p(A,B)']:.2f}, p(B,A) {row['own p(B,A)']:.2f}"
    if sources.apart:
        note += f"\nnetwork apart: p(A,B) {row['apart p(A,B)']:.2f}, p(B,A) {row['apart p(B,A)']:.2f}"
    right = {"panel": rows.get("margin"), "network apart": rows.get("apart gap")}
    counts = [f"{(x > 0).sum()} of {len(x)} by the {name}" for name, x in right.items() if x is not None]
    note += f"\nseed {seed}; right sequence: {', '.join(counts)}" if counts else f"\nseed {seed}"
    assert ttn.motion is not None
    return figures.DrawnAction(
        action=sources.actions[action],
        drawings=as_images(drawings),
        photographs=[p if ok else None for p, ok in zip(photographs, nearest.resembles.tolist(), strict=True)],
        motion=ttn.motion.round().clamp(0, 255).byte().cpu().numpy(),
        note=note,
        succeeded=bool(row["own p(A,B)"] >= SUCCESS),
    )


def _sheet(sources: Sources, drawn: DrawnPairs) -> Drawn:
    verdict = "apart gap" if sources.apart else _merit(drawn.report)
    right = drawn.report.set_index(["action", "seed"])[verdict] > (SUCCESS if "p(" in verdict else 0)
    pairs: dict[str, list[tuple[np.ndarray, bool]]] = {}
    for (action, seed), frames in drawn.frames.items():
        pairs.setdefault(sources.actions[action], []).append((frames, bool(right[action, seed])))
    judge = {"apart gap": "the network apart", "margin": "the panel"}.get(verdict, "the networks that draw")
    text = "All pairs that were drawn for Figures 1 and 7: the first snippet on the left. A column has one seed. "
    text += f"A red frame: {judge} finds the wrong order."
    return Drawn("figure_1_7_all", "Figures 1 and 7: all drawings", text, figures.contact_sheet(pairs))


def _order(sources: Sources, drawn: DrawnPairs) -> Drawn:
    real = order_report(_real_pairs(sources, 320 if sources.full else 32), {}, sources.witnesses)
    untrained = _untrained_report(sources, drawn) if drawn.report.seed.nunique() > 1 else None
    gaps = {
        "drawn, by the drawing networks": drawn.report["own gap"],
        "drawn, by a network apart": drawn.report.get("apart gap"),
        "drawn from random weights": None if untrained is None else untrained["apart gap"],
        "drawn, by TSN": drawn.report["tsn gap"],
        "real neighbouring snippets": real["apart gap"],
    }
    words = in_words(drawn.report)
    if drawn.tsn_right:
        words += f" Of TSN's drawings, {sum(drawn.tsn_right)} of {len(drawn.tsn_right)} show what comes first."
    if untrained is not None and "margin" in untrained:
        right = (untrained.margin > 0).sum()
        words += f" In drawings from random weights, the panel sees the right sequence in {right} of {len(untrained)}."
    return Drawn(
        "order",
        "Do the drawings show an order?",
        f"Each dot is a pair of snippets of {sources.where}. {words}",
        figures.order_gaps({line: gap.to_numpy() for line, gap in gaps.items() if gap is not None}),
        drawn.report.assign(action=[sources.actions[int(action)] for action in drawn.report.action]),
    )


def _real_pairs(sources: Sources, count: int) -> Iterator[Pair]:
    """The middle pairs of test videos that are spread over the list."""
    test, middle = sources.work.split.test, sources.middle
    for video in test[:: max(1, len(test) // count)]:
        inputs = {modality: x[middle : middle + 2].float() for modality, x in sources.snippets(video).items()}
        yield Pair(video.label, 0, inputs)


def _untrained_report(sources: Sources, drawn: DrawnPairs) -> pd.DataFrame:
    """The report on drawings of an untrained network, one per action. It shows the effect of the method alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = Network(sources.network.settings).to(sources.work.device).eval()
    reports = []
    for batch in _batches([(int(action), 0) for action in drawn.report.action.unique()]):
        steps = _draw(drawn.recipe, [untrained], batch)
        pairs = drawn_pairs(untrained, batch, steps)
        reports.append(order_report(pairs, {}, sources.witnesses, panel=sources.panel))
    return pd.concat(reports, ignore_index=True)
