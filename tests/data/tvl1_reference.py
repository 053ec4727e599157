"""TV-L1 in plain torch, as `ifttn.data.tvl1` describes it: what both engines are compared with."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float32
from torch import Tensor
from torch.nn.functional import pad

from ifttn.data.tvl1 import EPSILON, FLAT, INNER, LAMBDA, OPENCV, OUTER, TAU, THETA, CoarseToFine


def solve(
    previous: Float32[Tensor, "B H W"], following: Float32[Tensor, "B H W"], pyramid: CoarseToFine = OPENCV
) -> Float32[Tensor, "B 2 H W"]:
    levels = [torch.stack([previous, following], 1)]
    for size in pyramid.sizes(*previous.shape[1:])[1:]:
        levels.append(resized(levels[-1], size, 1 / pyramid.step))
    flow = torch.zeros_like(levels[-1])
    for images in reversed(levels):
        if flow.shape != images.shape:
            flow = resized(flow, images.shape[2:]) / pyramid.step
        first, second = images.unbind(1)
        dual = flow.new_zeros(len(flow), 4, *flow.shape[2:])
        for _ in range(pyramid.warps):
            data = linearise(first, with_gradient(second), flow)
            live = torch.ones(len(flow), dtype=torch.bool)
            for _ in range(OUTER):
                flow, dual, live = relax(median(flow, live), dual, data, live)
    return flow


def resized(images: Float32[Tensor, "*B h w"], size: Sequence[int], ratio: float | None = None) -> Tensor:
    """Linear between pixel centres that are `ratio` apart; by default old over new size."""
    for axis, length in ((-2, size[0]), (-1, size[1])):
        old = images.shape[axis]
        centres = (torch.arange(length, dtype=torch.float64) + 0.5) * (ratio or old / length)
        at = (centres - 0.5).clamp(0, old - 1)
        low = at.long()
        weight = (at - low).float()
        near, far = images.index_select(axis, low), images.index_select(axis, (low + 1).clamp(max=old - 1))
        images = torch.lerp(near, far, weight[:, None] if axis == -2 else weight)
    return images


def with_gradient(images: Float32[Tensor, "B H W"]) -> Float32[Tensor, "B 3 H W"]:
    """The image, and half the difference of the two neighbours along x and y; an edge pixel is its own neighbour."""
    wide = pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    along, down = wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2], wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]
    return torch.stack([images, along / 2, down / 2], 1)


def cubic(t: Tensor) -> tuple[Tensor, ...]:
    """Weights of the pixels at -1, 0, 1, 2 for a point at 0 <= t < 1 (Keys 1981 with a = -0.75)."""
    first, last = -0.75 * t * (1 - t) ** 2, -0.75 * (1 - t) * t**2
    second = (1.25 * t - 2.25) * t * t + 1
    return first, second, 1 - first - second - last, last


def linearise(
    first: Float32[Tensor, "B H W"], planes: Float32[Tensor, "B 3 H W"], flow: Float32[Tensor, "B 2 H W"]
) -> Float32[Tensor, "B 3 H W"]:
    """The gradient of the second image and the residual, both warped by the flow."""
    height, width = first.shape[-2:]
    x, y = flow[:, 0] + torch.arange(width), flow[:, 1] + torch.arange(height)[:, None]
    left, top = x.floor(), y.floor()
    warped = torch.zeros_like(planes)
    for j, down in enumerate(cubic(y - top), -1):
        for i, along in enumerate(cubic(x - left), -1):
            column, row = left.long() + i, top.long() + j
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)  # outside, the image is 0
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            taken = planes.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, 3, -1)).view_as(planes)
            warped += (down * along * inside)[:, None] * taken
    gradient = warped[:, 1:]
    return torch.cat([gradient, (warped[:, 0] - (gradient * flow).sum(1) - first)[:, None]], 1)


def median(flow: Float32[Tensor, "B 2 H W"], live: Bool[Tensor, " B"]) -> Float32[Tensor, "B 2 H W"]:
    height, width = flow.shape[-2:]
    wide = pad(flow, (2, 2, 2, 2), mode="replicate")
    around = [wide[..., j : j + height, i : i + width] for j in range(5) for i in range(5)]
    return torch.where(live[:, None, None, None], torch.stack(around).sort(0).values[12], flow)


def relax(
    flow: Float32[Tensor, "B 2 H W"],
    dual: Float32[Tensor, "B 4 H W"],
    data: Float32[Tensor, "B 3 H W"],
    live: Bool[Tensor, " B"],
    most: int = INNER,
) -> tuple[Float32[Tensor, "B 2 H W"], Float32[Tensor, "B 4 H W"], Bool[Tensor, " B"]]:
    """`most` iterations of the live pairs, fewer of those that end; flow, dual and which pairs are still live."""
    for _ in range(most):
        kept = live[:, None, None, None]
        moved, shrunk = iterate(flow, dual, data)
        change = (moved - flow).square().sum(1).mean((1, 2))
        flow, dual = torch.where(kept, moved, flow), torch.where(kept, shrunk, dual)
        live = live & (change > EPSILON**2)
        if not live.any():
            break
    return flow, dual, live


def iterate(
    u: Float32[Tensor, "B 2 H W"], p: Float32[Tensor, "B 4 H W"], data: Float32[Tensor, "B 3 H W"]
) -> tuple[Float32[Tensor, "B 2 H W"], Float32[Tensor, "B 4 H W"]]:
    gradient, residual = data[:, :2], data[:, 2]
    steepness = gradient.square().sum(1)
    inverse = torch.where(steepness > FLAT, 1 / steepness, 0)
    step = (-(residual + (gradient * u).sum(1)) * inverse).clamp(-LAMBDA * THETA, LAMBDA * THETA)
    along, down = p[:, ::2], p[:, 1::2]
    divergence = along - pad(along, (1, 0))[..., :-1] + down - pad(down, (0, 0, 1, 0))[..., :-1, :]
    u = u + step[:, None] * gradient + THETA * divergence
    # (B, u or v, along x or y, H, W): forward differences, zero across the right and the lower edge
    slope = torch.stack([pad(u.diff(dim=-1), (0, 1)), pad(u.diff(dim=-2), (0, 0, 0, 1))], 2) * (TAU / THETA)
    length = slope.square().sum(2, keepdim=True).sqrt()
    return u, ((p.unflatten(1, (2, 2)) + slope) / (1 + length)).flatten(1, 2)
