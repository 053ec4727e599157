"""Dynamic image network (Bilen et al., CVPR 2016): approximate rank pooling of frames, then CaffeNet, a 2D network.

Shapes: S snippets of T = 10 RGB frames, as in the paper's multiple dynamic images, H x W pixels, A actions.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ifttn.model.peers.plain import CAFFENET, Fit, plain
from ifttn.model.peers.streams import Streams

DIN_FRAMES = 10


def rank_coefficients(frames: int) -> Float[Tensor, " T"]:
    """Weights of T frames in a dynamic image. Their sum is zero, and later frames have larger weights.

    alpha_t = 2(T - t + 1) - (T + 1)(H_T - H_(t-1)), H_t = 1 + 1/2 + ... + 1/t. This is the first step
    of learning to rank the running means of the frames by time.
    """
    t = torch.arange(1, frames + 1, dtype=torch.float64)
    harmonic = torch.cat([torch.zeros(1, dtype=t.dtype), (1 / t).cumsum(0)])
    return (2 * (frames - t + 1) - (frames + 1) * (harmonic[-1] - harmonic[:-1])).float()


class RankPooling(nn.Module):
    """Frames -> their dynamic image, scaled to the range of a normalised image. Equal frames give an image of zeros."""

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.weights: Tensor
        self.register_buffer("weights", rank_coefficients(frames), persistent=False)

    def forward(self, planes: Float[Tensor, "S planes H W"]) -> Float[Tensor, "S 3 H W"]:
        """T normalised frames, stacked along the channels -> one image in -2..2."""
        image = torch.einsum("stchw,t->schw", planes.unflatten(1, (-1, 3)), self.weights.to(planes.dtype))
        # Values below a hundredth are rounding errors and are not amplified.
        return 2 * image / image.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-2)


def dynamic_image_network(actions: int, size: int = 224, width: int = 96) -> Streams:
    """The stream on dynamic images. Its input is T RGB frames of each snippet."""
    return Streams({"rgb": nn.Sequential(RankPooling(DIN_FRAMES), plain(CAFFENET, Fit(3, actions, size, width)))})
