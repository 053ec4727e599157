"""Gradient ascent from noise to what an action looks like to a network (DeepDraw; paper, Figures 1 and 7).

Shapes: M snippets drawn together (1 for a single stream, 2 for an ordered pair), C channels, H x W pixels of the canvas.
Drawings are in bytes 0..255 as the network takes them. Normalisation is inside the network, so the published box, steps and
blur hold for RGB and for motion alike.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from ifttn.insight.cam import undisturbed
from ifttn.model.network import Network
from ifttn.vocabulary import MODALITIES, IfttnError


@dataclass(frozen=True)
class Octave:
    """Some steps on one size of canvas; blur and step go linearly from their first value towards their second."""

    steps: int
    canvas: int
    """Side of the canvas (px)."""
    sigma: tuple[float, float]
    """Standard deviation of the blur (px)."""
    step_size: tuple[float, float]
    """Mean absolute change of a step, before box and blur (levels of 255)."""


@dataclass(frozen=True)
class Settings:
    """The size that the network sees, and the octaves of a drawing."""

    crop: int
    octaves: tuple[Octave, ...]

    @property
    def steps(self) -> int:
        """Steps of the whole drawing."""
        return sum(octave.steps for octave in self.octaves)


PRESETS: Mapping[str, Settings] = {
    "tiny": Settings(64, (Octave(40, 64, (1.2, 0.6), (11.0, 11.0)), Octave(60, 77, (0.7, 0.4), (6.0, 3.0)))),
    # auduno/deepdraw, deepdraw.ipynb cell 7: the recipe that needs no auxiliary classifiers.
    "paper": Settings(224, (Octave(190, 224, (2.5, 0.78), (11.0, 11.0)), Octave(450, 269, (0.936, 0.4), (6.0, 3.0)))),
}


@dataclass(frozen=True)
class State:
    """A drawing after one step. Tensors are copies: later steps leave them alone."""

    octave: int
    step: int
    """Steps made so far, in all octaves."""
    of: int
    """Steps of the whole drawing."""
    logit: float
    """The action's logit for the crop on which the step was made, before the step."""
    probability: float
    """The action's softmax probability for that crop."""
    rgb: Float[Tensor, "M 3 H W"] | None
    motion: Float[Tensor, "M C H W"] | None
    sigma: float
    step_size: float


def draw(network: Network, action: int, settings: Settings, *, head: str = "ttn", seed: int = 0) -> Iterator[State]:
    """Ascends the raw logit of an action and yields the state after each step.

    A head of a single stream draws one snippet; a "ttn" head draws an ordered pair whose snippets and modalities ascend
    together. To stop is to stop iterating, to resume is to go on. The network's mode and gradients stay as they are.

    Raises:
        IfttnError: the network has no such head or action.
    """
    if head not in network.heads:
        raise IfttnError(f"the network has no head {head!r}; its heads are {', '.join(network.heads)}")
    if not 0 <= action < network.settings.actions:
        raise IfttnError(f"there is no action {action}; the network knows 0 to {network.settings.actions - 1}")
    return _ascent(network, action, settings, head, seed)
