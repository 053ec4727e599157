"""Judges of the drawings of the embedded data set: small classifiers of rings and discs; balls and scene by their hue.

The classifiers are trained on newly rendered frames. They see neither the networks that draw nor the videos on which
these networks were trained. Shapes: S images, H x W pixels.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ifttn.data import diagnostic
from ifttn.insight.embedded.balls import balls_and_scene
from ifttn.insight.order import Pair
from ifttn.model.backbone import build_backbone

JUDGES = 5
JUDGE_CROP = 64
"""Side of the crops that a judge is trained on (px)."""


class RingJudge(nn.Module):
    """A classifier of the balls in an image. Its logit is above 0 for rings and below 0 for discs."""

    def __init__(self) -> None:
        super().__init__()
        self.body = build_backbone("smallest", 3)
        self.read = nn.Linear(self.body.channels[5], 1)

    def forward(self, images: Float[Tensor, "S 3 H W"]) -> Float[Tensor, " S"]:
        """Images in 0..255 -> logits. Each image is normalised by its own mean and deviation, so only form counts."""
        mean = images.mean((1, 2, 3), keepdim=True)
        deviation = images.std((1, 2, 3), keepdim=True).clamp_min(1)
        return self.read(self.body((images - mean) / deviation)[5].mean((2, 3)))[:, 0]


class RingJury(nn.Module):
    """The mean logit of several judges. Each judge is right on about 97.5 % of real frames. Drawings look different,
    and the number of drawings that one judge finds right, of eighty, varies by four with the judge's seed."""

    def __init__(self, judges: Sequence[RingJudge]) -> None:
        super().__init__()
        self.judges = nn.ModuleList(judges)

    def forward(self, images: Float[Tensor, "S 3 H W"]) -> Float[Tensor, " S"]:
        """Images in 0..255 -> the mean of the judges' logits."""
        return torch.stack([judge(images) for judge in self.judges]).mean(0)


class FactorJudges:
    """Measures which factors of its action a pair shows, without the networks that draw.

    Args:
        factors: `diagnostic.factors` of the data set.
        actions: the actions in the order of the networks that draw.
        device: the device of the judges.
    """

    def __init__(self, factors: pd.DataFrame, actions: Sequence[str], device: str = "cpu") -> None:
        self.flavour = str(factors.flavour.iloc[0])
        self.of_action = factors.groupby("action")[["order", "scene"]].first().reindex(list(actions))
        self.jury = train_jury(JUDGES).to(device)

    def rings_first(self, action: int) -> int:
        """1 if rings come first in the action, -1 if discs do."""
        return 1 - 2 * int(self.of_action.order.iloc[action])

    def __call__(self, pair: Pair) -> dict[str, float]:
        """margin: how much more the first snippet shows the form that comes first (difference of the jury's logits);
        balls: the share of snippets that show both balls; scene: the share that show the action's scene."""
        rgb = pair.inputs["rgb"]
        with torch.no_grad():
            first, second = self.jury(rgb).tolist()
        frames = rgb.clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        balls, scene = balls_and_scene(frames, self.flavour)
        right = scene == self.of_action.scene.iloc[pair.action]
        margin = (first - second) * self.rings_first(pair.action)
        return {"margin": margin, "balls": float(balls.all(1).mean()), "scene": float(right.mean())}


def train_jury(judges: int) -> RingJury:
    """Train judges, each with its own frames and weights. This takes 15 seconds per judge."""
    return RingJury([train_judge(1000 + number) for number in range(judges)])


def rendered_frames(seed: int, videos: int) -> tuple[UInt8[np.ndarray, "S 72 96 3"], Float[np.ndarray, " S"]]:
    """Frames of newly rendered videos, two of each phase of every video, and for each frame 1 if it shows rings."""
    frames, rings = [], []
    for _, row in diagnostic.plan_videos("ucf", videos, seed).iterrows():
        film = diagnostic.render(row)
        for t in (4, row.boundary - 5, row.boundary + 4, row.frames - 5):
            frames.append(cv2.resize(film[t], (96, 72), interpolation=cv2.INTER_AREA))
            rings.append(float((t < row.boundary) == (row.order == 0)))
    return np.stack(frames), np.array(rings)


def train_judge(seed: int = 1000, *, videos: int = 48, steps: int = 300) -> RingJudge:
    """Train a judge on crops of rendered frames in which colour, size, blur and noise carry no information."""
    frames, rings = rendered_frames(seed, videos)
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        judge = RingJudge()
    optimiser = torch.optim.AdamW(judge.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, total_steps=steps)
    for _ in range(steps):
        chosen = rng.integers(0, len(frames), 32)
        images = torch.from_numpy(np.stack([_augmented(frames[i], rng) for i in chosen])).permute(0, 3, 1, 2)
        wanted = torch.from_numpy(rings[chosen]).float()
        loss = nn.functional.binary_cross_entropy_with_logits(judge(images), wanted)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


def _augmented(frame: UInt8[np.ndarray, "H W 3"], rng: np.random.Generator) -> Float[np.ndarray, "64 64 3"]:
    """A crop with random size, colours, sharpness and noise."""
    scale = JUDGE_CROP / rng.uniform(43, 107)
    height, width = frame.shape[:2]
    zoomed = cv2.resize(frame, (max(JUDGE_CROP, round(width * scale)), max(JUDGE_CROP, round(height * scale))))
    top, left = (rng.integers(0, side - JUDGE_CROP + 1) for side in zoomed.shape[:2])
    crop = zoomed[top : top + JUDGE_CROP, left : left + JUDGE_CROP].astype(np.float32)
    crop = crop[:, :, rng.permutation(3)] * rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.6, 3)
    crop = cv2.GaussianBlur(crop, (0, 0), rng.uniform(0.1, 2.0))
    return (crop + rng.normal(0, rng.uniform(0, 16), crop.shape)).astype(np.float32)
