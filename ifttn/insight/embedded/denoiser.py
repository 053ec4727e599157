"""A denoiser of pairs of snippets: a small network that removes noise from their frames and motion together.

DeepDraw alone knows only that real images are smooth: it blurs a drawing after every step. A denoiser, trained on pairs
of snippets of the training videos of all actions, also knows forms, and that both snippets show one scene. It cannot
know which snippet came first: it treats both alike, so that a swapped pair is denoised to the swapped result. Which
form a drawing shows, and in which snippet, remains the choice of the drawn network (classifier guidance: Dhariwal &
Nichol 2021). It is narrow, and made for the small frames of the embedded data set.

Shapes: N pairs or snippets, V videos of K snippets, C channels of all modalities together, H x W pixels of a frame,
h x w = H / 2 x W / 2.
"""

import io
import json
import time
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pixel_shuffle, pixel_unshuffle, silu
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ifttn.files import write_whole
from ifttn.vocabulary import MODALITIES, IfttnError

WIDTHS = (32, 64, 128)
SPREAD = 0.5
"""Standard deviation of real values as the denoiser takes them."""
BATCH, STEPS, RATE = 16, 3200, 5e-3
MISFIT_LEVEL, MISFIT_DRAWS = 3.2, 3
"""Noise level at which a finished pair is judged, and the draws of noise. At this level the denoiser sees where a ball
is, but not its form: a judge of forms would prefer discs to rings, because discs are easier to denoise."""
SAVE_EVERY = 60.0
"""Seconds of training that an interruption loses at most."""


class Denoiser(nn.Module):
    """Predicts, from a noisy pair of snippets, the mean of the real pairs that it may come from.

    It predicts the clean pair, not the noise, which a narrow network cannot carry (Li & He 2025). Frames are halved,
    and of the motion fields of a snippet it sees two components, the mean motion along x and y: a network recognises
    such pairs as often as whole ones (0.83 against 0.84), and training sees more snippets in the same time.
    """

    def __init__(self, channels: Mapping[str, int], components: int) -> None:
        super().__init__()
        self.channels, self.components = dict(channels), components
        """Channels by modality, in the order of the network that is drawn from; components of all of them together."""
        fine, middle, coarse = WIDTHS
        self.mean = nn.Buffer(torch.zeros(sum(channels.values()), 1, 1))
        self.basis = nn.Buffer(torch.zeros(len(self.mean), components))
        """Each component's direction, as long as its standard deviation."""
        self.frequencies = nn.Buffer(torch.linspace(0.05, 0.5, 8))
        self.enter = nn.Conv2d(4 * components, fine, 3, padding=1)
        self.down = nn.ModuleList([_Block(fine, fine), _Block(fine, middle), _Block(middle, coarse)])
        self.turn, self.compare = _Block(coarse, coarse), _Attention(coarse)
        self.lift = nn.ModuleList([nn.Conv2d(coarse, middle, 1), nn.Conv2d(middle, fine, 1)])
        self.up = nn.ModuleList([_Block(middle, middle), _Block(fine, fine)])
        self.leave = nn.Conv2d(fine, 4 * components, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, noisy: Float[Tensor, "N 2 C h w"], sigma: Float[Tensor, " N"]) -> Float[Tensor, "N 2 C h w"]:
        """Values are as `encode` gives them; sigma is the standard deviation of the noise of each pair."""
        flat, sigma = noisy.flatten(0, 1), sigma.repeat_interleave(2)
        scale = (sigma.square() + SPREAD**2).rsqrt()
        angles = sigma.log()[:, None] * self.frequencies
        level = torch.cat([angles.sin(), angles.cos()], 1)
        fine = self.down[0](self.enter(pixel_unshuffle(flat * scale[:, None, None, None], 2)), level)
        middle = self.down[1](avg_pool2d(fine, 2), level)
        coarse = self.compare(self.turn(self.down[2](avg_pool2d(middle, 2), level), level))
        middle = self.up[0](middle + interpolate(self.lift[0](coarse), middle.shape[-2:]), level)
        fine = self.up[1](fine + interpolate(self.lift[1](middle), fine.shape[-2:]), level)
        return pixel_shuffle(self.leave(fine), 2).view_as(noisy)

    @classmethod
    def fitted(cls, snippets: Mapping[str, Tensor]) -> "Denoiser":
        """An untrained denoiser of the principal components of snippets (N, C, H, W) in 0..255, by modality."""
        halved = {modality: _halved(images) for modality, images in snippets.items()}
        bases = [_principal(x, 2 if MODALITIES[modality].is_motion else 3) for modality, x in halved.items()]
        basis = torch.block_diag(*bases)
        denoiser = cls({modality: x.shape[1] for modality, x in snippets.items()}, basis.shape[1]).to(basis.device)
        denoiser.mean.copy_(torch.cat([x.mean((0, 2, 3)) for x in halved.values()])[:, None, None])
        denoiser.basis.copy_(basis)
        return denoiser

    def encode(self, snippets: Mapping[str, Tensor]) -> Float[Tensor, "N C h w"]:
        """Snippets (N, _, H, W) in 0..255, by modality -> halved components, each with standard deviation SPREAD."""
        halved = torch.cat([_halved(snippets[modality]) for modality in self.channels], 1) - self.mean
        return torch.einsum("cd,ndhw->nchw", SPREAD * torch.linalg.pinv(self.basis), halved)

    @torch.no_grad()
    def misfit(self, snippets: Mapping[str, Float[Tensor, "2 _ H W"]]) -> float:
        """The mean squared error with which this denoiser removes noise from a pair of snippets in 0..255, by modality.

        A pair that is unlike real pairs, such as one without a ball, has more. The noise is the same for every pair,
        and its swap makes sure that a swapped pair has the same misfit.
        """
        clean = self.encode(snippets)
        noise = torch.randn((MISFIT_DRAWS, *clean.shape), generator=torch.Generator().manual_seed(0)).to(clean)
        noise = torch.cat([noise, noise.flip(1)])
        guessed = self(clean + MISFIT_LEVEL * noise, torch.full((len(noise),), MISFIT_LEVEL, device=clean.device))
        return (guessed - clean).square().mean().item()

    def decode(self, values: Float[Tensor, "N C h w"], size: tuple[int, int]) -> dict[str, Tensor]:
        """The inverse of `encode` but for what the components leave out, at the size of frames, by modality."""
        rows, columns = (_enlargement(*sides).to(values) for sides in zip(values.shape[-2:], size, strict=True))
        # There are fewer components than channels, so they are enlarged first.
        large = rows @ values @ columns.T
        images = torch.einsum("dc,nchw->ndhw", self.basis / SPREAD, large) + self.mean
        parts = images.clamp(0, 255).split(list(self.channels.values()), 1)
        return dict(zip(self.channels, parts, strict=True))


class _Block(nn.Module):
    """Two convolutions beside a shortcut. The first also reads the pair's other snippet; the noise level scales and
    shifts the values between the two."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(inside, outside, 3, padding=1), nn.Conv2d(outside, outside, 3, padding=1)
        self.other = nn.Conv2d(inside, outside, 1, bias=False)
        self.norms = nn.ModuleList([nn.GroupNorm(8, outside), nn.GroupNorm(8, outside)])
        self.level = nn.Linear(16, 2 * outside)
        self.shortcut = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)

    def forward(self, x: Float[Tensor, "N _ _ _"], level: Float[Tensor, "N 16"]) -> Tensor:
        scale, shift = self.level(level)[:, :, None, None].chunk(2, 1)
        other = x.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)
        inner = silu(self.norms[0](self.first(x) + self.other(other)))
        return self.shortcut(x) + silu(self.norms[1](self.second(inner * (1 + scale) + shift)))


class _Attention(nn.Module):
    """Each place reads every place of both snippets, so that a form that is already there is not drawn again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm, self.place = nn.GroupNorm(8, channels), nn.Conv2d(12, channels, 1)
        self.attention = nn.MultiheadAttention(channels, 4, batch_first=True)
        nn.init.zeros_(self.attention.out_proj.weight)

    def forward(self, x: Float[Tensor, "N C h w"]) -> Float[Tensor, "N C h w"]:
        sides = [torch.linspace(-1, 1, side, device=x.device) for side in x.shape[-2:]]
        angles = torch.stack(torch.meshgrid(*sides, indexing="ij")) * torch.pi
        waves = torch.cat([wave(scale * angles) for scale in (0.5, 1, 2) for wave in (torch.sin, torch.cos)])
        tokens = (self.norm(x) + self.place(waves)).unflatten(0, (-1, 2)).movedim(2, -1)
        each = tokens.flatten(1, 3)
        read, _ = self.attention(each, each, each, need_weights=False)
        return x + read.view_as(tokens).movedim(-1, 2).flatten(0, 1)


def _halved(images: Num[Tensor, "N _ H W"]) -> Float[Tensor, "N _ h w"]:
    height, width = images.shape[-2:]
    if height % 4 or width % 4:
        raise IfttnError(f"a denoiser needs frames whose sides are multiples of 4 px, not {width} x {height}")
    return torch.cat([avg_pool2d(some.float(), 2) for some in images.split(256)])


@cache
def _enlargement(small: int, large: int) -> Float[Tensor, "large small"]:
    """The matrix that enlarges a column of pixels bicubically. torch's `interpolate` takes far longer on a CPU."""
    return interpolate(torch.eye(small)[None, None], (large, small), mode="bicubic", align_corners=False)[0, 0]


def _principal(images: Float[Tensor, "N _ h w"], most: int) -> Float[Tensor, "_ components"]:
    """The directions in which the values of pixels vary most, as long as their deviations: `most` at most, without
    those of less than a hundredth of the variance."""
    variances, directions = torch.linalg.eigh(torch.cov(images.movedim(1, 0).flatten(1)))
    variances, directions = variances.flip(0)[:most], directions.flip(1)[:, :most]
    kept = variances > 0.01 * variances.sum()
    return directions[:, kept] * variances[kept].sqrt()


def train_denoiser(
    snippets: Mapping[str, Tensor],
    *,
    steps: int = STEPS,
    seed: int = 0,
    progress: bool = False,
    unfinished: Path | None = None,
) -> Denoiser:
    """Train a denoiser on pairs of snippets of the same video, in either order.

    It follows Karras et al. 2022, but predicts the clean pair and draws more of the noise levels at which forms are
    decided. Half of the loss is spread evenly over the pixels. The other half lies where the two snippets differ,
    because what moves is small and decides the action. At 72 x 96 px it took 8 minutes of a core within a study.

    Args:
        snippets: by modality (V, K, C, H, W) in 0..255, of videos of every action; K is 2 or more.
        steps: of the optimiser, each on BATCH pairs: the time does not depend on how many videos there are.
        seed: of weights, order and noise.
        progress: show a bar.
        unfinished: file that stores an unfinished training, which continues from there step for step. The caller
            removes it once the result is saved.

    Raises:
        IfttnError: sides of frames are not multiples of 4 px, or a video has one snippet.
    """
    each = next(iter(snippets.values())).shape[1]
    if each < 2:
        raise IfttnError(f"a denoiser is trained on pairs of a video's snippets, not on {each} a video")
    shapes = [(modality, tuple(images.shape)) for modality, images in snippets.items()]
    training = _Training(snippets, steps, seed)
    made_from = repr((WIDTHS, BATCH, RATE, steps, seed, shapes))
    if unfinished is not None and unfinished.exists():
        training.load(unfinished, made_from)
    saved, first = time.monotonic(), training.done
    for _ in tqdm(range(first, steps), "denoiser", steps, unit="step", disable=not progress, initial=first):
        training.step()
        if unfinished is not None and time.monotonic() - saved > SAVE_EVERY:
            training.save(unfinished, made_from)
            saved = time.monotonic()
    trained = training.averaged.module
    assert isinstance(trained, Denoiser)
    return trained.eval().requires_grad_(False)


class _Training:
    """A denoiser in training, with its optimiser, its running average and its position."""

    def __init__(self, snippets: Mapping[str, Tensor], steps: int, seed: int) -> None:
        self.done = 0
        self.generator = torch.Generator().manual_seed(seed)
        flat = {modality: images.flatten(0, 1) for modality, images in snippets.items()}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.denoiser = Denoiser.fitted(flat)
        self.clean = self.denoiser.encode(flat).unflatten(0, next(iter(snippets.values())).shape[:2])
        self.averaged = AveragedModel(self.denoiser, avg_fn=_running_average)
        self.optimiser = torch.optim.AdamW(self.denoiser.parameters(), weight_decay=0.01)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimiser, RATE, total_steps=steps + 1, pct_start=0.1)
        self.parts: dict[str, Any] = {"net": self.denoiser, "average": self.averaged}
        self.parts |= {"optimiser": self.optimiser, "schedule": self.schedule}

    def step(self) -> None:
        """One step of the optimiser on a batch of noisy pairs."""
        loss = self._loss()
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.denoiser.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        self.averaged.update_parameters(self.denoiser)
        self.done += 1

    def _loss(self) -> Float[Tensor, ""]:
        device, (videos, each) = self.clean.device, self.clean.shape[:2]
        video, first = (torch.randint(many, (BATCH, 1), generator=self.generator) for many in (videos, each))
        later = torch.randint(1, each, (BATCH, 1), generator=self.generator)
        real = self.clean[video.to(device), torch.cat([first, (first + later) % each], 1).to(device)]
        sigma = (0.2 + 1.2 * torch.randn(BATCH, generator=self.generator)).exp().to(device)
        spread = sigma[:, None, None, None, None]
        noise = torch.randn(real.shape, generator=self.generator).to(device)
        # Every noise level has the same weight, except those so low that there is nothing left to predict.
        weight = (spread.square() + SPREAD**2) / (spread.square() * SPREAD**2 + 0.005)
        return (weight * _weight_of_pixels(real) * (self.denoiser(real + spread * noise, sigma) - real).square()).mean()

    def save(self, path: Path, made_from: str) -> None:
        """Store all that the training needs to continue."""
        content = io.BytesIO()
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        torch.save({**parts, "of": made_from, "done": self.done, "generator": self.generator.get_state()}, content)
        write_whole(path, content.getvalue())

    def load(self, path: Path, made_from: str) -> None:
        """Continue where a stored training stopped, unless that one was made from something else."""
        state = torch.load(path, "cpu", weights_only=True)
        if state["of"] == made_from:
            self.done = state["done"]
            self.generator.set_state(state["generator"])
            for name, part in self.parts.items():
                part.load_state_dict(state[name])


def _weight_of_pixels(real: Float[Tensor, "N 2 C h w"]) -> Float[Tensor, "N 1 1 h w"]:
    """Half of the weight is even, and half lies where the two snippets differ; no pixel has more than 5.5."""
    change = real.diff(dim=1).square().mean(2, keepdim=True)
    return (1 + (change / change.mean((3, 4), keepdim=True).clamp_min(1e-12)).clamp_max(10)) / 2


def _running_average(average: Tensor, weight: Tensor, count: Tensor | int) -> Tensor:
    """Over 200 steps, or over fewer at the start: a short training soon forgets its first weights."""
    return average.lerp(weight, max(0.005, 9 / (10 + int(count))))


def denoiser_file(runs: Path, dataset: str, split: int, modalities: Sequence[str]) -> Path:
    """Where the denoiser of a split is stored, beside the split's runs."""
    return runs / dataset / f"split{split}" / f"denoiser-{'-'.join(modalities)}.safetensors"


def packed(denoiser: Denoiser) -> bytes:
    """As a safetensors file."""
    of = json.dumps([denoiser.channels, denoiser.components])
    return safetensors.torch.save({k: v.contiguous() for k, v in denoiser.state_dict().items()}, {"of": of})


def load_denoiser(path: Path, device: str = "cpu") -> Denoiser:
    """Read a denoiser from a file.

    Raises:
        IfttnError: there is no file, or its content is not a denoiser of this version.
    """
    try:
        with safetensors.safe_open(path, "pt", device=device) as file:
            channels, components = json.loads(file.metadata()["of"])
            denoiser = Denoiser(channels, components).to(device)
            denoiser.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except FileNotFoundError:
        raise IfttnError(f"no denoiser in {path}: `ifttn figures --denoise` trains one") from None
    except (RuntimeError, KeyError, TypeError, safetensors.SafetensorError):
        raise IfttnError(
            f"{path} is not a denoiser of this version: remove it, and `ifttn figures --denoise` trains one"
        ) from None
    return denoiser.eval().requires_grad_(False)
