"""Figures 1 and 7: what an action looks like to TSN and to TTN, and whether the drawings carry order."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from torch import Tensor

from ifttn.gallery.sources import Drawn, Sources, as_images
from ifttn.insight.deepdraw import DrawingStep, draw_best
from ifttn.insight.drawing_settings import STARTS, DrawingRecipe
from ifttn.insight.order import SUCCESS, Pair, in_words, nearest_frames, order_report
from ifttn.model.network import Network
from lab import figures

AT_ONCE = 16
"""Drawings in one batch."""
SEEDS_DRAWN = 5
"""Drawings of an action."""
MOST_ACTIONS = 16
"""Actions that are drawn from five seeds without being asked for: those of the embedded data set."""
BLURRED = "From noise alone, blurred after every step"
DENOISED = (
    "From noise alone, through a denoiser of pairs of training snippets, which knows what two snippets of a video look "
    f"like, but neither their action nor which came first; the networks that draw choose among {STARTS} starts"
)


class DrawnPairs(NamedTuple):
    """The drawings of all subjects, and what they show about order."""

    recipe: DrawingRecipe
    shown: dict[int, tuple[int, DrawingStep, DrawingStep]]
    """By action in the figure: its best seed, TTN's drawing from it, and TSN's."""
    report: pd.DataFrame
    """`order_report` of TTN's drawings."""
    frames: dict[tuple[int, int], UInt8[np.ndarray, "2 H W 3"]]
    """By action and seed, TTN's frames; empty where there are more than a sheet holds."""
    tsn_right: list[bool]
    """Whether TSN's drawings show the form that comes first; empty without a panel."""


def draw_figures_1_7(sources: Sources) -> Iterator[Drawn]:
    """The figure, all drawings on one sheet, and what they prove."""
    drawn = _draw_pairs(sources)
    yield _figure_1_7(sources, drawn)
    if drawn.frames and drawn.report.seed.nunique() > 1:
        yield _sheet(sources, drawn)
    yield _order(sources, drawn)


def _draw_pairs(sources: Sources) -> DrawnPairs:
    """Draw in batches, and keep only the drawings that are shown: all drawings of UCF101 would fill a GPU."""
    few = sources.recipe.settings.denoised and len(sources.actions) <= MOST_ACTIONS
    actions, seeds = (range(len(sources.actions)), SEEDS_DRAWN) if sources.full or few else (sources.shown, 1)
    subjects, best = list(product(actions, range(seeds))), dict[int, float]()
    drawn = DrawnPairs(sources.recipe, {}, pd.DataFrame(), {}, [])
    reports = []
    for batch in _batches(subjects):
        ttn = _draw(sources.recipe, list(sources.drawing.values()), batch)
        tsn = _draw(sources.recipe._replace(head="spatial", starts=1), [sources.network], batch)
        reports.append(_order_report(sources, _pairs(sources, batch, ttn), sources.drawing, sources.apart, frames=True))
        drawn.tsn_right.extend(_form_that_comes_first(sources, batch, tsn))
        for (action, seed), merit, *both in zip(batch, _merits(reports[-1]), ttn, tsn, strict=True):
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


def _merits(report: pd.DataFrame) -> list[float]:
    """By which the best seed of an action is chosen: never by the network apart."""
    return report[_merit(report)].tolist()


def _merit(report: pd.DataFrame) -> str:
    return "margin" if "margin" in report else "own p(A,B)"


def _batches(subjects: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
    return (subjects[first : first + AT_ONCE] for first in range(0, len(subjects), AT_ONCE))


def _pairs(sources: Sources, subjects: Sequence[tuple[int, int]], drawings: Sequence[DrawingStep]) -> Iterator[Pair]:
    for (action, seed), drawn in zip(subjects, drawings, strict=True):
        assert drawn.motion is not None
        yield Pair(action, seed, dict(zip(sources.modalities, (_rgb(drawn), drawn.motion), strict=True)))


def _order_report(
    sources: Sources, pairs: Iterator[Pair], own: dict[str, Network], apart: dict[str, Network], *, frames: bool = False
) -> pd.DataFrame:
    return order_report(pairs, own, apart, frames=sources.frames if frames else None, panel=sources.panel)


def _form_that_comes_first(
    sources: Sources, subjects: Sequence[tuple[int, int]], drawings: Sequence[DrawingStep]
) -> list[bool]:
    """TSN draws one snippet, which has no order; but it may show what comes first in the action."""
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
    witness = f"the network of {apart} did not draw." if apart else "no network of another split is trained."
    seeds, judge = drawn.report.seed.nunique(), "the panel of judges" if sources.panel else "the networks that draw"
    chosen = f"the best of {seeds} seeds by {judge}, and how many are right" if seeds > 1 else "seed 0"
    how = DENOISED if drawn.recipe.settings.denoised else BLURRED
    head = "the late fusion" if drawn.recipe.head == "fused" else "the TTN branch"
    return Drawn(
        "figure_1_7",
        "Figures 1 and 7: what an action looks like to TSN and to TTN",
        f"DeepDraw on {sources.where}, networks of {' and '.join(sources.drawing)}; of each action {chosen}. {how}. "
        "Below: what drives the spatial stream (TSN), and the ordered pair of snippets, with their motion, that drives "
        f"{head}. Above: the nearest training frames of the action by the spatial stream's features; black where none "
        f"is near. p(A,B) and p(B,A): probability of the action for the drawn pair and for its swap by TTN; {witness}",
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
        note += f"; apart: p(A,B) {row['apart p(A,B)']:.2f}, p(B,A) {row['apart p(B,A)']:.2f}"
    right = {"panel": rows.get("margin"), "network apart": rows.get("apart gap")}
    told = [f"{(x > 0).sum()} of {len(x)} by the {name}" for name, x in right.items() if x is not None]
    note += f"\nseed {seed}; right sequence: {', '.join(told)}" if told else f"\nseed {seed}"
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
    text = f"Every pair that was drawn for Figures 1 and 7. Framed in red: {judge} finds another order."
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
        words += f" Of drawings from random weights, {right} of {len(untrained)} have the right sequence."
    return Drawn(
        "order",
        "Do the drawings carry order?",
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
    """What an untrained network draws, one drawing an action: the share of the method itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        untrained = Network(sources.network.settings).to(sources.work.device).eval()
    reports = []
    for batch in _batches([(int(action), 0) for action in drawn.report.action.unique()]):
        steps = _draw(drawn.recipe, [untrained], batch)
        reports.append(_order_report(sources, _pairs(sources, batch, steps), {}, sources.witnesses))
    return pd.concat(reports, ignore_index=True)
