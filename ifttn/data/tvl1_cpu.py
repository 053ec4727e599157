"""TV-L1 on one CPU core. Every field of a level is one long row, so that all loops use SIMD.

The state of a level is (12, (H + 2) stride + 128): each plane has a spare row above and below the image. The stride is
W, rounded up to a multiple of a vector, because loads that cross cache lines halve the speed. The spare pixels at the
end of a row are outside the image. There the dual field stays zero, because both rates are zero; inside they are
TAU / THETA. The rates are also zero where a forward difference would leave the image: along x in the last column, and
along y in the last row.
"""

import math
from typing import no_type_check

import cv2
import numpy as np
from jaxtyping import Float32
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from ifttn.data.tvl1 import EPSILON, FLAT, INNER, LAMBDA, OPENCV, OUTER, TAU, THETA, CoarseToFine

GX, GY, RHO, INVERSE, U, V, UX, UY, VX, VY, RATE_X, RATE_Y = range(12)
BAND = 4096
"""Pixels whose u is updated before their p. They have 48 bytes each and fit in a second-level cache."""
VECTOR, SPARE = 8, 128
"""Floats in a vector, and in the gap between planes. Without the gap, all planes might use the same cache lines."""
RING = 4
"""Width of the border of zeros around an image. A bicubic kernel further outside sees only zeros."""
CUBIC = ((0, 1, 0, 0), (-0.75, 0, 0.75, 0), (1.5, -2.25, 1.5, -0.75), (-0.75, 1.25, -1.25, 0.75))
"""Coefficients of 1, t, t^2 and t^3 (rows) for the pixels at -1, 0, 1 and 2 (columns) and a point at 0 <= t < 1 (Keys
1981 with a = -0.75)."""
LIMIT, WEIGHT = np.float32(LAMBDA * THETA), np.float32(THETA)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)

# Loops are vectorised only if sums may be reordered and division by zero is not checked. numba keeps the machine code
# on disk until this file changes, so constants from other files are arguments. numba compiles only plain functions, and
# `no_type_check` keeps the type checker of the tests from wrapping them.
_compiled = njit(fastmath=True, nogil=True, cache=True, error_model="numpy")


class Solver:
    """Computes the flow of pairs of one size, one after another, in memory that is allocated once."""

    def __init__(self, height: int, width: int, pyramid: CoarseToFine = OPENCV) -> None:
        self.pyramid, self.levels = pyramid, [_Level(h, w) for h, w in pyramid.sizes(height, width)]

    def __call__(
        self, previous: Float32[np.ndarray, "H W"], following: Float32[np.ndarray, "H W"]
    ) -> Float32[np.ndarray, "2 H W"]:
        """The flow between two images of luminance in 0..255: displacements along x and y in pixels."""
        step, pairs = self.pyramid.step, [(previous, following)]
        for _ in self.levels[1:]:
            first, second = (cv2.resize(image, None, fx=step, fy=step) for image in pairs[-1])
            pairs.append((first, second))
        flow = np.zeros((2, *pairs[-1][0].shape), np.float32)
        for level, pair in zip(reversed(self.levels), reversed(pairs), strict=True):
            if flow.shape[1:] != level.shape:
                flow = np.stack([cv2.resize(flow[i], level.shape[::-1]) for i in (0, 1)]) * np.float32(1 / step)
            flow = level.solve(*pair, flow, self.pyramid.warps)
        return flow

    @property
    def iterations(self) -> float:
        """Mean number of iterations per warp, over the pixels of all levels and over the pairs so far."""
        warps = sum(level.pixels * level.warps for level in self.levels)
        return sum(level.pixels * level.iterations for level in self.levels) / max(1, warps)


class _Level:
    def __init__(self, height: int, width: int) -> None:
        self.shape, self.pixels = (height, width), height * width
        self.stride = -(-width // VECTOR) * VECTOR
        rows, floats = (height + 2) * self.stride, (height + 2) * self.stride + SPARE
        self.state = _cache_aligned(12 * floats).reshape(12, floats)
        inside = self.state[:, :rows].reshape(12, height + 2, self.stride)[:, 1:-1, :width]
        inside[RATE_X, :, :-1] = inside[RATE_Y, :-1] = TAU / THETA
        self.flow = inside[U : V + 1]
        self.planes = _cache_aligned((height + 2 * RING) * (width + 2 * RING) * 4).reshape(height + 2 * RING, -1, 4)
        self.wide = np.empty((height + 4, width + 4), np.float32)
        self.columns = np.empty((5, width + 4), np.float32)
        self.warps = self.iterations = 0

    def solve(
        self,
        first: Float32[np.ndarray, "H W"],
        second: Float32[np.ndarray, "H W"],
        flow: Float32[np.ndarray, "2 H W"],
        warps: int,
    ) -> Float32[np.ndarray, "2 H W"]:
        self.flow[:] = flow
        self.state[UX : VY + 1] = 0
        _differentiate(second, self.planes)
        enough = np.float32(EPSILON**2 * self.pixels)
        for _ in range(warps):
            _linearise(self.state, self.planes, first, self.stride, np.float32(FLAT))
            self.warps += 1
            for _ in range(OUTER):
                for plane in (U, V):
                    _median(self.state[plane], self.wide, self.columns, self.stride)
                taken, change = _relax(self.state, self.shape[0], self.stride, LIMIT, WEIGHT, INNER, enough)
                self.iterations += taken
                if change <= enough:
                    break
        return self.flow.copy()


def _cache_aligned(count: int) -> Float32[np.ndarray, " count"]:
    """An array of zeros that begins at a cache line."""
    floats = np.zeros(count + 16, np.float32)
    start = -floats.ctypes.data // 4 % 16
    return floats[start : start + count]


@intrinsic
@no_type_check
def _interpolated(context, planes, start, row, across, down):
    """Bicubic values of the four planes at a point.

    The point has 4 x 4 neighbours. The first begins at `start`, and the one below it `row` floats later. `across` and
    `down` are the distances of the point from the neighbour in the second row and second column, in pixels.
    """
    # Here the four planes of a neighbour are one vector, which numba cannot express. In plain numba a flow takes 1.27
    # times as long (1.14 to 1.35), with cv2.remap 1.32 times (1.19 to 1.50): medians of ten pairs of 340 x 256.

    def generate(context, builder, signature, values):
        start, row, four = values[1], values[2], ir.VectorType(ir.FloatType(), 4)
        points = context.make_array(planes)(context, builder, values[0]).data

        def taken(line, column):
            at = builder.add(start, builder.mul(row, ir.Constant(row.type, line)))
            point = builder.gep(points, [builder.add(at, ir.Constant(at.type, 4 * column))])
            return builder.load(builder.bitcast(point, four.as_pointer()), align=4)

        def spread(vector, lane):
            lanes = ir.Constant(ir.VectorType(ir.IntType(32), 4), [lane] * 4)
            return builder.shuffle_vector(vector, vector, lanes)

        def fused(a, b, c):
            return builder.fadd(builder.fmul(a, b, flags=("fast",)), c, flags=("fast",))

        def weights(t):
            t = spread(builder.insert_element(ir.Constant(four, ir.Undefined), t, ir.Constant(ir.IntType(32), 0)), 0)
            one, first, second, third = (ir.Constant(four, list(map(float, row))) for row in CUBIC)
            return fused(fused(fused(third, t, second), t, first), t, one)

        def summed(vectors, factors):
            total = ir.Constant(four, [0.0] * 4)
            for lane, vector in enumerate(vectors):
                total = fused(vector, spread(factors, lane), total)
            return total

        along, upright = weights(values[3]), weights(values[4])
        point = summed([summed([taken(j, i) for i in range(4)], along) for j in range(4)], upright)
        floats = [builder.extract_element(point, ir.Constant(ir.IntType(32), lane)) for lane in range(4)]
        return context.make_tuple(builder, signature.return_type, floats)

    return types.UniTuple(types.float32, 4)(planes, start, row, across, down), generate


@_compiled
@no_type_check
def _differentiate(image, planes):
    height, width = image.shape
    for y in range(height):
        above, below, row = max(y - 1, 0), min(y + 1, height - 1), planes[y + RING]
        for x in range(width):
            row[x + RING, 0] = image[y, x]
            row[x + RING, 1] = HALF * (image[y, min(x + 1, width - 1)] - image[y, max(x - 1, 0)])
            row[x + RING, 2] = HALF * (image[below, x] - image[above, x])


@_compiled
@no_type_check
def _linearise(s, planes, first, stride, flat):
    height, width = first.shape
    points, row = planes.reshape(-1), 4 * planes.shape[1]
    for y in range(height):
        start, stop = (y + 1) * stride, (y + 1) * stride + width
        gx, gy, rho, inverse = s[GX, start:stop], s[GY, start:stop], s[RHO, start:stop], s[INVERSE, start:stop]
        u, v, image = s[U, start:stop], s[V, start:stop], first[y]
        for x in range(width):
            across, down = np.float32(x) + u[x], np.float32(y) + v[x]
            left, top = np.floor(across), np.floor(down)
            column, line = (
                min(max(int(left), -3), width + 1),
                min(max(int(top), -3), height + 1),
            )  # all values further outside are 0
            at = (line + RING - 1) * row + (column + RING - 1) * 4
            warped, along, upright, _ = _interpolated(points, at, row, across - left, down - top)
            gx[x], gy[x], rho[x] = along, upright, warped - along * u[x] - upright * v[x] - image[x]
        for x in range(width):
            steepness = gx[x] * gx[x] + gy[x] * gy[x]
            inverse[x] = ONE / steepness if steepness > flat else ZERO


@_compiled
@no_type_check
def _median(plane, wide, columns, stride):
    height, width = wide.shape[0] - 4, wide.shape[1] - 4
    for y in range(height + 4):  # beyond an edge, the pixels of the edge are repeated
        start = (min(max(y - 2, 0), height - 1) + 1) * stride
        row, line = plane[start : start + width], wide[y]
        line[:2], line[2:-2], line[-2:] = row[0], row, row[-1]
    for y in range(height):
        l0, l1, l2, l3, l4 = wide[y], wide[y + 1], wide[y + 2], wide[y + 3], wide[y + 4]
        r0, r1, r2, r3, r4 = columns[0], columns[1], columns[2], columns[3], columns[4]
        for x in range(width + 4):
            r0[x], r1[x], r2[x], r3[x], r4[x] = _sorted(l0[x], l1[x], l2[x], l3[x], l4[x])
        out = plane[(y + 1) * stride : (y + 1) * stride + width]
        # The columns are sorted; now the rows are sorted. The median is the median of three values: the largest on the
        # diagonal before the longest one, the median of the longest one, and the smallest on the diagonal after it.
        # (Checked with all 252 such squares of zeros and ones. cv2.medianBlur gives the same in 1.6 times the time.)
        for x in range(width):
            _, _, _, d0, e0 = _sorted(r0[x], r0[x + 1], r0[x + 2], r0[x + 3], r0[x + 4])
            _, _, c1, d1, e1 = _sorted(r1[x], r1[x + 1], r1[x + 2], r1[x + 3], r1[x + 4])
            _, b2, c2, d2, _ = _sorted(r2[x], r2[x + 1], r2[x + 2], r2[x + 3], r2[x + 4])
            a3, b3, c3, _, _ = _sorted(r3[x], r3[x + 1], r3[x + 2], r3[x + 3], r3[x + 4])
            a4, b4, _, _, _ = _sorted(r4[x], r4[x + 1], r4[x + 2], r4[x + 3], r4[x + 4])
            before, after = max(max(d0, c1), max(b2, a3)), min(min(e1, d2), min(c3, b4))
            _, _, middle, _, _ = _sorted(e0, d1, c2, b3, a4)
            out[x] = max(min(before, middle), min(max(before, middle), after))


@_compiled
@no_type_check
def _sorted(a, b, c, d, e):
    a, b = min(a, b), max(a, b)
    d, e = min(d, e), max(d, e)
    c, e = min(c, e), max(c, e)
    c, d = min(c, d), max(c, d)
    b, e = min(b, e), max(b, e)
    a, d = min(a, d), max(a, d)
    a, c = min(a, c), max(a, c)
    b, d = min(b, d), max(b, d)
    b, c = min(b, c), max(b, c)
    return a, b, c, d, e


@_compiled
@no_type_check
def _relax(s, height, stride, limit, theta, most, enough):
    """Iterate until the sum of squared changes is at most `enough`. Returns the number of iterations and this sum."""
    start, stop = stride, (height + 1) * stride
    taken, change = 0, enough + ONE
    while taken < most and change > enough:
        change = ZERO
        # The new u of a pixel needs the old p of this pixel and of its left and upper neighbours. The new p needs the
        # new u of this pixel and of its right and lower neighbours. So p is updated one row after u.
        for at in range(start, stop, BAND):
            end = min(at + BAND, stop)
            change += _primal(s, at, end, stride, limit, theta)
            _dual(s, max(at - stride, start), end - stride, stride)
        _dual(s, stop - stride, stop, stride)
        taken += 1
    return taken, change


@_compiled
@no_type_check
def _primal(s, start, stop, stride, limit, theta):
    gx, gy, rho, inverse = s[GX, start:stop], s[GY, start:stop], s[RHO, start:stop], s[INVERSE, start:stop]
    u, ux, ux_left = s[U, start:stop], s[UX, start:stop], s[UX, start - 1 : stop - 1]
    v, vx, vx_left = s[V, start:stop], s[VX, start:stop], s[VX, start - 1 : stop - 1]
    uy, uy_above = s[UY, start:stop], s[UY, start - stride : stop - stride]
    vy, vy_above = s[VY, start:stop], s[VY, start - stride : stop - stride]
    change = ZERO
    for i in range(stop - start):
        step = min(max(-(rho[i] + gx[i] * u[i] + gy[i] * v[i]) * inverse[i], -limit), limit)
        du = step * gx[i] + theta * (ux[i] - ux_left[i] + uy[i] - uy_above[i])
        dv = step * gy[i] + theta * (vx[i] - vx_left[i] + vy[i] - vy_above[i])
        u[i] += du
        v[i] += dv
        change += du * du + dv * dv
    return change


@_compiled
@no_type_check
def _dual(s, start, stop, stride):
    rate_x, rate_y = s[RATE_X, start:stop], s[RATE_Y, start:stop]
    u, u_right, u_below = s[U, start:stop], s[U, start + 1 : stop + 1], s[U, start + stride : stop + stride]
    v, v_right, v_below = s[V, start:stop], s[V, start + 1 : stop + 1], s[V, start + stride : stop + stride]
    ux, uy, vx, vy = s[UX, start:stop], s[UY, start:stop], s[VX, start:stop], s[VY, start:stop]
    for i in range(stop - start):
        du_x, du_y = rate_x[i] * (u_right[i] - u[i]), rate_y[i] * (u_below[i] - u[i])
        dv_x, dv_y = rate_x[i] * (v_right[i] - v[i]), rate_y[i] * (v_below[i] - v[i])
        shrink_u = ONE / (ONE + math.sqrt(du_x * du_x + du_y * du_y))
        shrink_v = ONE / (ONE + math.sqrt(dv_x * dv_x + dv_y * dv_y))
        ux[i] = (ux[i] + du_x) * shrink_u
        uy[i] = (uy[i] + du_y) * shrink_u
        vx[i] = (vx[i] + dv_x) * shrink_v
        vy[i] = (vy[i] + dv_y) * shrink_v
