"""Tests whether a pair of snippets shows the order of time: swaps of the pair, networks that did not draw it, and the
times of similar real frames.

Shapes: D drawings of M snippets, T frames, C channels, E features, A actions, H x W pixels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int, Num
from scipy.stats import permutation_test
from torch import Tensor
from torch.nn.functional import normalize

from ifttn.experiment.scores import late_fusion
from ifttn.model.network import Network, normalise, undisturbed

SUCCESS = 0.5
"""A drawing succeeds if its own networks give it at least this p(A,B). Below, they prefer another action."""


class Pair(NamedTuple):
    """An ordered pair of snippets, drawn or real."""

    action: int
    seed: int
    inputs: Mapping[str, Float[Tensor, "2 _ H W"]]
    """Snippets A and B of each modality, in 0..255."""


def swap_report(
    networks: Mapping[str, Network], pair: Mapping[str, Float[Tensor, "2 _ H W"]], action: int, *, head: str = "ttn"
) -> pd.DataFrame:
    """An action's probability for a pair in order, swapped, and with either snippet twice.

    The network that drew a pair can distinguish it from the swapped pair even if it shows no order. Only a network that
    did not draw the pair gives evidence. A network of differences gives the same probability for every (A, A). If the
    order has no effect, the gap is 0.

    Args:
        networks: name -> network. Give both the network that drew the pair and one that was trained apart.
        pair: snippets A and B of each modality, in 0..255.
        action: the action whose probability is reported.
        head: the head that gives the probabilities; the head of a stream takes the mean of its two votes.

    Returns:
        One row per network, with the index `network`. Columns: p(A,B), p(B,A), gap = p(A,B) - p(B,A), p(A,A), p(B,B),
        and becomes, the most likely action of the swapped pair.
    """
    rows = {}
    for name, network in networks.items():
        in_orders = probabilities(network, pair, head, [(0, 1), (1, 0), (0, 0), (1, 1)])
        p_ab, p_ba, p_aa, p_bb = in_orders[:, action].tolist()
        rows[name] = {"p(A,B)": p_ab, "p(B,A)": p_ba, "gap": p_ab - p_ba, "p(A,A)": p_aa, "p(B,B)": p_bb}
        rows[name]["becomes"] = int(in_orders[1].argmax())
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")


def probabilities(
    network: Network, pair: Mapping[str, Tensor], head: str, orders: Sequence[tuple[int, int]] = ((0, 1), (1, 0))
) -> Float[Tensor, "_ A"]:
    """The probabilities of all actions for a pair of snippets, in each of several orders. The head "fused" is the late
    fusion of all heads."""
    inputs = {modality: pair[modality][torch.tensor(orders)] for modality in network.settings.modalities}
    with undisturbed(network), torch.no_grad():
        logits = network(inputs).logits
    return (late_fusion(logits) if head == "fused" else logits[head]).softmax(1)


class Nearest(NamedTuple):
    """The real frames that are most similar to each drawing, the nearest first."""

    indices: Int[Tensor, "M n"]
    resembles: Bool[Tensor, " M"]
    """Whether the nearest frame is nearer to the drawing than the median distance between two frames."""


def nearest_frames(
    network: Network, drawings: Float[Tensor, "M 3 H W"], frames: Float[Tensor, "T 3 h w"], *, count: int = 1
) -> Nearest:
    """Find the photographs for the top row of Figures 1 and 7 by pooled level 5 of the spatial stream.

    If a drawing resembles no frame, the paper shows a black tile (caption of Figure 7).

    Args:
        network: any network with a stream for "rgb".
        drawings: in 0..255.
        frames: the candidates, in 0..255.
        count: the number of frames for each drawing, at most T.
    """
    real = embed(network, frames)
    distances, indices = torch.topk(1 - embed(network, drawings) @ real.T, count, largest=False)
    typical = (1 - real @ real.T)[*torch.triu_indices(len(real), len(real), offset=1)].median()
    return Nearest(indices, distances[:, 0] < typical)


def embed(network: Network, images: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M E"]:
    """Pooled level 5 of the spatial stream as unit vectors, computed for 64 images at a time to save memory."""
    with undisturbed(network), torch.no_grad():
        pooled = [network.streams["rgb"](normalise(some, "rgb"))[5].mean((2, 3)) for some in images.split(64)]
    return normalize(torch.cat(pooled))


class Frames(NamedTuple):
    """Real frames of an action and their times: 0 at the start of the video, 1 at its end."""

    images: Float[Tensor, "T 3 h w"]
    times: Float[np.ndarray, " T"]

    @classmethod
    def of(cls, videos: Num[Tensor, "videos K 3 h w"]) -> "Frames":
        """The frames of videos from the centres of their K segments."""
        count, segments = videos.shape[:2]
        return cls(videos.flatten(0, 1).float(), np.tile((np.arange(segments) + 0.5) / segments, count))


NEAREST = 20
"""Frames whose mean time is the time of a drawing."""


def retrieval(network: Network, pair: Float[Tensor, "2 3 H W"], frames: Frames) -> dict[str, float]:
    """The times of the real frames that are nearest to A and to B, by the spatial stream.

    Returns:
        t(A), t(B): the mean time of the NEAREST nearest frames; later: t(B) - t(A); p: the p-value of a one-sided
        permutation test of `later`; photographs: the share of A and B that resemble a real frame.
    """
    indices, resembles = nearest_frames(network, pair, frames.images, count=min(NEAREST, len(frames.times)))
    times = frames.times[indices.cpu().numpy()]
    test = permutation_test(
        (times[1], times[0]),
        lambda b, a, axis: b.mean(axis) - a.mean(axis),
        vectorized=True,
        n_resamples=999,
        alternative="greater",
        rng=np.random.default_rng(0),
    )
    first, second = times.mean(1)
    found = float(resembles.float().mean())
    later, p = float(second - first), float(test.pvalue)
    return {"t(A)": float(first), "t(B)": float(second), "later": later, "p": p, "photographs": found}


def order_report(
    pairs: Iterable[Pair],
    own: Mapping[str, Network],
    apart: Mapping[str, Network],
    *,
    frames: Callable[[int], Frames] | None = None,
    panel: Callable[[Pair], Mapping[str, float]] | None = None,
) -> pd.DataFrame:
    """Measure whether networks see the order of the snippets: a row for each pair. `in_words` summarises the report.

    Args:
        pairs: pairs that `own` drew, or real pairs; they are read one by one.
        own: networks that drew the pairs. That they distinguish the order proves nothing.
        apart: networks that did not draw the pairs (of another split or another seed). They give the evidence.
        frames: returns the real frames of an action, to compare with.
        panel: measures a pair without a trained network and returns named values (`ring_judges.FactorJudges`).

    Returns:
        Columns: action, seed; own/apart p(A,B), p(B,A), gap (means over the networks); becomes, the action of the
        swapped pair; p(A,A), p(B,B); tsn gap, the gap of the mean of snippets' votes (0 by construction); with
        `frames`, the columns of `retrieval`; with `panel`, its columns.
    """
    rows = []
    witness = next(iter((apart or own).values()))
    for pair in pairs:
        row: dict[str, Any] = {"action": pair.action, "seed": pair.seed}
        for name, networks in (("own", own), ("apart", apart)):
            if networks:
                report = swap_report(networks, pair.inputs, pair.action)
                row |= {f"{name} {column}": report[column].mean() for column in ("p(A,B)", "p(B,A)", "gap")}
                row |= {column: report[column].iloc[0] for column in ("becomes", "p(A,A)", "p(B,B)")}
        appearance = witness.settings.modalities[0]
        tsn = swap_report({"": witness}, pair.inputs, pair.action, head=appearance)
        row["tsn gap"] = tsn["gap"].round(5).iloc[0]  # on a GPU, rounding leaves about 1e-7
        if frames is not None:
            row |= retrieval(witness, pair.inputs["rgb"], frames(pair.action))
        if panel is not None:
            row |= panel(pair)
        rows.append(row)
    return pd.DataFrame(rows)


def in_words(report: pd.DataFrame) -> str:
    """The results of `order_report` as a sentence, with the number of failures."""
    count, parts = len(report), []
    if "apart gap" in report:
        parts.append(
            f"networks that did not draw them find the order in {(report['apart gap'] > 0).sum()} of {count} drawings "
            f"(mean gap {report['apart gap'].mean():+.2f}, p(A,B) {report['apart p(A,B)'].mean():.2f})"
        )
    if "own gap" in report:
        failed = np.count_nonzero(report["own p(A,B)"] < SUCCESS)
        if failed:
            parts.append(f"{failed} of {count} drawings did not succeed (p(A,B) of their own networks below {SUCCESS})")
        parts.append(f"the drawing network itself finds it in {(report['own gap'] > 0).sum()}, which proves nothing")
    if "margin" in report:
        parts.append(f"the panel of judges sees the right sequence in {(report.margin > 0).sum()} of {count}")
        parts.append(
            f"{100 * report.scene.mean():.0f} % of the snippets show the right scene and "
            f"{100 * report.balls.mean():.0f} % both balls"
        )
    if "photographs" in report:
        parts.append(f"{100 * report.photographs.mean():.0f} % of the drawings resemble a real frame of the action")
    if "later" in report:
        # Kendall's tau between the order of the snippets and that of their nearest frames' times, over pairs.
        parts.append(
            f"the nearest real frames of B come later than those of A in {(report.later > 0).sum()} "
            f"(tau {np.sign(report.later).mean():+.2f}; p < 0.05 in {(report.p < 0.05).sum()})"
        )
    parts.append(f"the mean of snippets' votes has a gap of at most {report['tsn gap'].abs().max():.1g}")
    sentence = "; ".join(parts)
    return sentence[0].upper() + sentence[1:] + "."
