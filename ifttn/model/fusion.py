"""Fusion of the appearance and motion features of a snippet, level by level (paper section 3.1).

Shapes: S snippets in the batch, C channels, H x W cells. `a` is the pyramid of the spatial stream, `b` that of the
temporal stream. Both come after ReLU and are never negative.

The products stay in half precision under autocast. Trained features reach 21 and fused features 76, far below fp16's
limit of 65504. With fp32 from here to TTN's entry, the logits would be 3 % closer to those of a network in fp32, no
prediction would change, and the backward pass would keep 8 more bytes per element.
"""

import torch
from torch import nn

from ifttn.model.backbone import LEVELS, Pyramid


class Attention(nn.Module):
    """IFM, attention: motion strengthens the appearance features at moving places (Eq. 2)."""

    def forward(self, a: Pyramid, b: Pyramid) -> Pyramid:
        """Fused pyramid, of the shapes of `a`."""
        return {level: a[level] + a[level] * b[level] for level in a}  # Eq. 2


class Adaptive(nn.Module):
    """IFM, adaptive: learned weights for appearance, motion and their product (Eq. 3).

    The paper has three scalars. We learn three per level. They start at (1, 0, 1), which makes Eq. 3 equal to Eq. 2.
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
    """The sum of both, as in Feichtenhofer et al. 2016 (Table 2)."""

    def forward(self, a: Pyramid, b: Pyramid) -> Pyramid:
        """Fused pyramid, of the shapes of `a`."""
        return {level: a[level] + b[level] for level in a}


class Multiplicative(nn.Module):
    """The product of both, as in Feichtenhofer et al. 2017 (Table 2).

    They multiply inside the residual units of the spatial stream. We do not change the streams.
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
