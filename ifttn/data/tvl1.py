"""TV-L1 optical flow of many pairs at once: Zach, Pock, Bischof 2007, the variant and defaults of OpenCV's DualTVL1.

On a pyramid, coarse to fine (`CoarseToFine`), five times a level: I1 is warped by the flow u (bicubic) and linearised
there, which gives the residual rho(u) = rho_0 + <g, u> with g = grad I1; then iterations lower

    LAMBDA |rho(u)| + |grad u|    (Zach et al. 2007, Eqs. 6-15), by turns in the data term and in the total variation:

    v = u + min(max(-rho(u) / |g|^2, -LAMBDA THETA), LAMBDA THETA) g
    u = v + THETA div p
    p = (p + TAU / THETA grad u) / (1 + TAU / THETA |grad u|)

with a 5 x 5 median of u after every 30 of them, until the mean squared change of u falls to TOLERANCE. How many that
takes depends on the motion (10 to 100 on real videos); a fixed number misses OpenCV's flow by up to half a pixel.

Three implementations, one result but for rounding: numba on a CPU (`tvl1_cpu`), Triton on a GPU (`tvl1_triton`), and
the plain torch of this file, which is the reference for both and serves every other device.

Shapes: B pairs, H x W pixels of a level, planes of a flow (u, v) along (x, y), of a dual field (u_x, u_y, v_x, v_y), of
data (g_x, g_y, rho_0).
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Bool, Float32
from torch import Tensor
from torch.nn.functional import pad

from ifttn.vocabulary import IfttnError

TAU, LAMBDA, THETA = 0.25, 0.15, 0.3
SMALLEST = 16
"""The side in pixels below which there is no level."""
OUTER, INNER = 10, 30
"""Medians a warp at most, iterations after each median at most."""
TOLERANCE = 0.01**2
"""Pixels squared: iterations end where one changes u by less, in the mean of the image."""
FLAT = 1.1920929e-7
"""|g|^2 up to which a pixel has no data term."""
CHUNK = 12_000_000
"""Pixels at once on a GPU, some 150 bytes each."""


@dataclass(frozen=True)
class CoarseToFine:
    """From coarse to fine, how far apart the levels are and how often each linearises. The defaults are OpenCV's."""

    scales: int = 5
    """Levels at most."""
    step: float = 0.8
    """The ratio of their sides."""
    warps: int = 5
    """Of a level."""

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) of the levels, the finest first."""
        levels = [(height, width)]
        for _ in range(self.scales - 1):
            height, width = round(height * self.step), round(width * self.step)
            if min(height, width) < SMALLEST:
                break
            levels.append((height, width))
        return levels


OPENCV = CoarseToFine()
FAST = CoarseToFine(scales=3, step=0.5, warps=3)
"""A third of the time at 96 x 72, and 0.04 px away in the mean: one level of a store whose bound is 5 px."""


def tvl1(
    previous: Tensor, following: Tensor, threads: int = 1, pyramid: CoarseToFine = OPENCV
) -> Float32[Tensor, "B 2 H W"]:
    """Displacement along x and y from each `previous` to its `following` image, in pixels, on the images' device.

    Args:
        previous: luminance (B, H, W) in 0..255, uint8 or float32; at least 3 pixels high and wide.
        following: the same for the images that follow; IfttnError where the two do not fit together.
        threads: pairs at once on a CPU. The flow does not depend on it.
        pyramid: levels and warps.
    """
    _check(previous, following)
    if previous.device.type == "cpu":
        return _on_cpu(previous, following, threads, pyramid)
    engine = _engine(previous.device)
    height, width = previous.shape[1:]
    chunks = [images.split(max(1, CHUNK // (height * width))) for images in (previous, following)]
    # Triton launches on the current device, whatever the device of its tensors.
    with torch.cuda.device(previous.device) if previous.device.type == "cuda" else nullcontext():
        flows = [solve(first.float(), second.float(), pyramid, engine) for first, second in zip(*chunks, strict=True)]
    return torch.cat(flows)


def bytes_moved(height: int, width: int, iterations: float = 25.0, fused: int = 1) -> float:
    """Bytes between memory and processor that a pair costs, where each pass reads and writes each field once.

    In float32 a pixel's warp moves 36 bytes (in: image, three warped planes, flow; out: data), a median 16, and a pass
    of `fused` iterations 60 (in: data, flow, dual; out: flow, dual). At 340 x 256 all levels together have 2.48 times
    the pixels of the finest, and 5 warps of 25 iterations each move 1.68 GB a pair: a GPU that moves 3 TB a second
    stays below 1,800 such pairs a second unless its caches hold a chunk from one pass to the next.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        iterations: a warp, in the mean over pixels (`tvl1_cpu.Solver.iterations` counts them).
        fused: iterations in one pass over memory.
    """
    pixels = sum(h * w for h, w in OPENCV.sizes(height, width))
    medians = max(1.0, iterations / INNER)
    return pixels * OPENCV.warps * (36 + 16 * medians + 60 * iterations / fused)


def solve(
    previous: Float32[Tensor, "B H W"],
    following: Float32[Tensor, "B H W"],
    pyramid: CoarseToFine = OPENCV,
    engine: Any = None,
) -> Float32[Tensor, "B 2 H W"]:
    """All pairs of one chunk, coarse to fine, by an engine's `linearise`, `median` and `relax`; by default torch's."""
    engine, ratio = engine or TORCH, 1 / pyramid.step
    levels = [(previous, following)]
    for size in pyramid.sizes(*previous.shape[1:])[1:]:
        levels.append((_resized(levels[-1][0], size, ratio), _resized(levels[-1][1], size, ratio)))
    flow = torch.zeros_like(torch.stack(levels[-1], 1))
    for first, second in reversed(levels):
        if flow.shape[-2:] != first.shape[-2:]:
            flow = _resized(flow, first.shape[-2:]) * ratio
        flow = _level(first, second, flow, pyramid.warps, engine)
    return flow


def _check(previous: Tensor, following: Tensor) -> None:
    for name, images in (("previous", previous), ("following", following)):
        if images.ndim != 3 or min(images.shape[1:]) < 3 or images.dtype not in (torch.uint8, torch.float32):
            raise IfttnError(
                f"tvl1: {name} is {str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}; it takes luminance "
                "(B, H, W) of at least 3 x 3 pixels, uint8 or float32"
            )
    if previous.shape != following.shape or previous.device != following.device:
        raise IfttnError(
            f"tvl1: previous {tuple(previous.shape)} on {previous.device} and following {tuple(following.shape)} "
            f"on {following.device} do not pair"
        )


def _on_cpu(previous: Tensor, following: Tensor, threads: int, pyramid: CoarseToFine) -> Float32[Tensor, "B 2 H W"]:
    from ifttn.data.tvl1_cpu import Solver  # numba is half a second to import

    first, second = previous.float().numpy(), following.float().numpy()
    flows = torch.empty(len(first), 2, *first.shape[1:])

    def take(turn: int) -> None:
        solver = Solver(*first.shape[1:], pyramid=pyramid)
        for i in range(turn, len(first), threads):
            flows[i] = torch.from_numpy(solver(first[i], second[i]))

    if threads == 1:
        take(0)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(take, range(threads)))
    return flows


def _engine(device: torch.device) -> Any:
    if device.type == "cuda" and find_spec("triton"):  # Triton has no wheels for macOS and Windows
        from ifttn.data import tvl1_triton

        return tvl1_triton
    return TORCH


def _level(
    first: Float32[Tensor, "B H W"],
    second: Float32[Tensor, "B H W"],
    flow: Float32[Tensor, "B 2 H W"],
    warps: int,
    engine: Any,
) -> Float32[Tensor, "B 2 H W"]:
    planes = torch.cat([second[:, None], _centred(second)], 1)
    dual = flow.new_zeros(len(flow), 4, *flow.shape[-2:])
    for _ in range(warps):
        data = engine.linearise(first, planes, flow)
        live = torch.ones(len(flow), dtype=torch.bool, device=flow.device)
        for _ in range(OUTER):
            flow, dual, live = engine.relax(engine.median(flow, live), dual, data, live)
            if not live.any():
                break
    return flow


def _resized(images: Float32[Tensor, "*batch h w"], size: Sequence[int], ratio: float | None = None) -> Tensor:
    """To (height, width), linear between pixel centres that are `ratio` apart; by default old over new size."""
    for axis, length in ((-2, size[0]), (-1, size[1])):
        old = images.shape[axis]
        centres = (torch.arange(length, device=images.device, dtype=torch.float64) + 0.5) * (ratio or old / length)
        at = (centres - 0.5).clamp(0, old - 1)
        low = at.long()
        weight = (at - low).float()
        near, far = images.index_select(axis, low), images.index_select(axis, (low + 1).clamp(max=old - 1))
        images = torch.lerp(near, far, weight[:, None] if axis == -2 else weight)
    return images


def _centred(images: Float32[Tensor, "B H W"]) -> Float32[Tensor, "B 2 H W"]:
    """Half the difference of the two neighbours; at an edge the pixel itself stands for the one outside."""
    wide = pad(images[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    return torch.stack([wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2], wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]], 1) / 2


def _cubic(t: Tensor) -> tuple[Tensor, ...]:
    """Weights of the pixels at -1, 0, 1, 2 for a point at 0 <= t < 1 (Keys 1981 with a = -0.75)."""
    first, last = -0.75 * t * (1 - t) ** 2, -0.75 * (1 - t) * t**2
    second = (1.25 * t - 2.25) * t * t + 1
    return first, second, 1 - first - second - last, last


def _linearise(
    first: Float32[Tensor, "B H W"], planes: Float32[Tensor, "B 3 H W"], flow: Float32[Tensor, "B 2 H W"]
) -> Float32[Tensor, "B 3 H W"]:
    height, width = first.shape[-2:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    left, top = x.floor(), y.floor()
    warped = torch.zeros_like(planes)
    for j, down in enumerate(_cubic(y - top), -1):
        for i, along in enumerate(_cubic(x - left), -1):
            column, row = left.long() + i, top.long() + j
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)  # outside, the image is 0
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            taken = planes.flatten(2).gather(2, index.flatten(1)[:, None].expand(-1, 3, -1)).view_as(planes)
            warped += (down * along * inside)[:, None] * taken
    gradient = warped[:, 1:]
    return torch.cat([gradient, (warped[:, 0] - (gradient * flow).sum(1) - first)[:, None]], 1)


def _median(flow: Float32[Tensor, "B 2 H W"], live: Bool[Tensor, " B"]) -> Float32[Tensor, "B 2 H W"]:
    height, width = flow.shape[-2:]
    wide = pad(flow, (2, 2, 2, 2), mode="replicate")
    around = [wide[..., j : j + height, i : i + width] for j in range(5) for i in range(5)]
    return torch.where(live[:, None, None, None], torch.stack(around).sort(0).values[12], flow)


def _relax(
    flow: Float32[Tensor, "B 2 H W"],
    dual: Float32[Tensor, "B 4 H W"],
    data: Float32[Tensor, "B 3 H W"],
    live: Bool[Tensor, " B"],
) -> tuple[Float32[Tensor, "B 2 H W"], Float32[Tensor, "B 4 H W"], Bool[Tensor, " B"]]:
    """INNER iterations of the pairs that live, fewer of those that end; which still live."""
    for _ in range(INNER):
        kept = live[:, None, None, None]
        moved, shrunk = _iterate(flow, dual, data)
        change = (moved - flow).square().sum(1).mean((1, 2))
        flow, dual = torch.where(kept, moved, flow), torch.where(kept, shrunk, dual)
        live = live & (change > TOLERANCE)
        if not live.any():
            break
    return flow, dual, live


def _iterate(
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


TORCH = SimpleNamespace(linearise=_linearise, median=_median, relax=_relax)
