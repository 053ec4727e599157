"""Gradient ascent from noise to what an action looks like to a network (DeepDraw; paper, Figures 1 and 7).

Shapes: B drawings made at once, M snippets drawn together (1 for a single stream, 2 for an ordered pair), C channels,
H x W pixels of a canvas, h x w pixels of the crop that the network sees. Drawings are in 0..255 as the network takes
them: normalisation is inside the network, so that the published box, steps and blur hold for RGB and motion alike.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from ifttn.experiment.scores import late_fusion
from ifttn.insight.denoiser import Denoiser
from ifttn.model.network import Network, normalise, undisturbed
from ifttn.vocabulary import MODALITIES, IfttnError


@dataclass(frozen=True)
class Octave:
    """Steps on one size of canvas. Blur and step size go linearly from their first value to their second; with a
    denoiser the cube root of its noise does."""

    steps: int
    canvas: int
    """Height of the canvas (px)."""
    sigma: tuple[float, float]
    """Standard deviation of the blur after a step (px); 0 is none. With a denoiser, of the noise that a step takes
    away, where real values have `denoiser.SPREAD`."""
    step_size: tuple[float, float]
    """Mean change of a pixel by a step, before box and blur (levels of 255); Adam's rate where waves are drawn; with a
    denoiser, how often the network is heard: 1 is Bayes' rule."""


@dataclass(frozen=True)
class Settings:
    """How a drawing is made. What follows `octaves` is not in DeepDraw as published, and off by default."""

    crop: int
    """Side of the crop (px) that the network sees of a larger canvas."""
    octaves: tuple[Octave, ...]
    objective: Literal["logit", "contrast", "log-probability"] = "logit"
    """What is ascended of the action: its logit, that less the log-sum-exp of the others, or of all."""
    aspect: float = 1.0
    """Width over height of a canvas."""
    shared_start: bool = False
    """Both snippets of a pair start from the same noise, so that every difference is the network's doing."""
    shift: float = 0.0
    """Robustness: before each look the crop is moved by up to so many pixels ..."""
    zoom: float = 0.0
    """... enlarged or reduced by up to this share ..."""
    turn: float = 0.0
    """... and turned by up to so many degrees, the same for all snippets and modalities."""
    waves: bool = False
    """Draw the amplitudes of waves, 1/f, by Adam, instead of pixels (Olah et al. 2017, Fourier parametrisation)."""
    denoised: bool = False
    """`Material.denoiser` takes the place of box and blur: from noise alone to a real pair's likeness, guided by the
    network (classifier guidance: Dhariwal & Nichol 2021; its gradient through the denoiser: Chung et al. 2023)."""
    smooth: float = 0.0
    """Weight of the total variation in space, per level of 255."""
    smooth_in_time: float = 0.0
    """Weight of the total variation from one motion field of a snippet to the next, per level of 255."""
    statistics: float = 0.0
    """Weight of the distance of features' means and deviations from those that batch normalisation has seen."""


PRESETS: Mapping[str, Settings] = {
    # Whole frames of the embedded set, looked at as in training, by crops. Its actions are made of the same factors:
    # their logits rise together, so that the logit alone draws what half of the actions share until another of them
    # has the higher one. Shaken as far as a real frame may be and still be one (balls are round), the blur no wider
    # than a ring is thick, and stopped while the form is clear, because a judge of form said so, not taste.
    "tiny": Settings(
        64,
        (Octave(40, 72, (1.5, 1.0), (12.0, 8.0)),),
        objective="contrast",
        aspect=4 / 3,
        shift=8.0,
        zoom=0.3,
        turn=40.0,
    ),
    # Probability's gradient fades once the network is sure, and the denoiser mends what the network spoilt. What is
    # left after it needs no shaking: the network finds nothing to be fooled by.
    "tiny-denoised": Settings(
        64,
        (Octave(50, 72, (8.0, 0.1), (100.0, 100.0)),),
        objective="log-probability",
        aspect=4 / 3,
        denoised=True,
    ),
    # The published recipe, its lengths in steps and in pixels halved.
    "small": Settings(112, (Octave(95, 112, (1.25, 0.6), (11.0, 11.0)), Octave(225, 134, (0.7, 0.4), (6.0, 3.0)))),
    # auduno/deepdraw, deepdraw.ipynb, cell 7: the published recipe that needs no auxiliary classifiers.
    "paper": Settings(224, (Octave(190, 224, (2.5, 0.78), (11.0, 11.0)), Octave(450, 269, (0.936, 0.4), (6.0, 3.0)))),
}


def preset_for(crop: int) -> Settings:
    """The preset of networks that were trained on crops of that side (px).

    Raises:
        IfttnError: there is none.
    """
    for settings in PRESETS.values():
        if settings.crop == crop:
            return settings
    raise IfttnError(f"no preset of drawing for crops of {crop} px: choose from {', '.join(PRESETS)}")


@dataclass(frozen=True)
class Palette:
    """What real images of one modality are like, pixel by pixel: their mean and covariance over channels.

    With it a drawing starts at the mean, and moves most along what varies most: colour decorrelation, fitted on frames
    of one's own (the published one is ImageNet's, and suppresses what an action may hang on).
    """

    mean: Float[Tensor, " C"]
    root: Float[Tensor, "C C"]
    """Symmetric square root of the covariance (levels of 255)."""

    @classmethod
    def of(cls, images: Tensor) -> "Palette":
        """Fitted on images (..., C, H, W) in 0..255."""
        pixels = images.float().movedim(-3, -1).flatten(0, -2)
        values, vectors = torch.linalg.eigh(torch.cov(pixels.T) + torch.eye(pixels.shape[1], device=pixels.device))
        return cls(pixels.mean(0), vectors @ values.sqrt().diag() @ vectors.T)

    def step(self, gradient: Float[Tensor, "*_ C H W"]) -> Float[Tensor, "*_ C H W"]:
        """The steepest way up where a pixel's distance is measured in deviations of real pixels, not in levels."""
        root = self.root.to(gradient)
        return torch.einsum("cd,...dhw->...chw", root @ root, gradient)

    def hold(self, images: Float[Tensor, "*_ C H W"], deviations: float = 1.8) -> Float[Tensor, "*_ C H W"]:
        """Pixels further from the mean than real ones are, in root mean square over channels, are drawn back."""
        mean, root = self.mean.to(images)[:, None, None], self.root.to(images)
        z = torch.einsum("cd,...dhw->...chw", torch.linalg.inv(root), images - mean)
        far = z.square().mean(-3, keepdim=True).sqrt() / deviations
        return mean + (images - mean) / far.clamp_min(1)


@dataclass(frozen=True)
class State:
    """A drawing after one step; later steps leave its tensors alone."""

    octave: int
    step: int
    """Steps made so far, over all octaves."""
    of: int
    """Steps of the whole drawing."""
    logit: float
    """Of the action, for the crop that the step began with; over several networks, the mean."""
    probability: float
    """Softmax of the head's logits at the action, for the same crop."""
    rgb: Float[Tensor, "M 3 H W"] | None
    motion: Float[Tensor, "M C H W"] | None
    sigma: float
    step_size: float


@dataclass(frozen=True)
class Material:
    """What a drawing is made from, beside noise. Tensors are one for all drawings, or one for each (B, ...)."""

    palettes: Mapping[str, Palette] = field(default_factory=dict)
    """By modality, what real images are like."""
    motion: Literal["drawn", "still"] | Float[Tensor, "... M C h w"] = "drawn"
    """Drawn; or held at no motion; or held at a real video's, in 0..255."""
    start: Float[Tensor, "... _ 3 _ _"] | None = None
    """RGB to start from instead of paper, in 0..255. Where both snippets of a pair start from one real frame, every
    difference between them is the network's doing."""
    denoiser: Denoiser | None = None
    """Of pairs of the drawn network's modalities, for `Settings.denoised`."""


PLAIN = Material()


def draw(
    network: Network,
    action: int,
    settings: Settings,
    *,
    head: str = "ttn",
    seed: int = 0,
    material: Material = PLAIN,
) -> Iterator[State]:
    """Draws by ascending an action's raw logit (or its contrast), and yields the state after every step.

    The head of a stream draws one snippet of its modality. A temporal head, or "fused", the late fusion of all heads,
    draws an ordered pair, all snippets and modalities jointly; a modality that the head does not see stays noise. To
    stop is to stop iterating, to resume is to iterate on. Whatever is done with the network between two steps, its mode
    and gradients stay as they are.

    Args:
        network: that is drawn from.
        action: its index.
        settings: how; `PRESETS` has some.
        head: "fused" or a name of network.heads; "spatial" and "temporal" are the heads of the first and second stream.
        seed: of the noise and of the crops.
        material: what it is made from; by default noise alone.

    Raises:
        IfttnError: the network has no such head or action.
    """
    states = draw_many([network], [(action, seed)], settings, head=head, material=material)
    return (state for (state,) in states)


def draw_many(
    networks: Sequence[Network],
    subjects: Sequence[tuple[int, int]],
    settings: Settings,
    *,
    head: str = "ttn",
    material: Material = PLAIN,
) -> Iterator[tuple[State, ...]]:
    """Draws many subjects, (action, seed) each, in one batch, as `draw` does; yields a state of each after every step.

    With several networks of the same modalities and actions, the mean of their objectives is ascended: what one of
    them alone would fall for is not drawn.
    """
    network = networks[0]
    head = {"spatial": network.settings.modalities[0], "temporal": network.settings.modalities[-1]}.get(head, head)
    if head not in {*network.heads, "fused"}:
        raise IfttnError(f"no head {head!r} in this network: choose from {', '.join((*network.heads, 'fused'))}")
    for action, _ in subjects:
        if not 0 <= action < network.settings.actions:
            raise IfttnError(f"no action {action} in this network: choose from 0 to {network.settings.actions - 1}")
    if settings.denoised:
        _can_denoise(network, settings, material)
    return _ascent(networks, subjects, settings, _Studio(networks, head, material))


def _can_denoise(network: Network, settings: Settings, material: Material) -> None:
    """Raises:
    IfttnError: something is missing, or asked for beside it that it cannot give.
    """
    if material.denoiser is None:
        raise IfttnError("no denoiser to draw with: give Material(denoiser=...), as `train_denoiser` makes one")
    has, needs = tuple(material.denoiser.channels), network.settings.modalities
    if has != needs:
        raise IfttnError(f"a denoiser of {' and '.join(has)} for a network of {' and '.join(needs)}: train its own")
    if material.start is not None or material.motion != "drawn" or settings.waves:
        raise IfttnError("a denoiser draws frames and motion from noise: no start, no given motion, no waves")


@dataclass(frozen=True)
class _Studio:
    """What stays the same from step to step."""

    networks: Sequence[Network]
    head: str
    material: Material

    @property
    def palettes(self) -> Mapping[str, Palette]:
        return self.material.palettes

    @property
    def single(self) -> bool:
        return self.head in self.networks[0].streams

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.head,) if self.single else self.networks[0].settings.modalities

    @property
    def device(self) -> torch.device:
        return next(self.networks[0].parameters()).device

    def start(self, modality: str, size: tuple[int, int], shared: bool, generator: torch.Generator) -> Tensor:
        """Light grey paper for RGB, no motion for motion, or the mean of a palette; and faint noise (M, C, H, W)."""
        of, snippets = MODALITIES[modality], 1 if self.single else 2
        noise = torch.randn((1 if shared else snippets, of.channels, *size), generator=generator)
        paper = noise * 8 + (200.0 if modality == "rgb" else 128.0)
        if modality in self.palettes:
            palette = self.palettes[modality]
            paper = palette.hold(noise * 8 + palette.mean.to(noise)[:, None, None])
        return paper.expand(snippets, -1, -1, -1).to(self.device)

    def given(self, modality: str, size: tuple[int, int]) -> Tensor | None:
        """Motion that is not drawn (B or 1, M, C, H, W)."""
        motion = self.material.motion
        if not MODALITIES[modality].is_motion or (isinstance(motion, str) and motion == "drawn"):
            return None
        if isinstance(motion, Tensor):
            return self._resized(motion, size)
        shape = (1, 1 if self.single else 2, MODALITIES[modality].channels, *size)
        return torch.full(shape, 128.0, device=self.device)

    def begun(self, modality: str, size: tuple[int, int]) -> Tensor | None:
        """RGB that a drawing starts from (B or 1, M, 3, H, W)."""
        start = self.material.start
        return None if start is None or modality != "rgb" else self._resized(start, size)

    def _resized(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        many = images.to(self.device).float().reshape(-1, *images.shape[-4:])
        return interpolate(many.flatten(0, 1), size, mode="bilinear", align_corners=False).unflatten(0, many.shape[:2])

    def logits(self, views: Mapping[str, Float[Tensor, "B M _ h w"]]) -> Float[Tensor, "E B A"]:
        """Of every network, for every drawing."""
        return torch.stack([self._logits_of(network, views) for network in self.networks])

    def _logits_of(self, network: Network, views: Mapping[str, Tensor]) -> Tensor:
        if self.single:
            seen = normalise(views[self.head].flatten(0, 1), self.head)
            return network.heads[self.head](network.streams[self.head](seen)[5])
        heads = network(views).logits
        return late_fusion(heads) if self.head == "fused" else heads[self.head]


def _ascent(
    networks: Sequence[Network], subjects: Sequence[tuple[int, int]], settings: Settings, studio: _Studio
) -> Iterator[tuple[State, ...]]:
    generators = [torch.Generator().manual_seed(seed) for _, seed in subjects]
    actions = torch.tensor([action for action, _ in subjects], device=studio.device)
    easels = _Denoised if settings.denoised else _Waves if settings.waves else _Pixels
    easel: _Pixels | _Waves | _Denoised = easels(studio, settings, generators)
    done, of = 0, sum(octave.steps for octave in settings.octaves)
    for number, octave in enumerate(settings.octaves):
        easel.enlarge(octave.canvas)
        for i in range(octave.steps):
            share = i / octave.steps
            sigma = _between(octave.sigma, share, 3 if settings.denoised else 1)
            step_size = _between(octave.step_size, share)
            with ExitStack() as stack, torch.enable_grad():
                for network in networks:
                    stack.enter_context(undisturbed(network))
                leaves, crops = easel.look(generators, sigma)
                strangeness = [stack.enter_context(_Strangeness(x)) for x in networks if settings.statistics]
                logits = studio.logits(_shaken(crops, settings, generators))
                objective = _height(logits, actions, settings.objective).sum() - _roughness(crops, settings)
                for each in strangeness:
                    objective = objective - settings.statistics / len(networks) * each.of(len(actions)).sum()
                gradients = torch.autograd.grad(objective, leaves, allow_unused=True, materialize_grads=True)
            easel.step(gradients, step_size, sigma)
            done += 1
            said = torch.stack([logits, logits.softmax(-1)]).detach().mean(1)  # (2, B, A)
            said = said.gather(-1, actions[None, :, None].expand(2, -1, 1))[..., 0].tolist()
            rgb, motion = _split(easel.canvases())
            yield tuple(
                State(number, done, of, logit, probability, picture, moving, sigma, step_size)
                for logit, probability, picture, moving in zip(*said, rgb, motion, strict=True)
            )


def _between(ends: tuple[float, float], share: float, power: int = 1) -> float:
    """Linearly from one to the other, or so that the root is linear (Karras et al. 2022, Eq. 5)."""
    first, last = (end ** (1 / power) for end in ends)
    return (first + (last - first) * share) ** power


def _split(canvases: Mapping[str, Float[Tensor, "B M _ H W"]]) -> list:
    """RGB and motion of each drawing."""
    count = len(next(iter(canvases.values())))
    of = {"rgb" if modality == "rgb" else "motion": canvas for modality, canvas in canvases.items()}
    return [of[name] if name in of else [None] * count for name in ("rgb", "motion")]


def _height(logits: Float[Tensor, "E B A"], actions: Int[Tensor, " B"], objective: str) -> Float[Tensor, " B"]:
    """What is ascended, the mean over networks."""
    index = actions[None, :, None].expand(len(logits), -1, 1)
    own = logits.gather(-1, index)[..., 0]
    if objective != "logit":
        others = logits.scatter(-1, index, -torch.inf) if objective == "contrast" else logits
        own = own - others.logsumexp(-1)
    return own.mean(0)


class _Strangeness:
    """How far the features of drawings are from those of training, by the statistics that batch normalisation keeps
    (DeepInversion: Yin et al. 2020, Eq. 4; here in deviations, so that every layer and channel counts alike)."""

    def __init__(self, network: Network) -> None:
        self.layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        self.seen: list[tuple[torch.nn.BatchNorm2d, Tensor]] = []

    def __enter__(self) -> "_Strangeness":
        self.hooks = [layer.register_forward_pre_hook(self._see) for layer in self.layers]
        return self

    def __exit__(self, *raised: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def _see(self, layer: torch.nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(layer, torch.nn.BatchNorm2d)
        self.seen.append((layer, inputs[0]))

    def of(self, drawings: int) -> Float[Tensor, " B"]:
        """The mean over layers; a drawing's snippets together, so that they may differ from each other."""
        distances = []
        for layer, features in self.seen:
            own = features.unflatten(0, (drawings, -1)).transpose(1, 2).flatten(2)  # (B, C, snippets * h * w)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            deviation = (layer.running_var + layer.eps).sqrt()
            off = (own.mean(2) - layer.running_mean) / deviation
            spread = (own.var(2, correction=0) + layer.eps).sqrt() / deviation - 1
            distances.append((off.square() + spread.square()).mean(1))
        return torch.stack(distances).mean(0)


def _roughness(crops: Mapping[str, Float[Tensor, "B M _ h w"]], settings: Settings) -> Tensor:
    """Total variation in space and in time, summed over drawings."""
    total = torch.zeros(())
    for modality, crop in crops.items():
        total = total.to(crop)
        if settings.smooth:
            across, down = (crop.diff(dim=dim).abs().mean((1, 2, 3, 4)) for dim in (-1, -2))
            total = total + settings.smooth * (across + down).sum()
        if settings.smooth_in_time and MODALITIES[modality].is_motion:
            total = total + settings.smooth_in_time * (crop[:, :, 2:] - crop[:, :, :-2]).abs().mean((1, 2, 3, 4)).sum()
    return total


def _shaken(
    crops: Mapping[str, Float[Tensor, "B M _ h w"]], settings: Settings, generators: Sequence[torch.Generator]
) -> dict[str, Float[Tensor, "B M _ h w"]]:
    """The crops moved, enlarged and turned a little, all snippets and modalities of a drawing alike."""
    if not (settings.shift or settings.zoom or settings.turn):
        return dict(crops)
    drawn = torch.stack([2 * torch.rand(4, generator=generator) - 1 for generator in generators])
    scale, angle = 1 + settings.zoom * drawn[:, 0], torch.deg2rad(settings.turn * drawn[:, 1])
    cos, sin = angle.cos() / scale, angle.sin() / scale
    move = 2 * settings.shift * drawn[:, 2:] / settings.crop
    theta = torch.stack([torch.stack([cos, -sin, move[:, 0]], 1), torch.stack([sin, cos, move[:, 1]], 1)], 1)
    shaken = {}
    for modality, crop in crops.items():
        planes = crop.flatten(1, 2)
        grid = affine_grid(theta.to(crop), list(planes.shape), align_corners=False)
        seen = grid_sample(planes, grid, padding_mode="reflection", align_corners=False)
        shaken[modality] = seen.view_as(crop)
    return shaken


class _Easel(ABC):
    """The canvases of a batch of drawings, and the crops that are looked at."""

    def __init__(self, studio: _Studio, settings: Settings, generators: Sequence[torch.Generator]) -> None:
        self.studio, self.settings = studio, settings
        self.size = self._size(settings.octaves[0].canvas)
        self.places: list[tuple[slice, slice]] = []
        self.fixed = {m: fixed for m in studio.modalities if (fixed := studio.given(m, self.size)) is not None}
        self.drawn = [modality for modality in studio.modalities if modality not in self.fixed]
        self.begin(generators)

    @abstractmethod
    def begin(self, generators: Sequence[torch.Generator]) -> None:
        """Pixels and waves begin in their own ways."""

    def _size(self, height: int) -> tuple[int, int]:
        return height, round(height * self.settings.aspect)

    def _place(self, generators: Sequence[torch.Generator]) -> None:
        """A crop a drawing, the same for all its snippets and modalities: TTN subtracts them place by place (Eq. 5)."""
        self.places = []
        room = torch.tensor([side - self.settings.crop for side in self.size])
        for generator in generators:
            drawn = room / 2 + 0.3 * room * torch.randn(2, generator=generator)
            top, left = torch.minimum(drawn.clamp_min(0), room).int().tolist()
            self.places.append((slice(top, top + self.settings.crop), slice(left, left + self.settings.crop)))

    def _cut(self, canvas: Float[Tensor, "B M _ H W"]) -> Float[Tensor, "B M _ h w"]:
        return torch.stack(
            [each[..., rows, columns] for each, (rows, columns) in zip(canvas, self.places, strict=True)]
        )

    def _cut_fixed(self) -> dict[str, Tensor]:
        return {m: self._cut(x.expand(len(self.places), *x.shape[1:])) for m, x in self.fixed.items()}


class _Pixels(_Easel):
    """DeepDraw as published: steps of the pixels themselves, within the box, then blurred."""

    def begin(self, generators: Sequence[torch.Generator]) -> None:
        shared = self.settings.shared_start
        starts = [{m: self.studio.start(m, self.size, shared, g) for m in self.drawn} for g in generators]
        self.pixels = {m: torch.stack([start[m] for start in starts]) for m in self.drawn}
        for modality, noise in self.pixels.items():
            begun = self.studio.begun(modality, self.size)
            if begun is not None:
                self.pixels[modality] = begun.expand_as(noise).clone()
        self.crops: list[Tensor] = []

    def enlarge(self, height: int) -> None:
        self.size = self._size(height)
        self.pixels = {modality: self._enlarged(canvas) for modality, canvas in self.pixels.items()}
        self.fixed = {modality: self._enlarged(held) for modality, held in self.fixed.items()}

    def _enlarged(self, canvas: Tensor) -> Tensor:
        if canvas.shape[-2:] == self.size:
            return canvas
        larger = interpolate(canvas.flatten(0, 1), self.size, mode="bicubic", align_corners=True)
        return larger.clamp(0, 255).unflatten(0, canvas.shape[:2])

    def look(self, generators: Sequence[torch.Generator], sigma: float) -> tuple[list[Tensor], dict[str, Tensor]]:
        self._place(generators)
        self.crops = [self._cut(self.pixels[m]).requires_grad_() for m in self.drawn]
        ordered = {**dict(zip(self.drawn, self.crops, strict=True)), **self._cut_fixed()}
        return self.crops, {m: ordered[m] for m in self.studio.modalities}

    def step(self, gradients: Sequence[Tensor], step_size: float, sigma: float) -> None:
        for modality, crop, gradient in zip(self.drawn, self.crops, gradients, strict=True):
            palette = self.studio.palettes.get(modality)
            if palette is not None:
                gradient = palette.step(gradient)
            stepped = _step(crop.detach().flatten(0, 1), gradient.flatten(0, 1), step_size, sigma).view_as(crop)
            stepped = stepped if palette is None else palette.hold(stepped)
            for canvas, (rows, columns), new in zip(self.pixels[modality], self.places, stepped, strict=True):
                canvas[..., rows, columns] = new

    def canvases(self) -> dict[str, Tensor]:
        count = len(next(iter(self.pixels.values())))
        return {
            **{m: x.clone() for m, x in self.pixels.items()},
            **{m: x.expand(count, *x.shape[1:]) for m, x in self.fixed.items()},
        }


class _Denoised(_Easel):
    """From noise down its levels: what the denoiser takes the noise for, pushed where the network finds the action
    likelier, and less noise again (the stochastic sampler of Song et al. 2021, guided). For a single snippet, too, a
    pair is drawn; the network hears the first alone."""

    PUSH = 0.3
    """The furthest that a snippet is pushed in one step, in root mean square; real values have `denoiser.SPREAD`."""

    def begin(self, generators: Sequence[torch.Generator]) -> None:
        assert self.studio.material.denoiser is not None
        self.denoiser = self.studio.material.denoiser
        self.snippets, (height, width) = 1 if self.studio.single else 2, self.size
        own = 1 if self.settings.shared_start else 2
        self.shape = (own, sum(self.denoiser.channels.values()), height // 2, width // 2)
        self.level, self.clean, self.rest = float("inf"), torch.zeros(()), torch.zeros(())

    def enlarge(self, height: int) -> None:
        if self._size(height) != self.size:
            raise IfttnError("a denoiser draws on one size of canvas: give every octave the same")

    def look(self, generators: Sequence[torch.Generator], sigma: float) -> tuple[list[Tensor], dict[str, Tensor]]:
        kept = (sigma / self.level) ** 2  # of the noise that was there; the rest of this level's is new
        new = torch.stack([torch.randn(self.shape, generator=g).expand(2, -1, -1, -1) for g in generators])
        noise = sigma * (1 - kept) ** 0.5 * new.to(self.studio.device) + kept * self.rest
        self.noisy, self.level = (noise + self.clean).requires_grad_(), sigma
        guessed = self.denoiser(self.noisy, torch.full((len(generators),), sigma, device=self.noisy.device))
        self.guess = guessed.detach()
        decoded = self.denoiser.decoded(guessed.flatten(0, 1), self.size)
        self.seen = {m: images.unflatten(0, (-1, 2))[:, : self.snippets] for m, images in decoded.items()}
        self._place(generators)
        return [self.noisy], {m: self._cut(self.seen[m]) for m in self.studio.modalities}

    def step(self, gradients: Sequence[Tensor], step_size: float, sigma: float) -> None:
        push = step_size * sigma**2 * gradients[0]
        far = push.square().mean((2, 3, 4), keepdim=True).sqrt() / self.PUSH
        self.rest = self.noisy.detach() - self.guess
        self.clean = self.guess + push / far.clamp_min(1)

    def canvases(self) -> dict[str, Tensor]:
        return {modality: self.seen[modality].detach() for modality in self.studio.modalities}


class _Waves(_Easel):
    """Fourier parametrisation: Adam on amplitudes that start faint and fall as 1/f; a sigmoid holds the box."""

    def begin(self, generators: Sequence[torch.Generator]) -> None:
        height, width = self.size
        frequency = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
        self.fall = (1 / frequency.clamp_min(1 / max(self.size))).to(self.studio.device)
        self.waves = {}
        snippets = 1 if self.studio.single else 2
        for modality in self.drawn:
            shape = (
                1 if self.settings.shared_start else snippets,
                MODALITIES[modality].channels,
                height,
                width // 2 + 1,
                2,
            )
            starts = [0.01 * torch.randn(shape, generator=g).expand(snippets, *shape[1:]) for g in generators]
            self.waves[modality] = torch.stack(starts).to(self.studio.device).requires_grad_()
        self.adam = torch.optim.Adam(self.waves.values())

    def enlarge(self, height: int) -> None:
        if self._size(height) != self.size:
            raise IfttnError("waves are drawn on one size of canvas: give every octave the same")

    def _decoded(self) -> dict[str, Tensor]:
        decoded = {}
        for modality, amplitudes in self.waves.items():
            z = torch.fft.irfft2(torch.view_as_complex(amplitudes) * self.fall, s=self.size, norm="ortho")
            palette = self.studio.palettes.get(modality)
            if palette is None:
                channels = MODALITIES[modality].channels
                palette = Palette(torch.full((channels,), 128.0), 64 * torch.eye(channels))
            mean = palette.mean.to(z).clamp(8, 247)[:, None, None] / 255
            varied = torch.einsum("cd,bmdhw->bmchw", palette.root.to(z), z) / 255
            decoded[modality] = 255 * torch.sigmoid(mean.logit() + varied / (mean * (1 - mean)))
        return decoded

    def look(self, generators: Sequence[torch.Generator], sigma: float) -> tuple[list[Tensor], dict[str, Tensor]]:
        self._place(generators)
        ordered = {**{m: self._cut(x) for m, x in self._decoded().items()}, **self._cut_fixed()}
        return list(self.waves.values()), {m: ordered[m] for m in self.studio.modalities}

    def step(self, gradients: Sequence[Tensor], step_size: float, sigma: float) -> None:
        for waves, gradient in zip(self.waves.values(), gradients, strict=True):
            waves.grad = -gradient
        self.adam.param_groups[0]["lr"] = step_size
        self.adam.step()

    def canvases(self) -> dict[str, Tensor]:
        with torch.no_grad():
            count = len(next(iter(self.waves.values())))
            return {**self._decoded(), **{m: x.expand(count, *x.shape[1:]) for m, x in self.fixed.items()}}


def _step(
    crop: Float[Tensor, "M C H W"], gradient: Float[Tensor, "M C H W"], step_size: float, sigma: float
) -> Float[Tensor, "M C H W"]:
    """One step up, by each snippet's own mean |gradient| so that no input starves another; then box, then blur."""
    scale = gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-30)
    stepped = (crop + step_size * gradient / scale).clamp(0, 255)
    return blur(stepped, sigma) if sigma else stepped


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
