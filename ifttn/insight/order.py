"""Does a network know which came first? Swaps of a pair, and the real frames that a drawing resembles.

Shapes: M drawings, T frames, C channels, H x W pixels.
"""

from collections.abc import Mapping
from typing import NamedTuple

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from ifttn.insight.cam import undisturbed
from ifttn.model.network import Network, normalise

ORDERS = {"AB": (0, 1), "BA": (1, 0), "AA": (0, 0), "BB": (1, 1)}


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
        A row a network, index `network`; columns p(A,B), p(B,A), gap = p(A,B) - p(B,A), p(A,A), p(B,B).
    """
    orders = torch.tensor(list(ORDERS.values()))
    rows = {}
    for name, network in networks.items():
        inputs = {modality: pair[modality][orders] for modality in network.settings.modalities}  # (4, 2, C, H, W)
        with undisturbed(network), torch.no_grad():
            p_ab, p_ba, p_aa, p_bb = network(inputs).logits[head].softmax(1)[:, action].tolist()
        rows[name] = {"p(A,B)": p_ab, "p(B,A)": p_ba, "gap": p_ab - p_ba, "p(A,A)": p_aa, "p(B,B)": p_bb}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("network")


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
    real = _embed(network, frames)
    nearest = torch.topk(1 - _embed(network, drawings) @ real.T, count, largest=False)
    typical = (1 - real @ real.T)[*torch.triu_indices(len(real), len(real), offset=1)].median()
    return Nearest(nearest.indices, nearest.values, nearest.values[:, 0] < typical)


def _embed(network: Network, images: Float[Tensor, "M 3 H W"]) -> Float[Tensor, "M C"]:
    """Unit vectors; some images at a time, so that many frames fit into memory."""
    with undisturbed(network), torch.no_grad():
        pooled = [network.streams["rgb"](normalise(some, "rgb"))[5].mean((2, 3)) for some in images.split(64)]
    return normalize(torch.cat(pooled))
