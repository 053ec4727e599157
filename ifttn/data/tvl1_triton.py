"""TV-L1's three steps as Triton kernels, an engine for `tvl1.solve`. One launch serves every pair of a chunk.

An iteration is one kernel: a program computes the new u of its pixels and of their right and lower neighbours (which
others compute too), and from these the new p. It reads one pair of buffers and writes another, so the order of programs
does not matter. A pair ends by itself: the sums of squared changes are fixed-point integers, which add up to the same
in any order, and every iteration reads the sum of the one before. After a pair's last iteration, the next one copies
its fields, so that both pairs of buffers hold the result; those after that do nothing.

Planes are contiguous rows of H * W pixels; i is a pixel's place in one, and B the second axis of every grid.
"""

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Bool, Float32
from torch import Tensor

from ifttn.data.tvl1 import FLAT, INNER, LAMBDA, TAU, THETA, TOLERANCE

BLOCK = 256
POLL = 10
"""Iterations from one look of the host at what still lives to the next."""
UNITS = tl.constexpr(2.0**24)
"""Of the fixed-point sums, in a squared pixel."""
LIMIT, WEIGHT, RATE, STEEP = (tl.constexpr(x) for x in (LAMBDA * THETA, THETA, TAU / THETA, FLAT))
"""Kernels see only globals of this type."""


def linearise(
    first: Float32[Tensor, "B H W"], planes: Float32[Tensor, "B 3 H W"], flow: Float32[Tensor, "B 2 H W"]
) -> Float32[Tensor, "B 3 H W"]:
    """Gradient and residual of the second image (first of its `planes`; the others are its gradient), warped."""
    data = torch.empty_like(planes)
    _linearise[_grid(flow)](first.contiguous(), planes, flow.contiguous(), data, *_size(flow), BLOCK)
    return data


def median(flow: Float32[Tensor, "B 2 H W"], live: Bool[Tensor, " B"]) -> Float32[Tensor, "B 2 H W"]:
    """5 x 5 median of the pairs that live, the others unchanged."""
    out = torch.empty_like(flow, memory_format=torch.contiguous_format)
    tiles, pairs = _grid(flow)
    _median[tiles, 2 * pairs](flow.contiguous(), out, live.byte(), *_size(flow), BLOCK)
    return out


def relax(
    flow: Float32[Tensor, "B 2 H W"],
    dual: Float32[Tensor, "B 4 H W"],
    data: Float32[Tensor, "B 3 H W"],
    live: Bool[Tensor, " B"],
) -> tuple[Float32[Tensor, "B 2 H W"], Float32[Tensor, "B 4 H W"], Bool[Tensor, " B"]]:
    """INNER iterations of the pairs that live, fewer of those that end; which still live. Writes `flow` and `dual`."""
    enough = int(TOLERANCE * UNITS.value * flow.shape[-2] * flow.shape[-1])
    changes = torch.zeros(INNER + 2, len(flow), dtype=torch.int64, device=flow.device)
    changes[:2] = live * (enough + 1)  # who lives came from two iterations that changed much
    here, there = (flow, dual), (torch.empty_like(flow), torch.empty_like(dual))
    for turn in range(INNER):
        _iterate[_grid(flow)](*here, *there, data, changes[turn:], enough, len(flow), *_size(flow), BLOCK)
        here, there = there, here
        live = changes[turn + 2] > enough
        if (turn + 1) % POLL == 0 and not live.any():  # an even number: `here` are the buffers that came in
            break
    return flow, dual, live


def _size(flow: Tensor) -> tuple[int, int]:
    return flow.shape[-2], flow.shape[-1]


def _grid(flow: Tensor) -> tuple[int, int]:
    return triton.cdiv(flow.shape[-2] * flow.shape[-1], BLOCK), len(flow)


@triton.jit
@no_type_check
def _iterate(  # noqa: PLR0913 (a kernel takes pointers and numbers)
    flow, dual, new_flow, new_dual, data, changes, enough, pairs, height, width, BLOCK: tl.constexpr
):
    pair = tl.program_id(1)
    size = height * width
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
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
def _linearise(first, planes, flow, data, height, width, BLOCK: tl.constexpr):
    pair = tl.program_id(1)
    size = height * width
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    planes += pair * 3 * size
    data += pair * 3 * size
    u = tl.load(flow + pair * 2 * size + i, inside, 0.0)
    v = tl.load(flow + pair * 2 * size + size + i, inside, 0.0)
    x, y = i % width + u, i // width + v
    left, top = tl.floor(x), tl.floor(y)
    warped = tl.zeros([BLOCK], tl.float32)
    gx = tl.zeros([BLOCK], tl.float32)
    gy = tl.zeros([BLOCK], tl.float32)
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
def _median(flow, out, live, height, width, BLOCK: tl.constexpr):
    plane = tl.program_id(1)
    size = height * width
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
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
        # Columns and then rows are sorted. All 252 ways to cut such a square into low and high say: the median is the
        # middle one of the largest on the diagonal before the longest, the median of that, the smallest on the next.
        before = tl.maximum(tl.maximum(d0, c1), tl.maximum(b2, a3))
        after = tl.minimum(tl.minimum(e1, d2), tl.minimum(c3, b4))
        e0, d1, middle, b3, a4 = _sorted(e0, d1, c2, b3, a4)
        middle = tl.maximum(tl.minimum(before, middle), tl.minimum(tl.maximum(before, middle), after))
        tl.store(out + i, middle, i < size)


@triton.jit
@no_type_check
def _column(plane, i, along, height, width):
    x = tl.minimum(tl.maximum(i % width + along, 0), width - 1)  # beyond an edge, its pixels go on
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
