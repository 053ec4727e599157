"""The colours of real frames and the values of real motion, which a drawing can be held to.

Shapes: C channels, H x W pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ifttn.data.loading import whole_snippets
from ifttn.data.store import Store
from ifttn.vocabulary import Video

FITTED_ON = 48
"""Training videos that palettes are fitted on."""
FARTHEST = 1.8
"""Largest distance of a pixel from the mean, in deviations of real pixels."""


@dataclass(frozen=True)
class Palette:
    """Mean and covariance over channels of the pixels of one modality.

    A drawing with a palette starts at the mean, and moves most along the directions in which real pixels vary most:
    colour decorrelation. The published one is ImageNet's, and suppresses colours that an action may depend on.
    """

    mean: Float[Tensor, " C"]
    root: Float[Tensor, "C C"]
    """Symmetric square root of the covariance (levels of 255)."""

    @classmethod
    def of(cls, images: Tensor) -> "Palette":
        """Fit a palette on images (..., C, H, W) in 0..255."""
        pixels = images.float().movedim(-3, -1).flatten(0, -2)
        values, vectors = torch.linalg.eigh(torch.cov(pixels.T) + torch.eye(pixels.shape[1], device=pixels.device))
        return cls(pixels.mean(0), vectors @ values.sqrt().diag() @ vectors.T)

    def steepest(self, gradient: Float[Tensor, "*_ C H W"]) -> Float[Tensor, "*_ C H W"]:
        """The steepest ascent where distance is measured in deviations of real pixels, not in levels."""
        root = self.root.to(gradient)
        return torch.einsum("cd,...dhw->...chw", root @ root, gradient)

    def clamp(self, images: Float[Tensor, "*_ C H W"]) -> Float[Tensor, "*_ C H W"]:
        """Move pixels farther than FARTHEST from the mean, in root mean square over channels, back towards it."""
        mean, root = self.mean.to(images)[:, None, None], self.root.to(images)
        z = torch.einsum("cd,...dhw->...chw", torch.linalg.inv(root), images - mean)
        far = z.square().mean(-3, keepdim=True).sqrt() / FARTHEST
        return mean + (images - mean) / far.clamp_min(1)


def fit_palettes(
    store: Store, videos: Sequence[Video], modalities: Sequence[str], segments: int, device: str = "cpu"
) -> dict[str, Palette]:
    """A palette of each modality, fitted on the test snippets of videos that are spread over the list."""
    chosen = videos[:: max(1, len(videos) // FITTED_ON)]
    snippets = [whole_snippets(store, video, modalities, segments) for video in chosen]
    return {m: Palette.of(torch.cat([each[m] for each in snippets]).to(device)) for m in modalities}
