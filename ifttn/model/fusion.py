"""Fusion: how a snippet's appearance and motion features become one descriptor, level by level (paper section 3.1).

Shapes: S snippets in the batch, C channels, H x W cells. `a` is the pyramid of the spatial stream, `b` that of the
temporal stream, both after ReLU and so never negative.

In half precision a product is rounded as if it had been computed in single. Trained features reach 21 and fused ones
76, far from fp16's 65504; fp32 from here to TTN's entry would bring the logits 3 % nearer to those of a network all in
fp32 and change no answer, for 8 bytes more an element to keep for backward. So these are plain products.
"""

import torch
from torch import nn

from ifttn.model.backbone import LEVELS, Pyramid


class Attention(nn.Module):
    """IFM, attention: motion points at places, appearance stays (Eq. 2)."""

    def forward(self, a: Pyramid, b: Pyramid) -> Pyramid:
        """Fused pyramid, of the shapes of `a`."""
        return {level: a[level] + a[level] * b[level] for level in a}  # Eq. 2


class Adaptive(nn.Module):
    """IFM, adaptive: learned weights for appearance, motion and their product (Eq. 3).

    The paper gives three scalars; we learn three a level, and start them at (1, 0, 1), where Eq. 3 is Eq. 2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor([[1.0, 0.0, 1.0]]).repeat(len(LEVELS), 1))

    def forward(self, a: Pyramid, b: Pyramid) -> Pyramid:
        """Fused pyramid, of the shapes of `a`."""
        weights = dict(zip(LEVELS, self.alpha.unbind(), strict=True))
        return {
            level: w[0] * a[level] + w[1] * b[level] + w[2] * (a[level] * b[level])  # Eq. 3
            for level, w in weights.items()
            if level in a
        }


class Additive(nn.Module):
    """The fusion of Feichtenhofer et al. 2016 (Table 2): a sum."""

    def forward(self, a: Pyramid, b: Pyramid) -> Pyramid:
        """Fused pyramid, of the shapes of `a`."""
        return {level: a[level] + b[level] for level in a}


class Multiplicative(nn.Module):
    """The fusion of Feichtenhofer et al. 2017 (Table 2): a product.

    Theirs stands inside the spatial stream's residual units; ours leaves the streams as they are.
    """

    def forward(self, a: Pyramid, b: Pyramid) -> Pyramid:
        """Fused pyramid, of the shapes of `a`."""
        return {level: a[level] * b[level] for level in a}


FUSIONS = {
    "attention": Attention,
    "adaptive": Adaptive,
    "additive": Additive,
    "multiplicative": Multiplicative,
}
