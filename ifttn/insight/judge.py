"""A witness for drawings of the embedded data set: small classifiers of ring against disc, made of rendered frames.

They never saw a network that draws, nor a video that one was trained on. Shapes: S images, H x W pixels.
"""

from collections.abc import Iterable

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ifttn.data import diagnostic
from ifttn.model.backbone import build_backbone

SIDE = 64


class Judge(nn.Module):
    """How ring-like the balls of an image are: a logit, above 0 for rings, below 0 for discs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build_backbone("smallest", 3)
        self.read = nn.Linear(self.body.channels[5], 1)

    def forward(self, images: Float[Tensor, "S 3 H W"]) -> Float[Tensor, " S"]:
        """Images in 0..255; every image is brought to its own mean and deviation, so that only form can speak."""
        mean = images.mean((1, 2, 3), keepdim=True)
        deviation = images.std((1, 2, 3), keepdim=True).clamp_min(1)
        return self.read(self.body((images - mean) / deviation)[5].mean((2, 3)))[:, 0]


class Panel(nn.Module):
    """Judges heard together. Of real frames each calls some 97.5 % right; drawings are like none of them, and what one
    judge says of eighty varies by four with the judge's seed."""

    def __init__(self, judges: Iterable[Judge]) -> None:
        super().__init__()
        self.judges = nn.ModuleList(judges)

    def forward(self, images: Float[Tensor, "S 3 H W"]) -> Float[Tensor, " S"]:
        """Images in 0..255 -> the mean of the judges' logits."""
        return torch.stack([judge(images) for judge in self.judges]).mean(0)


def train_panel(judges: int, seed: int = 1000) -> Panel:
    """So many judges, each of frames and weights of its own; a quarter of a minute each."""
    return Panel(train_judge(seed + number) for number in range(judges))


def rendered(
    seed: int, *, flavour: str = "ucf", videos: int = 64, width: int = 96, height: int = 72
) -> tuple[UInt8[np.ndarray, "S H W 3"], Float[np.ndarray, " S"]]:
    """Frames of an embedded data set of its own, two of each phase of every video, and 1 where they show rings."""
    frames, rings = [], []
    for _, row in diagnostic.plan_videos(flavour, videos, seed).iterrows():
        film = diagnostic.render(row)
        for t in (4, row.boundary - 5, row.boundary + 4, row.frames - 5):
            frames.append(cv2.resize(film[t], (width, height), interpolation=cv2.INTER_AREA))
            rings.append(float((t < row.boundary) == (row.order == 0)))
    return np.stack(frames), np.array(rings)


def train_judge(seed: int = 1000, *, flavour: str = "ucf", videos: int = 48, steps: int = 300) -> Judge:
    """A judge, in seconds: colours permuted and reversed, sizes from 0.6 to 1.5, blur and noise tell it nothing."""
    frames, rings = rendered(seed, flavour=flavour, videos=videos)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = Judge()
    optimiser = torch.optim.AdamW(judge.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    for _ in range(steps):
        chosen = rng.integers(0, len(frames), 32)
        images = torch.from_numpy(np.stack([_disturbed(frames[i], rng) for i in chosen])).permute(0, 3, 1, 2)
        wanted = torch.from_numpy(rings[chosen]).float()
        loss = nn.functional.binary_cross_entropy_with_logits(judge(images), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


def _disturbed(frame: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> Float[np.ndarray, "64 64 3"]:
    """A crop whose size, colours, sharpness and noise tell nothing."""
    scale = SIDE / rng.uniform(43, 107)
    height, width = frame.shape[:2]
    zoomed = cv2.resize(frame, (max(SIDE, round(width * scale)), max(SIDE, round(height * scale))))
    top, left = (rng.integers(0, side - SIDE + 1) for side in zoomed.shape[:2])
    crop = zoomed[top : top + SIDE, left : left + SIDE].astype(np.float32)
    crop = crop[:, :, rng.permutation(3)] * rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.6, 3)
    crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.1, 2.0))
    return (crop + rng.normal(0, rng.uniform(0, 16), crop.shape)).astype(np.float32)
