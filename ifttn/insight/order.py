"""Does a network know which came first? Swaps of a pair, witnesses that did not draw it, and the real frames that a
drawing resembles.

Shapes: D drawings of M snippets, T frames, C channels, E features, H x W pixels.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, pad

from ifttn.model.network import Network, normalise, undisturbed

SUCCESS = 0.5
"""p(A,B) of the drawing networks below which a drawing did not succeed: they take it for something else themselves."""

ORDERS = {"AB": (0, 1), "BA": (1, 0), "AA": (0, 0), "BB": (1, 1)}

Judge = Callable[[Float[Tensor, "S 3 H W"]], Float[Tensor, " S"]]
"""Of an image, above 0 for what an action of order 0 shows first, below 0 for what it shows last."""


class Pair(NamedTuple):
    """An ordered pair of snippets, drawn or real."""

    action: int
    seed: int
    inputs: Mapping[str, Float[Tensor, "2 _ H W"]]
    """Per modality, snippets A and B in 0..255."""


def swap_report(
    networks: Mapping[str, Network], pair: Mapping[str, Float[Tensor, "2 _ H W"]], action: int, *, head: str = "ttn"
) -> pd.DataFrame:
    """An action's probability for a pair in order, swapped, and with either snippet twice.

    The network that a pair was drawn on passes the swap whatever the pair means: only a network trained apart from it
    gives evidence. A network of differences says one and the same of every (A, A). Without order the gap is 0.

    Args:
        networks: name -> network; put one that was trained apart beside the one that drew.
        pair: per modality, snippets A and B in 0..255.
        action: whose probability is asked for.
        head: whose probability is asked for. The head of a stream takes the mean of its two votes.

    Returns:
        A row a network, index `network`; columns p(A,B), p(B,A), gap = p(A,B) - p(B,A), p(A,A), p(B,B), and becomes,
        the likeliest action of the swapped pair.
    """
    rows = {}
    for name, network in networks.items():
        said = _ordered(network, pair, head)
        p_ab, p_ba, p_aa, p_bb = said[:, action].tolist()
        rows[name] = {"p(A,B)": p_ab, "p(B,A)": p_ba, "gap": p_ab - p_ba, "p(A,A)": p_aa, "p(B,B)": p_bb}
        rows[name]["becomes"] = int(said[1].argmax())
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")


def _ordered(network: Network, pair: Mapping[str, Tensor], head: str) -> Float[Tensor, "4 A"]:
    """Probabilities of the pair in each of ORDERS."""
    orders = torch.tensor(list(ORDERS.values()))
    inputs = {modality: pair[modality][orders] for modality in network.settings.modalities}  # (4, 2, C, H, W)
    with undisturbed(network), torch.no_grad():
        return network(inputs).logits[head].softmax(1)


class Nearest(NamedTuple):
    """The real frames most like each drawing, the nearest first."""

    indices: Int[Tensor, "M n"]
    distances: Float[Tensor, "M n"]
    """Cosine distance, 0..2."""
    resembles: Bool[Tensor, " M"]
    """The nearest frame is nearer to the drawing than half of all pairs of frames are to each other."""


def nearest_frames(
    network: Network, drawings: Float[Tensor, "M 3 H W"], frames: Float[Tensor, "T 3 h w"], *, count: int = 1
) -> Nearest:
    """Finds the photographs for the top row of Figures 1 and 7, by pooled level 5 of the spatial stream alone.

    Where a drawing resembles no frame, the paper shows a black tile (caption of Figure 7).

    Args:
        network: any with a stream for "rgb".
        drawings: in 0..255.
        frames: in 0..255, the candidates; of the drawn action, if the question is which of its moments is drawn.
        count: frames wanted a drawing, at most T.
    """
    real = embed(network, frames)
    nearest = torch.topk(1 - embed(network, drawings) @ real.T, count, largest=False)
    typical = (1 - real @ real.T)[*torch.triu_indices(len(real), len(real), offset=1)].median()
    return Nearest(nearest.indices, nearest.values, nearest.values[:, 0] < typical)


def embed(network: Network, images: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M E"]:
    """Unit vectors: pooled level 5 of the spatial stream. Some images at a time, so that many fit into memory."""
    with undisturbed(network), torch.no_grad():
        pooled = [network.streams["rgb"](normalise(some, "rgb"))[5].mean((2, 3)) for some in images.split(64)]
    return normalize(torch.cat(pooled))


class Frames(NamedTuple):
    """Real frames of an action with their times, 0 at the start of their video and 1 at its end."""

    images: Float[Tensor, "T 3 h w"]
    times: Float[np.ndarray, " T"]


def retrieval(
    network: Network, pair: Float[Tensor, "2 3 H W"], frames: Frames, *, count: int = 20, shuffles: int = 999
) -> dict[str, float]:
    """When do the real frames nearest to A and to B come in their videos? By the spatial stream alone.

    Returns:
        t(A), t(B): mean time of the `count` nearest frames; later: t(B) - t(A); p: share of shuffles of the two sets of
        frames that give a `later` at least as large (permutation test, one-sided).
    """
    found = nearest_frames(network, pair, frames.images, count=min(count, len(frames.times))).indices.cpu().numpy()
    first, second = frames.times[found]
    later = second.mean() - first.mean()
    both, rng = np.concatenate([first, second]), np.random.default_rng(0)
    shuffled = rng.permuted(np.tile(both, (shuffles, 1)), axis=1)
    chance = shuffled[:, len(first) :].mean(1) - shuffled[:, : len(first)].mean(1)
    p = (1 + int((chance >= later - 1e-12).sum())) / (1 + shuffles)
    return {"t(A)": float(first.mean()), "t(B)": float(second.mean()), "later": float(later), "p": float(p)}


def order_report(
    pairs: Iterable[Pair],
    own: Mapping[str, Network],
    apart: Mapping[str, Network],
    *,
    frames: Callable[[int], Frames] | None = None,
    judge: tuple[Judge, Sequence[int]] | None = None,
    head: str = "ttn",
) -> pd.DataFrame:
    """What each pair proves about order, a row a pair; `in_words` puts it in a sentence.

    Args:
        pairs: drawn on `own`, or real; asked for one by one.
        own: networks that drew; what they say of the pair is necessary and proves nothing.
        apart: networks that did not, trained on another split or from another seed: the evidence.
        frames: of an action, the real frames to compare with.
        judge: of images, and for each action its order: 0 if what the judge calls positive comes first, 1 if last.
        head: whose probabilities are asked for.

    Returns:
        Columns action, seed; own/apart p(A,B), p(B,A), gap (means over the networks); becomes, the action of the
        swapped pair; p(A,A), p(B,B); tsn gap, of the mean of snippets' votes (0 by construction); moved, the mean
        p(A,B) of `apart` after shifts of 8 px; fine, the share of energy above half of the highest frequency; with
        `frames` the columns of `retrieval`; with `judge` margin, by how much more the snippet that should
        come first shows it.
    """
    rows = []
    for pair in pairs:
        row: dict[str, Any] = {"action": pair.action, "seed": pair.seed}
        for name, networks in (("own", own), ("apart", apart)):
            if networks:
                said = swap_report(networks, pair.inputs, pair.action, head=head)
                row |= {f"{name} {column}": said[column].mean() for column in ("p(A,B)", "p(B,A)", "gap")}
                row |= {
                    "becomes": said.becomes.iloc[0],
                    "p(A,A)": said["p(A,A)"].iloc[0],
                    "p(B,B)": said["p(B,B)"].iloc[0],
                }
        witness = next(iter((apart or own).values()))
        first = witness.settings.modalities[0]
        row["tsn gap"] = swap_report({"": witness}, pair.inputs, pair.action, head=first)["gap"].iloc[0]
        row["moved"] = float(np.mean([_moved(network, pair, head) for network in (apart or own).values()]))
        row["fine"] = fine_share(pair.inputs["rgb"])
        if frames is not None:
            row |= retrieval(witness, pair.inputs["rgb"], frames(pair.action))
        if judge is not None:
            says, orders = judge
            with torch.no_grad():
                a, b = says(pair.inputs["rgb"]).tolist()
            row["margin"] = (a - b) * (1 - 2 * orders[pair.action])
        rows.append(row)
    return pd.DataFrame(rows)


def _moved(network: Network, pair: Pair, head: str, by: int = 8) -> float:
    """Mean p(A,B) after shifts of 8 px along each axis, the border reflected: a brittle picture collapses."""
    moved = {}
    for modality, images in pair.inputs.items():
        larger = pad(images, (by, by, by, by), mode="reflect")
        height, width = images.shape[-2:]
        places = [(0, by), (2 * by, by), (by, 0), (by, 2 * by)]
        moved[modality] = torch.stack([larger[..., y : y + height, x : x + width] for y, x in places])
    with undisturbed(network), torch.no_grad():
        return float(network(moved).logits[head].softmax(1)[:, pair.action].mean())


def fine_share(images: Float[Tensor, "M C H W"]) -> float:
    """Share of the energy, less the mean, above half of the highest frequency: noise has much, photographs little."""
    energy = torch.fft.fft2(images - images.mean((-2, -1), keepdim=True)).abs().square().mean((0, 1))
    rows, columns = (torch.fft.fftfreq(side, device=images.device) for side in images.shape[-2:])
    fine = torch.hypot(rows[:, None], columns[None]) > 0.25
    return float(energy[fine].sum() / energy.sum().clamp_min(1e-12))


def kendall(report: pd.DataFrame) -> float:
    """Kendall's tau between the order of the snippets and that of their nearest frames' times, over pairs: 1 if B
    always comes later, -1 if earlier."""
    return float(np.sign(report.later).mean())


def _count(right: Any) -> int:
    return int(np.count_nonzero(right))


def in_words(report: pd.DataFrame, what: str = "drawings") -> str:
    """What the report proves, failures counted."""
    count, said = len(report), []
    if "apart gap" in report:
        right = _count(report["apart gap"] > 0)
        said.append(
            f"networks that did not draw them find the order in {right} of {count} {what} "
            f"(mean gap {report['apart gap'].mean():+.2f}, p(A,B) {report['apart p(A,B)'].mean():.2f})"
        )
    if "own gap" in report:
        failed = _count(report["own p(A,B)"] < SUCCESS)
        if failed:
            said.append(f"{failed} of {count} {what} did not succeed (p(A,B) of their own networks below {SUCCESS})")
        said.append(f"the drawing network itself in {_count(report['own gap'] > 0)}, which proves nothing")
    if "margin" in report:
        said.append(f"a judge of form sees the right sequence in {_count(report.margin > 0)} of {count}")
    if "later" in report:
        said.append(
            f"the nearest real frames of B come later than those of A in {_count(report.later > 0)} "
            f"(tau {kendall(report):+.2f}; p < 0.05 in {_count(report.p < 0.05)})"
        )
    said.append(f"the mean of snippets' votes has a gap of at most {report['tsn gap'].abs().max():.0e}")
    sentence = "; ".join(said)
    return sentence[0].upper() + sentence[1:] + "."
