"""Gradient ascent from noise to what an action looks like to a network (DeepDraw; paper, Figures 1 and 7).

Shapes: B drawings made at once, M snippets drawn together (1 for a single stream, 2 for an ordered pair), C channels,
E networks, A actions, H x W pixels of a canvas, h x w pixels of the crop that the network sees. Drawings are in 0..255,
like all inputs of a network. The network normalises them, so that the published box, steps and blur hold for RGB and
motion.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from ifttn.experiment.scores import late_fusion
from ifttn.insight.canvases import Canvas, Denoised, Pixels, SeenInput
from ifttn.insight.drawing_settings import Settings
from ifttn.insight.embedded.denoiser import Denoiser
from ifttn.insight.order import Pair
from ifttn.model.network import Network, normalise, undisturbed
from ifttn.vocabulary import IfttnError


@dataclass(frozen=True)
class DrawingStep:
    """A drawing after one step. Later steps do not change its tensors."""

    octave: int
    step: int
    """Steps made so far, over all octaves."""
    steps: int
    """Steps of the whole drawing."""
    logit: float
    """The logit of the action for the crop before the step, by the network whose turn it was."""
    probability: float
    """The probability of the action for the same crop: softmax of the head's logits."""
    rgb: Float[Tensor, "M 3 H W"] | None
    motion: Float[Tensor, "M C H W"] | None
    sigma: float
    step_size: float


def drawn_pairs(
    network: Network, subjects: Sequence[tuple[int, int]], drawings: Sequence[DrawingStep]
) -> Iterator[Pair]:
    """The drawings of a network's ordered pairs; subjects are (action, seed)."""
    for subject, drawn in zip(subjects, drawings, strict=True):
        assert drawn.rgb is not None
        assert drawn.motion is not None
        yield Pair(*subject, dict(zip(network.settings.modalities, (drawn.rgb, drawn.motion), strict=True)))


MISFIT_WEIGHT = 30.0
"""Weight of the misfit when the best of several drawings is chosen: a misfit that is a tenth larger counts as
three logits."""
FURTHER_START = 1_000_000
"""Difference between the seeds of two starts of a drawing."""


def draw(
    network: Network,
    action: int,
    settings: Settings,
    *,
    head: str = "ttn",
    seed: int = 0,
    denoiser: Denoiser | None = None,
) -> Iterator[DrawingStep]:
    """Draw an action by ascending its logit (or another objective), and yield the drawing after every step.

    The head of a stream draws one snippet of its modality. A temporal head, or "fused" (the late fusion of all heads),
    draws an ordered pair, with all snippets and modalities together. A modality that the head does not see stays noise.
    To pause or stop, stop iterating. The network may be used between two steps: its mode and its gradients stay as they
    are.

    Args:
        network: the network to draw from.
        action: the index of the action.
        settings: for example one of `DRAWING_PRESETS`.
        head: "fused" or a name of network.heads; "spatial" and "temporal" are the heads of the first and last stream.
        seed: the seed of the noise and of the crops.
        denoiser: a denoiser of pairs of the network's modalities, for settings that are `denoised`.

    Raises:
        IfttnError: the network has no such head or action, or the settings need a denoiser of its modalities.
    """
    batches = draw_many([network], [(action, seed)], settings, head=head, denoiser=denoiser)
    return (step for (step,) in batches)


def draw_many(
    networks: Sequence[Network],
    subjects: Sequence[tuple[int, int]],
    settings: Settings,
    *,
    head: str = "ttn",
    denoiser: Denoiser | None = None,
    kind: Callable[..., Canvas] | None = None,
) -> Iterator[tuple[DrawingStep, ...]]:
    """Draw many subjects (action, seed) in one batch, like `draw`, and yield a step of each.

    The networks have the same modalities and actions. They take turns, step by step, so that a pattern that fools only
    one of them does not stay. `kind` makes another canvas than the settings ask for.
    """
    network = networks[0]
    head = {"spatial": network.settings.modalities[0], "temporal": network.settings.modalities[-1]}.get(head, head)
    if head not in {*network.heads, "fused"}:
        raise IfttnError(f"no head {head!r} in this network: choose from {', '.join((*network.heads, 'fused'))}")
    for action, _ in subjects:
        if not 0 <= action < network.settings.actions:
            raise IfttnError(f"no action {action} in this network: choose from 0 to {network.settings.actions - 1}")
    if settings.denoised:
        _check_denoiser(network, denoiser)
    return _ascend(networks, subjects, settings, head, denoiser, kind)


def draw_best(
    networks: Sequence[Network],
    subjects: Sequence[tuple[int, int]],
    settings: Settings,
    *,
    head: str,
    denoiser: Denoiser | None = None,
    starts: int = 1,
    kind: Callable[..., Canvas] | None = None,
) -> tuple[DrawingStep, ...]:
    """Draw each subject from several starts, and keep the best of the finished drawings.

    A denoiser fixes the scene in its first steps, on which the networks have little influence, and may leave a ball
    out. The best drawing is clearly its action by the networks that draw, and resembles real pairs by the denoiser,
    which knows neither the action nor the order. A network that judges the drawings must not choose them. The seeds of
    further starts follow from the subject's seed.
    """
    drawings, merits = list[tuple[DrawingStep, ...]](), list[list[float]]()
    for number in range(starts):
        again = [(action, seed + FURTHER_START * number) for action, seed in subjects]
        steps = draw_many(networks, again, settings, head=head, denoiser=denoiser, kind=kind)
        drawings.append(deque(steps, maxlen=1).pop())  # earlier steps need not stay in memory
        merits.append(_merits(networks, denoiser, drawings[-1], again) if starts > 1 else [0.0] * len(subjects))
    return tuple(drawings[number][i] for i, number in enumerate(torch.tensor(merits).argmax(0).tolist()))


def _merits(
    networks: Sequence[Network],
    denoiser: Denoiser | None,
    drawings: Sequence[DrawingStep],
    subjects: Sequence[tuple[int, int]],
) -> list[float]:
    """The late-fused logit of the action for each whole drawing, above all others (mean over networks), less the
    weighted logarithm of the denoiser's misfit. A probability would be near 1 for most drawings."""
    found = []
    for pair in drawn_pairs(networks[0], subjects, drawings):
        inputs = {name: x[None] for name, x in pair.inputs.items()}
        with ExitStack() as stack, torch.no_grad():
            for network in networks:
                stack.enter_context(undisturbed(network))
            logits = torch.cat([late_fusion(network(inputs).logits) for network in networks])
        actions = torch.full((len(networks),), pair.action, device=logits.device)
        clear = _objective(logits, actions, "contrast").mean().item()
        found.append(clear - (MISFIT_WEIGHT * math.log(denoiser.misfit(pair.inputs)) if denoiser else 0.0))
    return found


def _check_denoiser(network: Network, denoiser: Denoiser | None) -> None:
    if denoiser is None:
        raise IfttnError("no denoiser to draw with: `train_denoiser` makes one")
    has, needs = tuple(denoiser.channels), network.settings.modalities
    if has != needs:
        raise IfttnError(
            f"the denoiser is for {' and '.join(has)}, the network for {' and '.join(needs)}: train a denoiser for it"
        )


def _ascend(
    networks: Sequence[Network],
    subjects: Sequence[tuple[int, int]],
    settings: Settings,
    head: str,
    denoiser: Denoiser | None,
    kind: Callable[..., Canvas] | None,
) -> Iterator[tuple[DrawingStep, ...]]:
    device = next(networks[0].parameters()).device
    single = head in networks[0].streams
    seen = SeenInput((head,) if single else networks[0].settings.modalities, 1 if single else 2, device)
    generators = [torch.Generator().manual_seed(seed) for _, seed in subjects]
    actions = torch.tensor([action for action, _ in subjects], device=device)
    canvas = (kind or (Denoised if settings.denoised else Pixels))(seen, settings, denoiser, generators)
    done, steps = 0, sum(octave.steps for octave in settings.octaves)
    for number, octave in enumerate(settings.octaves):
        canvas.enlarge(octave.canvas)
        for i in range(octave.steps):
            sigma = _between(octave.sigma, i / octave.steps, power=3 if settings.denoised else 1)
            step_size = _between(octave.step_size, i / octave.steps)
            network = networks[done % len(networks)]
            with undisturbed(network), torch.enable_grad():
                leaves, crops = canvas.crops(sigma)
                logits = _logits(network, head, _jittered(crops, settings, generators))
                ascended = _objective(logits, actions, settings.objective).sum() - canvas.penalty(crops)
                gradients = torch.autograd.grad(ascended, leaves, allow_unused=True, materialize_grads=True)
            canvas.step(gradients, step_size, sigma)
            done += 1
            both = torch.stack([logits, logits.softmax(-1)]).detach()  # (2, B, A)
            values = both.gather(-1, actions[None, :, None].expand(2, -1, 1))[..., 0].tolist()
            images = canvas.images()
            rgb = images.pop("rgb", [None] * len(subjects))
            (motion,) = images.values() or [[None] * len(subjects)]
            yield tuple(
                DrawingStep(number, done, steps, logit, probability, frames, fields, sigma, step_size)
                for logit, probability, frames, fields in zip(*values, rgb, motion, strict=True)
            )


def _between(ends: tuple[float, float], share: float, power: int = 1) -> float:
    """A value between two ends. It changes linearly, or its root does (Karras et al. 2022, Eq. 5)."""
    first, last = (end ** (1 / power) for end in ends)
    return (first + (last - first) * share) ** power


def _logits(network: Network, head: str, crops: Mapping[str, Float[Tensor, "B M _ h w"]]) -> Float[Tensor, "B A"]:
    """The logits of the head for every drawing."""
    if head in network.streams:
        snippets = normalise(crops[head].flatten(0, 1), head)
        return network.heads[head](network.streams[head](snippets)[5])
    heads = network(crops).logits
    return late_fusion(heads) if head == "fused" else heads[head]


def _objective(logits: Float[Tensor, "B A"], actions: Int[Tensor, " B"], objective: str) -> Float[Tensor, " B"]:
    """The objective of each drawing."""
    own = logits.gather(1, actions[:, None])[:, 0]
    if objective == "logit":
        return own
    others = logits.scatter(1, actions[:, None], -torch.inf) if objective == "contrast" else logits
    return own - others.logsumexp(1)


def _jittered(
    crops: Mapping[str, Float[Tensor, "B M _ h w"]], settings: Settings, generators: Sequence[torch.Generator]
) -> Mapping[str, Float[Tensor, "B M _ h w"]]:
    """The crops, moved, enlarged and turned a little, in the same way for all snippets and modalities of a drawing."""
    if not (settings.shift or settings.zoom or settings.turn):
        return crops
    drawn = torch.stack([2 * torch.rand(4, generator=generator) - 1 for generator in generators])
    scale, angle = 1 + settings.zoom * drawn[:, 0], torch.deg2rad(settings.turn * drawn[:, 1])
    cos, sin = angle.cos() / scale, angle.sin() / scale
    move = 2 * settings.shift * drawn[:, 2:] / settings.crop
    theta = torch.stack([torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1)], 1)
    jittered = {}
    for modality, crop in crops.items():
        planes = crop.flatten(1, 2)
        grid = affine_grid(theta.to(crop), list(planes.shape), align_corners=False)
        moved = grid_sample(planes, grid, padding_mode="reflection", align_corners=False)
        jittered[modality] = moved.view_as(crop)
    return jittered
