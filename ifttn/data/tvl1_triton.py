"""TV-L1 on a GPU: all pairs of a chunk at once, each step a Triton kernel.

An iteration is one kernel: a program computes the new u of its pixels and of their right and lower neighbours (which
others compute too), and from these the new p. It reads one pair of buffers and writes another, so the order of programs
does not matter. A pair ends by itself: the sums of squared changes are fixed-point integers, which add up to the same
in any order, and every iteration reads the sum of the one before. After a pair's last iteration, the next one copies
its fields, so that both pairs of buffers hold the result; those after that do nothing.

Planes are contiguous rows of H * W pixels. In a kernel, i is a pixel's place in a plane, and the second axis of every
grid has the pairs. A pair is live until its iterations have ended.
"""

from collections.abc import Sequence
from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float32, UInt8
from torch import Tensor
from torch.nn.functional import pad

from ifttn.data.tvl1 import EPSILON, FLAT, INNER, LAMBDA, OPENCV, OUTER, TAU, THETA, CoarseToFine

CHUNK = 12_000_000
"""Pixels at once, some 150 bytes each."""
TILE = 256
"""Pixels of a program."""
POLL = 10
"""Iterations between two looks of the host at which pairs are live; an even number."""
UNITS = tl.constexpr(2.0**24)
"""A squared pixel in the fixed-point sums."""
LIMIT, WEIGHT, RATE, STEEP = (tl.constexpr(x) for x in (LAMBDA * THETA, THETA, TAU / THETA, FLAT))
"""Kernels see only globals of this type."""


def solve(
    previous: UInt8[Tensor, "B H W"], following: UInt8[Tensor, "B H W"], pyramid: CoarseToFine = OPENCV
) -> Float32[Tensor, "B 2 H W"]:
    """Displacement along x and y from each previous to its following image, in pixels. Both are luminance."""
    pairs = max(1, CHUNK // previous[0].numel())
    chunks = zip(previous.split(pairs), following.split(pairs), strict=True)
    with torch.cuda.device(previous.device):  # Triton launches on the current device, whatever that of its tensors
        return torch.cat([_solve_chunk(first.float(), second.float(), pyramid) for first, second in chunks])


def _solve_chunk(
    first: Float32[Tensor, "B H W"], second: Float32[Tensor, "B H W"], pyramid: CoarseToFine
) -> Float32[Tensor, "B 2 H W"]:
    levels = [torch.stack([first, second], 1)]
    for size in pyramid.sizes(*first.shape[1:])[1:]:
        levels.append(_resized(levels[-1], size, pyramid.step))
    flow = torch.zeros_like(levels[-1])
    for images in reversed(levels):
        if flow.shape != images.shape:
            flow = _resized(flow, images.shape[2:]) / pyramid.step
        flow = _solve_level(images[:, 0], images[:, 1], flow, pyramid.warps)
    return flow


def _solve_level(
    first: Float32[Tensor, "B H W"], second: Float32[Tensor, "B H W"], flow: Float32[Tensor, "B 2 H W"], warps: int
) -> Float32[Tensor, "B 2 H W"]:
    wide = pad(second[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    along, down = wide[:, 1:-1, 2:] - wide[:, 1:-1, :-2], wide[:, 2:, 1:-1] - wide[:, :-2, 1:-1]
    planes = torch.stack([second, along / 2, down / 2], 1)
    dual = flow.new_zeros(len(flow), 4, *flow.shape[2:])
    for _ in range(warps):
        data = linearise(first, planes, flow)
        live = torch.ones(len(flow), dtype=torch.bool, device=flow.device)
        for _ in range(OUTER):
            flow, dual, live = relax(median(flow, live), dual, data, live)
            if not live.any():
                break
    return flow


def _resized(
    images: Float32[Tensor, "B C h w"], size: Sequence[int], scale: float | None = None
) -> Float32[Tensor, "B C H W"]:
    """To (height, width), linear between pixel centres; `scale` is new over old where it is not that of the sizes."""
    return torch.ops.aten.upsample_bilinear2d(images, size, False, scale, scale)


def linearise(
    first: Float32[Tensor, "B H W"], planes: Float32[Tensor, "B 3 H W"], flow: Float32[Tensor, "B 2 H W"]
) -> Float32[Tensor, "B 3 H W"]:
    """Gradient and residual of the second image (first of its `planes`; the others are its gradient), warped."""
    data = torch.empty_like(planes)
    _linearise[_grid(flow)](first.contiguous(), planes, flow.contiguous(), data, *_size(flow), TILE)
    return data


def median(flow: Float32[Tensor, "B 2 H W"], live: Bool[Tensor, " B"]) -> Float32[Tensor, "B 2 H W"]:
    """5 x 5 median of the flow of live pairs; that of the others stays as it is."""
    out = torch.empty_like(flow, memory_format=torch.contiguous_format)
    tiles, pairs = _grid(flow)
    _median[tiles, 2 * pairs](flow.contiguous(), out, live.byte(), *_size(flow), TILE)
    return out


def relax(
    flow: Float32[Tensor, "B 2 H W"],
    dual: Float32[Tensor, "B 4 H W"],
    data: Float32[Tensor, "B 3 H W"],
    live: Bool[Tensor, " B"],
) -> tuple[Float32[Tensor, "B 2 H W"], Float32[Tensor, "B 4 H W"], Bool[Tensor, " B"]]:
    """INNER iterations of the live pairs, fewer of those that end. Returns flow, dual and which pairs are still live.

    It writes into `flow` and `dual`.
    """
    enough = int(EPSILON**2 * UNITS.value * flow.shape[-2] * flow.shape[-1])
    changes = torch.zeros(INNER + 2, len(flow), dtype=torch.int64, device=flow.device)
    changes[:2] = live * (enough + 1)  # a live pair comes from two iterations that changed much
    here, there = (flow, dual), (torch.empty_like(flow), torch.empty_like(dual))
    for turn in range(INNER):
        _iterate[_grid(flow)](*here, *there, data, changes[turn:], enough, len(flow), *_size(flow), TILE)
        here, there = there, here
        live = changes[turn + 2] > enough
        if (turn + 1) % POLL == 0 and not live.any():  # POLL is even: `here` are the buffers that came in
            break
    return flow, dual, live


def _size(flow: Tensor) -> tuple[int, int]:
    return flow.shape[-2], flow.shape[-1]


def _grid(flow: Tensor) -> tuple[int, int]:
    return triton.cdiv(flow.shape[-2] * flow.shape[-1], TILE), len(flow)


@triton.jit
@no_type_check
def _iterate(  # noqa: PLR0913 (a kernel takes pointers and numbers)
    flow, dual, new_flow, new_dual, data, changes, enough, pairs, height, width, TILE: tl.constexpr
):
    pair = tl.program_id(1)
    size = height * width
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = i < size
    flow += pair * 2 * size
    dual += pair * 4 * size
    new_flow += pair * 2 * size
    new_dual += pair * 4 * size
    data += pair * 3 * size
    if tl.load(changes + pairs + pair) > enough:
        x = i % width
        right, below = inside & (x + 1 < width), inside & (i + width < size)
        u, v, du, dv = _primal(flow, dual, data, x, i, inside, width, size)
        u_right, v_right, _, _ = _primal(flow, dual, data, x + 1, i + 1, right, width, size)
        u_below, v_below, _, _ = _primal(flow, dual, data, x, i + width, below, width, size)
        tl.store(new_flow + i, u, inside)
        tl.store(new_flow + size + i, v, inside)
        _dual(dual, new_dual, i, inside, size, tl.where(right, u_right - u, 0), tl.where(below, u_below - u, 0))
        dual += 2 * size
        new_dual += 2 * size
        _dual(dual, new_dual, i, inside, size, tl.where(right, v_right - v, 0), tl.where(below, v_below - v, 0))
        change = tl.sum(tl.where(inside, du * du + dv * dv, 0), 0)
        tl.atomic_add(changes + 2 * pairs + pair, (change * UNITS).to(tl.int64))
    elif tl.load(changes + pair) > enough:
        for plane in tl.static_range(2):
            tl.store(new_flow + plane * size + i, tl.load(flow + plane * size + i, inside), inside)
        for plane in tl.static_range(4):
            tl.store(new_dual + plane * size + i, tl.load(dual + plane * size + i, inside), inside)


@triton.jit
@no_type_check
def _primal(flow, dual, data, x, i, inside, width, size):  # noqa: PLR0913
    gx = tl.load(data + i, inside, 0.0)
    gy = tl.load(data + size + i, inside, 0.0)
    u = tl.load(flow + i, inside, 0.0)
    v = tl.load(flow + size + i, inside, 0.0)
    rho = tl.load(data + 2 * size + i, inside, 0.0) + gx * u + gy * v
    steepness = gx * gx + gy * gy
    step = tl.where(steepness > STEEP, -rho / tl.maximum(steepness, STEEP), 0.0)
    step = tl.minimum(tl.maximum(step, -LIMIT), LIMIT)
    du = step * gx + WEIGHT * _divergence(dual, x, i, inside, width, size)
    dv = step * gy + WEIGHT * _divergence(dual + 2 * size, x, i, inside, width, size)
    return u + du, v + dv, du, dv


@triton.jit
@no_type_check
def _divergence(dual, x, i, inside, width, size):
    along = tl.load(dual + i, inside, 0.0) - tl.load(dual + i - 1, inside & (x > 0), 0.0)
    dual += size
    return along + tl.load(dual + i, inside, 0.0) - tl.load(dual + i - width, inside & (i >= width), 0.0)


@triton.jit
@no_type_check
def _dual(dual, new_dual, i, inside, size, along, down):
    shrunk = 1.0 + RATE * tl.sqrt(along * along + down * down)
    tl.store(new_dual + i, (tl.load(dual + i, inside, 0.0) + RATE * along) / shrunk, inside)
    tl.store(new_dual + size + i, (tl.load(dual + size + i, inside, 0.0) + RATE * down) / shrunk, inside)


@triton.jit
@no_type_check
def _linearise(first, planes, flow, data, height, width, TILE: tl.constexpr):
    pair = tl.program_id(1)
    size = height * width
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = i < size
    planes += pair * 3 * size
    data += pair * 3 * size
    u = tl.load(flow + pair * 2 * size + i, inside, 0.0)
    v = tl.load(flow + pair * 2 * size + size + i, inside, 0.0)
    x, y = i % width + u, i // width + v
    left, top = tl.floor(x), tl.floor(y)
    warped = tl.zeros([TILE], tl.float32)
    gx = tl.zeros([TILE], tl.float32)
    gy = tl.zeros([TILE], tl.float32)
    for k in tl.static_range(16):
        column, row = left + (k % 4 - 1), top + (k // 4 - 1)
        there = inside & (column >= 0) & (column < width) & (row >= 0) & (row < height)  # outside, the image is 0
        at = tl.where(there, row * width + column, 0).to(tl.int32)
        weight = _cubic(x - column) * _cubic(y - row)
        warped += weight * tl.load(planes + at, there, 0.0)
        gx += weight * tl.load(planes + size + at, there, 0.0)
        gy += weight * tl.load(planes + 2 * size + at, there, 0.0)
    tl.store(data + i, gx, inside)
    tl.store(data + size + i, gy, inside)
    tl.store(data + 2 * size + i, warped - gx * u - gy * v - tl.load(first + pair * size + i, inside, 0.0), inside)


@triton.jit
@no_type_check
def _cubic(distance):
    t = tl.abs(distance)  # Keys 1981 with a = -0.75
    return tl.where(t < 1.0, (1.25 * t - 2.25) * t * t + 1.0, ((-0.75 * t + 3.75) * t - 6.0) * t + 3.0)


@triton.jit
@no_type_check
def _median(flow, out, live, height, width, TILE: tl.constexpr):
    plane = tl.program_id(1)
    size = height * width
    i = tl.program_id(0) * TILE + tl.arange(0, TILE)
    flow += plane * size
    out += plane * size
    if tl.load(live + plane // 2) == 0:
        tl.store(out + i, tl.load(flow + i, i < size), i < size)
    else:
        a0, a1, a2, a3, a4 = _column(flow, i, -2, height, width)
        b0, b1, b2, b3, b4 = _column(flow, i, -1, height, width)
        c0, c1, c2, c3, c4 = _column(flow, i, 0, height, width)
        d0, d1, d2, d3, d4 = _column(flow, i, 1, height, width)
        e0, e1, e2, e3, e4 = _column(flow, i, 2, height, width)
        a0, b0, c0, d0, e0 = _sorted(a0, b0, c0, d0, e0)
        a1, b1, c1, d1, e1 = _sorted(a1, b1, c1, d1, e1)
        a2, b2, c2, d2, e2 = _sorted(a2, b2, c2, d2, e2)
        a3, b3, c3, d3, e3 = _sorted(a3, b3, c3, d3, e3)
        a4, b4, c4, d4, e4 = _sorted(a4, b4, c4, d4, e4)
        # Columns and then rows are sorted, as in `tvl1_cpu`.
        before = tl.maximum(tl.maximum(d0, c1), tl.maximum(b2, a3))
        after = tl.minimum(tl.minimum(e1, d2), tl.minimum(c3, b4))
        e0, d1, middle, b3, a4 = _sorted(e0, d1, c2, b3, a4)
        middle = tl.maximum(tl.minimum(before, middle), tl.minimum(tl.maximum(before, middle), after))
        tl.store(out + i, middle, i < size)


@triton.jit
@no_type_check
def _column(plane, i, along, height, width):
    x = tl.minimum(tl.maximum(i % width + along, 0), width - 1)  # beyond an edge, its pixels are repeated
    y = i // width
    inside = i < height * width
    return _sorted(
        tl.load(plane + tl.maximum(y - 2, 0) * width + x, inside, 0.0),
        tl.load(plane + tl.maximum(y - 1, 0) * width + x, inside, 0.0),
        tl.load(plane + y * width + x, inside, 0.0),
        tl.load(plane + tl.minimum(y + 1, height - 1) * width + x, inside, 0.0),
        tl.load(plane + tl.minimum(y + 2, height - 1) * width + x, inside, 0.0),
    )


@triton.jit
@no_type_check
def _sorted(a, b, c, d, e):
    a, b = tl.minimum(a, b), tl.maximum(a, b)
    d, e = tl.minimum(d, e), tl.maximum(d, e)
    c, e = tl.minimum(c, e), tl.maximum(c, e)
    c, d = tl.minimum(c, d), tl.maximum(c, d)
    b, e = tl.minimum(b, e), tl.maximum(b, e)
    a, d = tl.minimum(a, d), tl.maximum(a, d)
    a, c = tl.minimum(a, c), tl.maximum(a, c)
    b, d = tl.minimum(b, d), tl.maximum(b, d)
    b, c = tl.minimum(b, c), tl.maximum(b, c)
    return a, b, c, d, e
