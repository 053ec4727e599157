"""The canvases of a batch of drawings: pixels, or noise that a denoiser removes step by step.

Shapes: B drawings, M snippets drawn together (1 for a stream, 2 for a pair), C channels, H x W pixels of a canvas,
h x w pixels of the crop that the network sees. Values are in 0..255.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

from ifttn.insight.drawing_settings import Settings
from ifttn.insight.embedded.denoiser import Denoiser
from ifttn.vocabulary import MODALITIES, IfttnError


class SeenInput(NamedTuple):
    """What the head that is drawn from takes as input."""

    modalities: tuple[str, ...]
    snippets: int
    device: torch.device


class Canvas(ABC):
    """The canvases of a batch of drawings, of which the network sees a crop."""

    def __init__(
        self, seen: SeenInput, settings: Settings, denoiser: Denoiser | None, generators: Sequence[torch.Generator]
    ) -> None:
        self.seen, self.settings, self.denoiser, self.generators = seen, settings, denoiser, generators
        self.size = self.size_for(settings.octaves[0].canvas)
        self.places: list[tuple[slice, slice]] = []
        """Rows and columns of each drawing's crop."""
        self.start()

    @abstractmethod
    def start(self) -> None:
        """Draw what the canvases begin with."""

    @abstractmethod
    def crops(self, sigma: float) -> tuple[list[Tensor], dict[str, Float[Tensor, "B M _ h w"]]]:
        """The tensors to differentiate by, and the crop of each modality that depends on them."""

    @abstractmethod
    def step(self, gradients: Sequence[Tensor], step_size: float, sigma: float) -> None:
        """Change the canvases along the gradients of the last crops."""

    @abstractmethod
    def images(self) -> dict[str, Float[Tensor, "B M _ H W"]]:
        """The whole canvas of each modality; later steps leave these tensors alone."""

    def penalty(self, crops: dict[str, Float[Tensor, "B M _ h w"]]) -> Float[Tensor, ""] | float:
        """What is taken from the objective, summed over drawings."""
        return 0.0

    def enlarge(self, height: int) -> None:
        """Bring the canvases to another height.

        Raises:
            IfttnError: these canvases cannot be enlarged.
        """
        if self.size_for(height) != self.size:
            raise IfttnError("such canvases keep one size: give every octave the same")

    def size_for(self, height: int) -> tuple[int, int]:
        """Height and width of a canvas."""
        return height, round(height * self.settings.aspect)

    def noise(self, snippets: int, *shape: int) -> Tensor:
        """Normal noise (B, snippets, *shape), of each drawing's generator."""
        return torch.stack([torch.randn((snippets, *shape), generator=generator) for generator in self.generators])

    def place_crops(self) -> None:
        """One place a drawing, the same for all snippets and modalities: TTN subtracts place by place (Eq. 5)."""
        self.places = []
        crop = self.settings.crop
        room = torch.tensor([side - crop for side in self.size])
        for generator in self.generators:
            drawn = room / 2 + 0.3 * room * torch.randn(2, generator=generator)
            top, left = torch.minimum(drawn.clamp_min(0), room).int().tolist()
            self.places.append((slice(top, top + crop), slice(left, left + crop)))

    def cut(self, canvas: Float[Tensor, "B M _ H W"]) -> Float[Tensor, "B M _ h w"]:
        """The crop of each drawing."""
        return torch.stack([each[..., rows, cols] for each, (rows, cols) in zip(canvas, self.places, strict=True)])


class Pixels(Canvas):
    """DeepDraw as published: each step changes the pixels themselves, within the box, and blurs them."""

    def start(self) -> None:
        """Light grey paper for RGB, and no motion for motion, with faint noise."""
        self.pixels = {}
        for modality in self.seen.modalities:
            noise = self.noise(self.seen.snippets, MODALITIES[modality].channels, *self.size)
            self.pixels[modality] = (noise * 8 + (200.0 if modality == "rgb" else 128.0)).to(self.seen.device)

    def enlarge(self, height: int) -> None:
        """Resize every canvas bicubically."""
        self.size = self.size_for(height)
        self.pixels = {modality: self._enlarged(canvas) for modality, canvas in self.pixels.items()}

    def _enlarged(self, canvas: Tensor) -> Tensor:
        if canvas.shape[-2:] == self.size:
            return canvas
        larger = interpolate(canvas.flatten(0, 1), self.size, mode="bicubic", align_corners=True)
        return larger.clamp(0, 255).unflatten(0, canvas.shape[:2])

    def crops(self, sigma: float) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The crops themselves are differentiated by."""
        self.place_crops()
        crops = {modality: self.cut(canvas).requires_grad_() for modality, canvas in self.pixels.items()}
        self.leaves = list(crops.values())
        return self.leaves, crops

    def step(self, gradients: Sequence[Tensor], step_size: float, sigma: float) -> None:
        """One step up, by each snippet's own mean |gradient| so that no input starves another; then box, then blur."""
        for canvases, crop, gradient in zip(self.pixels.values(), self.leaves, gradients, strict=True):
            scale = gradient.abs().mean((2, 3, 4), keepdim=True).clamp_min(1e-30)
            stepped = (crop.detach() + step_size * gradient / scale).clamp(0, 255)
            stepped = blur(stepped, sigma) if sigma else stepped
            for canvas, (rows, columns), new in zip(canvases, self.places, stepped, strict=True):
                canvas[..., rows, columns] = new

    def images(self) -> dict[str, Tensor]:
        """The pixels."""
        return {modality: canvas.clone() for modality, canvas in self.pixels.items()}


class Denoised(Canvas):
    """From noise to less and less noise: each step takes the denoiser's guess, pushes it to where the network finds the
    action likelier, and adds less noise again (the stochastic sampler of Song et al. 2021, guided). The denoiser always
    works on a pair; the head of a stream sees its first snippet."""

    PUSH = 0.3
    """Largest change of a snippet by one step, in root mean square; real values have `denoiser.SPREAD`."""

    def start(self) -> None:
        """The first step brings the noise."""
        self.level = float("inf")
        self.clean, self.rest = torch.zeros(()), torch.zeros(())

    def crops(self, sigma: float) -> tuple[list[Tensor], dict[str, Tensor]]:
        """The noisy pair is differentiated by, through the denoiser."""
        assert self.denoiser is not None
        kept = (sigma / self.level) ** 2  # share of the old noise; the rest of this level's noise is new
        new = self.noise(2, self.denoiser.components, self.size[0] // 2, self.size[1] // 2)
        noise = sigma * (1 - kept) ** 0.5 * new.to(self.seen.device) + kept * self.rest
        self.noisy, self.level = (noise + self.clean).requires_grad_(), sigma
        guessed = self.denoiser(self.noisy, torch.full((len(new),), sigma, device=self.noisy.device))
        self.guess = guessed.detach()
        decoded = self.denoiser.decode(guessed.flatten(0, 1), self.size)
        self.guessed_images = {m: x.unflatten(0, (-1, 2))[:, : self.seen.snippets] for m, x in decoded.items()}
        self.place_crops()
        return [self.noisy], {m: self.cut(self.guessed_images[m]) for m in self.seen.modalities}

    def step(self, gradients: Sequence[Tensor], step_size: float, sigma: float) -> None:
        """Push the guess along the gradient, by PUSH at most."""
        push = step_size * sigma**2 * gradients[0]
        far = push.square().mean((2, 3, 4), keepdim=True).sqrt() / self.PUSH
        self.rest = self.noisy.detach() - self.guess
        self.clean = self.guess + push / far.clamp_min(1)

    def images(self) -> dict[str, Tensor]:
        """The denoiser's guess before the last push."""
        return {modality: self.guessed_images[modality].detach() for modality in self.seen.modalities}


def blur(images: Float[Tensor, "*_ H W"], sigma: float) -> Float[Tensor, "*_ H W"]:
    """Gaussian blur of every plane, cut at 4 sigma, the border reflected (as scipy.ndimage.gaussian_filter)."""
    rows, columns = (_blur_matrix(side, sigma).to(images) for side in images.shape[-2:])
    return rows @ images @ columns.T


def _blur_matrix(side: int, sigma: float) -> Float[Tensor, "side side"]:
    """The matrix that blurs a column of pixels."""
    reach = int(4 * sigma + 0.5)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    sources = (torch.arange(side)[:, None] + offsets) % (2 * side)
    sources = torch.minimum(sources, 2 * side - 1 - sources)
    return torch.zeros(side, side).scatter_add_(1, sources, (weights / weights.sum()).expand(side, -1))
