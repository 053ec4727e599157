"""Gradient ascent from noise to what an action looks like to a network (DeepDraw; paper, Figures 1 and 7).

Shapes: M snippets drawn together (1 for a single stream, 2 for an ordered pair), C channels, H x W pixels of a canvas.
Drawings are in 0..255 as the network takes them: normalisation is inside the network, so that the published box,
steps and blur hold for RGB and for motion alike.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from ifttn.insight.cam import undisturbed
from ifttn.model.network import Network, normalise
from ifttn.vocabulary import MODALITIES, IfttnError


@dataclass(frozen=True)
class Octave:
    """Steps on one size of canvas. Blur and step size go linearly from their first value to their second."""

    steps: int
    canvas: int
    """Side of the canvas (px)."""
    sigma: tuple[float, float]
    """Standard deviation of the blur after a step (px)."""
    step_size: tuple[float, float]
    """Mean change of a pixel by a step, before box and blur (levels of 255)."""


@dataclass(frozen=True)
class Settings:
    """The octaves of a drawing, and the side of the crop (px) that the network sees of a larger canvas."""

    crop: int
    octaves: tuple[Octave, ...]
    contrastive: bool = False
    """Ascend the action's logit less the log-sum-exp of the others, instead of the logit alone as published."""


PRESETS: Mapping[str, Settings] = {
    # The embedded actions are made of the same four factors: their logits rise together, so that the logit alone draws
    # what half of the actions share (the scene) until another of them has the higher one.
    "tiny": Settings(
        64, (Octave(40, 64, (1.2, 0.6), (11.0, 11.0)), Octave(60, 77, (0.6, 0.4), (6.0, 3.0))), contrastive=True
    ),
    # auduno/deepdraw, deepdraw.ipynb, cell 7: the published recipe that needs no auxiliary classifiers.
    "paper": Settings(224, (Octave(190, 224, (2.5, 0.78), (11.0, 11.0)), Octave(450, 269, (0.936, 0.4), (6.0, 3.0)))),
}


@dataclass(frozen=True)
class State:
    """A drawing after one step; later steps leave its tensors alone."""

    octave: int
    step: int
    """Steps made so far, over all octaves."""
    of: int
    """Steps of the whole drawing."""
    logit: float
    """Of the action, for the crop that the step began with."""
    probability: float
    """Softmax of the head's logits at the action, for the same crop."""
    rgb: Float[Tensor, "M 3 H W"] | None
    motion: Float[Tensor, "M C H W"] | None
    sigma: float
    step_size: float


def draw(network: Network, action: int, settings: Settings, *, head: str = "ttn", seed: int = 0) -> Iterator[State]:
    """Draws by ascending an action's raw logit (or its contrast), and yields the state after every step.

    The head of a stream draws one snippet of its modality. A temporal head draws an ordered pair, all snippets and
    modalities jointly; a modality that the head does not see stays noise. To stop is to stop iterating, to resume is
    to iterate on. Whatever is done with the network between two steps, its mode and gradients stay as they are.

    Raises:
        IfttnError: the network has no such head or action.
    """
    if head not in network.heads:
        raise IfttnError(f"no head {head!r} in this network: choose from {', '.join(network.heads)}")
    if not 0 <= action < network.settings.actions:
        raise IfttnError(f"no action {action} in this network: choose from 0 to {network.settings.actions - 1}")
    return _ascent(network, action, settings, head, torch.Generator().manual_seed(seed))


def _ascent(
    network: Network, action: int, settings: Settings, head: str, generator: torch.Generator
) -> Iterator[State]:
    canvases = _start(network, head, settings.octaves[0].canvas, generator)
    done, of = 0, sum(octave.steps for octave in settings.octaves)
    for number, octave in enumerate(settings.octaves):
        canvases = {modality: _enlarge(canvas, octave.canvas) for modality, canvas in canvases.items()}
        for i in range(octave.steps):
            sigma, step_size = (a + (b - a) * i / octave.steps for a, b in (octave.sigma, octave.step_size))
            place = _corner(octave.canvas - settings.crop, settings.crop, generator)
            crops = {modality: canvas[place] for modality, canvas in canvases.items()}
            logits, gradients = _slope(network, head, action, crops, settings.contrastive)
            logit, probability = logits[action].item(), logits.softmax(0)[action].item()
            for modality, canvas in canvases.items():
                canvas[place] = _step(crops[modality], gradients[modality], step_size, sigma)
            done += 1
            drawn = {"rgb" if modality == "rgb" else "motion": canvas.clone() for modality, canvas in canvases.items()}
            rgb, motion = drawn.get("rgb"), drawn.get("motion")
            yield State(number, done, of, logit, probability, rgb, motion, sigma, step_size)


def _start(network: Network, head: str, side: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The start: light grey with faint noise for RGB, no motion with faint noise for motion (M, C, side, side)."""
    single = head in network.streams
    canvases = {}
    for modality in (head,) if single else network.settings.modalities:
        noise = torch.randn((1 if single else 2, MODALITIES[modality].channels, side, side), generator=generator)
        canvases[modality] = (noise * 8 + (200 if modality == "rgb" else 128)).to(next(network.parameters()).device)
    return canvases


def _enlarge(canvas: Tensor, side: int) -> Tensor:
    if canvas.shape[-1] == side:
        return canvas
    return interpolate(canvas, (side, side), mode="bicubic", align_corners=True).clamp(0, 255)


def _corner(room: int, side: int, generator: torch.Generator) -> tuple:
    """Index of one crop for all snippets and modalities: TTN subtracts them place by place (Eq. 5)."""
    drawn = room / 2 + 0.3 * room * torch.randn(2, generator=generator)
    top, left = drawn.clamp(0, room).int().tolist()
    return ..., slice(top, top + side), slice(left, left + side)


def _slope(
    network: Network, head: str, action: int, crops: Mapping[str, Tensor], contrastive: bool
) -> tuple[Float[Tensor, " A"], dict[str, Tensor]]:
    """The head's logits, and the gradient of the objective with respect to every crop."""
    with undisturbed(network), torch.enable_grad():
        leaves = {modality: crop.detach().clone().requires_grad_() for modality, crop in crops.items()}
        if head in network.streams:
            logits = network.heads[head](network.streams[head](normalise(leaves[head], head))[5])[0]
        else:
            logits = network({modality: leaf[None] for modality, leaf in leaves.items()}).logits[head][0]
        others = torch.arange(len(logits), device=logits.device) != action
        objective = logits[action] - logits[others].logsumexp(0) if contrastive else logits[action]
        inputs = list(leaves.values())
        gradients = torch.autograd.grad(objective, inputs, allow_unused=True, materialize_grads=True)
    return logits.detach(), dict(zip(leaves, gradients, strict=True))


def _step(
    crop: Float[Tensor, "M C H W"], gradient: Float[Tensor, "M C H W"], step_size: float, sigma: float
) -> Float[Tensor, "M C H W"]:
    """One step up, by each snippet's own mean |gradient| so that no input starves another; then box, then blur."""
    scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-30)
    return blur((crop + step_size * gradient / scale).clamp(0, 255), sigma)


def blur(images: Float[Tensor, "M C H W"], sigma: float) -> Float[Tensor, "M C H W"]:
    """Gaussian blur of every plane, cut at 4 sigma, the border reflected (as scipy.ndimage.gaussian_filter)."""
    rows, columns = (_blurring(side, sigma).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.T


def _blurring(side: int, sigma: float) -> Float[Tensor, "side side"]:
    """The matrix that blurs a column of pixels."""
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    sources = (torch.arange(side)[:, None] + offsets) % (2 * side)
    sources = torch.minimum(sources, 2 * side - 1 - sources)
    return torch.zeros(side, side).scatter_add_(1, sources, (weights / weights.sum()).expand(side, -1))
