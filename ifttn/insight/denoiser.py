"""What real pairs of snippets are like: a small network that takes noise from their frames and motion together.

DeepDraw's own idea of what is real is smoothness: it blurs a drawing after every step. A denoiser, fitted on two
snippets at a time of the project's own training videos whatever their action, knows forms as well, and that one scene
holds both. It cannot know which came first: it treats both alike, so that a pair swapped is denoised into the swapped
pair. Which form a drawing shows, and in which snippet, stays the drawn network's choice (classifier guidance: Dhariwal
& Nichol 2021).

Shapes: N pairs or snippets, V videos of K snippets, C channels of all modalities together, H x W pixels of a frame,
h x w = H / 2 x W / 2.
"""

import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pixel_shuffle, pixel_unshuffle, silu
from torch.optim.swa_utils import AveragedModel
from tqdm.auto import tqdm

from ifttn.files import write_whole
from ifttn.vocabulary import IfttnError

WIDTHS = (32, 64, 128)
SPREAD = 0.5
"""Deviation of real values as the denoiser takes them."""
BATCH, EPOCHS, RATE = 16, 108, 3e-3
KEPT_EVERY = 60.0
"""Seconds of training that are lost, at most, where it is cut off."""


class Denoiser(nn.Module):
    """Of a noisy pair of snippets, the mean of the real ones that it may have been.

    It says the clean pair, not the noise: a narrow network cannot carry noise (Li & He 2025). Frames are halved: a
    ring of twenty pixels is as round at ten, and four times as many snippets are seen in the same time.
    """

    def __init__(self, channels: Mapping[str, int]) -> None:
        super().__init__()
        self.channels = dict(channels)
        """By modality, in the order of the network that is drawn from."""
        count, (fine, middle, coarse) = sum(channels.values()), WIDTHS
        self.mean = nn.Buffer(torch.zeros(count, 1, 1))
        self.deviation = nn.Buffer(torch.ones(count, 1, 1))
        self.frequencies = nn.Buffer(torch.linspace(0.05, 0.5, 8))
        self.enter = nn.Conv2d(4 * count, fine, 3, padding=1)
        self.down = nn.ModuleList([_Block(fine, fine), _Block(fine, middle), _Block(middle, coarse)])
        self.turn = _Block(coarse, coarse)
        self.up = nn.ModuleList([_Block(coarse + middle, middle), _Block(middle + fine, fine)])
        self.leave = nn.Conv2d(fine, 4 * count, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, noisy: Float[Tensor, "N 2 C h w"], sigma: Float[Tensor, " N"]) -> Float[Tensor, "N 2 C h w"]:
        """Values as `encoded`; sigma: deviation of the noise in both snippets of a pair."""
        flat, sigma = noisy.flatten(0, 1), sigma.repeat_interleave(2)
        scale = (sigma.square() + SPREAD**2).rsqrt()
        angles = sigma.log()[:, None] * self.frequencies
        level = torch.cat([angles.sin(), angles.cos()], 1)
        fine = self.down[0](self.enter(pixel_unshuffle(flat * scale[:, None, None, None], 2)), level)
        middle = self.down[1](avg_pool2d(fine, 2), level)
        coarse = self.turn(self.down[2](avg_pool2d(middle, 2), level), level)
        middle = self.up[0](_beside(coarse, middle), level)
        return pixel_shuffle(self.leave(self.up[1](_beside(middle, fine), level)), 2).view_as(noisy)

    def fit_scale(self, snippets: Mapping[str, Tensor]) -> None:
        """Take each channel's mean, and each modality's deviation, from snippets (N, C, H, W) in 0..255."""
        halved = _halved(snippets, self.channels)
        self.mean.copy_(halved.mean((0, 2, 3))[:, None, None])
        parts = [part.std().expand(part.shape[1]) for part in halved.split(list(self.channels.values()), 1)]
        self.deviation.copy_(torch.cat(parts)[:, None, None])

    def encoded(self, snippets: Mapping[str, Tensor]) -> Float[Tensor, "N C h w"]:
        """Snippets (N, C, H, W) in 0..255, by modality -> halved, centred, of deviation SPREAD."""
        return (_halved(snippets, self.channels) - self.mean) / self.deviation * SPREAD

    def decoded(self, values: Float[Tensor, "N C h w"], size: tuple[int, int]) -> dict[str, Tensor]:
        """Back to 0..255 at the size of frames, by modality."""
        images = interpolate(values / SPREAD * self.deviation + self.mean, size, mode="bicubic", align_corners=False)
        parts = images.clamp(0, 255).split(list(self.channels.values()), 1)
        return dict(zip(self.channels, parts, strict=True))


class _Block(nn.Module):
    """Two convolutions beside a shortcut, and a look at the pair's other snippet; the noise's level scales and shifts
    what lies between them."""

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


def _beside(coarse: Tensor, fine: Tensor) -> Tensor:
    return torch.cat([interpolate(coarse, fine.shape[-2:]), fine], 1)


def _halved(snippets: Mapping[str, Tensor], channels: Mapping[str, int]) -> Float[Tensor, "N C h w"]:
    height, width = next(iter(snippets.values())).shape[-2:]
    if height % 4 or width % 4:
        raise IfttnError(f"a denoiser needs frames whose sides are multiples of 4 px, not {width} x {height}")
    return torch.cat([torch.cat([avg_pool2d(some.float(), 2) for some in snippets[m].split(256)]) for m in channels], 1)


def train_denoiser(
    snippets: Mapping[str, Tensor],
    *,
    epochs: int = EPOCHS,
    seed: int = 0,
    progress: bool = False,
    unfinished: Path | None = None,
) -> Denoiser:
    """A denoiser of any two snippets of a video, in either order: of 690 videos of 72 x 96 px in 25 minutes on two
    cores. As Karras et al. 2022, but for what it says and for the levels of noise: more where forms are decided.

    Args:
        snippets: by modality (V, K, C, H, W) in 0..255, of videos of every action; K is 2 or more.
        epochs: over all of them.
        seed: of weights, order and noise.
        progress: show a bar.
        unfinished: file that keeps a training, to be removed once what it gave is kept; one that was cut off goes on
            from there, step for step.

    Raises:
        IfttnError: sides of frames are not multiples of 4 px, or a video has one snippet.
    """
    videos, each = next(iter(snippets.values())).shape[:2]
    if each < 2:
        raise IfttnError(f"a denoiser is trained on pairs of a video's snippets, not on {each} a video")
    device, generator = next(iter(snippets.values())).device, torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        denoiser = Denoiser({modality: images.shape[2] for modality, images in snippets.items()}).to(device)
    flat = {modality: images.flatten(0, 1) for modality, images in snippets.items()}
    denoiser.fit_scale(flat)
    clean = denoiser.encoded(flat).unflatten(0, (videos, each))
    averaged = AveragedModel(denoiser, avg_fn=_towards)
    steps = max(1, epochs * videos * each // (2 * BATCH))
    optimiser = torch.optim.AdamW(denoiser.parameters(), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps + 1, pct_start=0.1)
    parts: dict[str, Any] = {"net": denoiser, "average": averaged, "optimiser": optimiser, "schedule": schedule}
    of = repr((WIDTHS, BATCH, RATE, epochs, seed, [(m, tuple(x.shape)) for m, x in snippets.items()]))
    done, kept = 0, time.monotonic()
    if unfinished is not None and unfinished.exists():
        state = torch.load(unfinished, "cpu", weights_only=True)
        if state["of"] == of:  # or it was another training
            done = state["done"]
            generator.set_state(state["generator"])
            for name, part in parts.items():
                part.load_state_dict(state[name])
    for step in tqdm(range(done, steps), "denoiser", steps, unit="step", disable=not progress, initial=done):
        video, first = (torch.randint(many, (BATCH, 1), generator=generator) for many in (videos, each))
        later = torch.randint(1, each, (BATCH, 1), generator=generator)
        real = clean[video.to(device), torch.cat([first, (first + later) % each], 1).to(device)]
        sigma = (0.2 + 1.2 * torch.randn(BATCH, generator=generator)).exp().to(device)
        spread = sigma[:, None, None, None, None]
        noise = torch.randn(real.shape, generator=generator).to(device)
        # Every level counts alike, but for those so low that nothing is left to say.
        weight = (spread.square() + SPREAD**2) / (spread.square() * SPREAD**2 + 0.005)
        loss = (weight * (denoiser(real + spread * noise, sigma) - real).square()).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        averaged.update_parameters(denoiser)
        if unfinished is not None and time.monotonic() - kept > KEPT_EVERY:
            state = {name: part.state_dict() for name, part in parts.items()}
            file = io.BytesIO()
            torch.save({**state, "of": of, "done": step + 1, "generator": generator.get_state()}, file)
            write_whole(unfinished, file.getvalue())
            kept = time.monotonic()
    trained = averaged.module
    assert isinstance(trained, Denoiser)
    return trained.eval().requires_grad_(False)


def _towards(average: Tensor, weight: Tensor, count: Tensor | int) -> Tensor:
    """A running average over 200 steps, or over fewer while there are few: a short training soon forgets its start."""
    return average.lerp(weight, max(0.005, 9 / (10 + int(count))))


def denoiser_file(runs: Path, dataset: str, split: int, modalities: Sequence[str]) -> Path:
    """Where the denoiser of a split's training snippets is kept, among its runs."""
    return runs / dataset / f"split{split}" / f"denoiser-{'-'.join(modalities)}.safetensors"


def packed(denoiser: Denoiser) -> bytes:
    """As a safetensors file."""
    channels = json.dumps(denoiser.channels)
    return safetensors.torch.save({k: v.contiguous() for k, v in denoiser.state_dict().items()}, {"channels": channels})


def load_denoiser(path: Path, device: str = "cpu") -> Denoiser:
    """Raises:
    IfttnError: there is none, or one of another make.
    """
    try:
        with safetensors.safe_open(path, "pt", device=device) as file:
            denoiser = Denoiser(json.loads(file.metadata()["channels"])).to(device)
            denoiser.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    except FileNotFoundError:
        raise IfttnError(f"no denoiser in {path}: `ifttn figures --denoise` trains one") from None
    except (RuntimeError, KeyError, TypeError, safetensors.SafetensorError):
        raise IfttnError(
            f"{path} is not a denoiser of this version: remove it, and `ifttn figures --denoise` trains one"
        ) from None
    return denoiser.eval().requires_grad_(False)
