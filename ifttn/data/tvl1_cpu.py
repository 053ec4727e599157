"""TV-L1 on one CPU core: every field of a level is one long row, so that all loops run in SIMD.

The state of a level is (12, (H + 2) stride): each plane has a row of its own above and below the image, and stride is
W + 1. What lies outside the image, to the right and to the left of it, is that one column: its dual field stays zero,
because the two rates, TAU / THETA inside, are zero there. They are zero as well where a forward difference would leave
the image, along x in the last column and along y in the last row.
"""

import math
from typing import no_type_check

import cv2
import numpy as np
from jaxtyping import Float32
from numba import njit

from ifttn.data.tvl1 import FLAT, INNER, LAMBDA, OUTER, STEP, TAU, THETA, TOLERANCE, WARPS, sizes

GX, GY, RHO, INVERSE, U, V, UX, UY, VX, VY, RATE_X, RATE_Y = range(12)
BAND = 2048
"""Pixels of which u and then p are updated; 48 bytes each fit in a second-level cache."""
LIMIT, WEIGHT = np.float32(LAMBDA * THETA), np.float32(THETA)
ZERO, HALF, ONE = np.float32(0), np.float32(0.5), np.float32(1)

# Sums may be reordered and division by zero goes unchecked, else loops are not vectorised. Later processes find the
# machine code in the cache, which is renewed when this file changes: so constants of other files are arguments. numba
# takes plain functions only, hence `no_type_check` on every kernel.
_compiled = njit(fastmath=True, nogil=True, cache=True, error_model="numpy")


class Solver:
    """Flow of one pair after another, all of one size, in memory that is allocated once."""

    def __init__(self, height: int, width: int) -> None:
        self.levels = [_Level(h, w) for h, w in sizes(height, width)]

    def __call__(
        self, previous: Float32[np.ndarray, "H W"], following: Float32[np.ndarray, "H W"]
    ) -> Float32[np.ndarray, "2 H W"]:
        """Displacement along x and y in pixels, of luminance in 0..255."""
        pyramid = [(previous, following)]
        for _ in self.levels[1:]:
            first, second = (cv2.resize(image, None, fx=STEP, fy=STEP) for image in pyramid[-1])
            pyramid.append((first, second))
        flow = np.zeros((2, *pyramid[-1][0].shape), np.float32)
        for level, pair in zip(reversed(self.levels), reversed(pyramid), strict=True):
            if flow.shape[1:] != level.shape:
                flow = np.stack([cv2.resize(flow[i], level.shape[::-1]) for i in (0, 1)]) * np.float32(1 / STEP)
            flow = level.solve(*pair, flow)
        return flow

    @property
    def iterations(self) -> float:
        """A warp, in the mean over the pixels of all levels and over the pairs so far."""
        warps = sum(level.pixels * level.warps for level in self.levels)
        return sum(level.pixels * level.iterations for level in self.levels) / max(1, warps)


class _Level:
    def __init__(self, height: int, width: int) -> None:
        self.shape, self.pixels = (height, width), height * width
        self.state = np.zeros((12, (height + 2) * (width + 1)), np.float32)
        inside = self.state.reshape(12, height + 2, width + 1)[:, 1:-1, :-1]
        inside[RATE_X, :, :-1] = inside[RATE_Y, :-1] = TAU / THETA
        self.u, self.v = inside[U], inside[V]
        self.planes, self.warped = (np.empty((height, width, 3), np.float32) for _ in range(2))
        self.aims = np.empty((2, height, width), np.float32)
        self.warps = self.iterations = 0

    def solve(
        self,
        first: Float32[np.ndarray, "H W"],
        second: Float32[np.ndarray, "H W"],
        flow: Float32[np.ndarray, "2 H W"],
    ) -> Float32[np.ndarray, "2 H W"]:
        self.u[:], self.v[:] = flow
        self.state[UX : VY + 1] = 0
        _differentiate(second, self.planes)
        enough = np.float32(TOLERANCE * self.pixels)
        for _ in range(WARPS):
            _aim(self.state, self.aims)
            cv2.remap(self.planes, self.aims[0], self.aims[1], cv2.INTER_CUBIC, self.warped)  # outside, 0
            _linearise(self.state, self.warped, first, np.float32(FLAT))
            self.warps += 1
            for _ in range(OUTER):
                for plane in (self.u, self.v):
                    cv2.medianBlur(plane, 5, plane)
                taken, change = _relax(self.state, self.shape[1] + 1, LIMIT, WEIGHT, INNER, enough)
                self.iterations += taken
                if change <= enough:
                    break
        return np.stack([self.u, self.v])


@_compiled
@no_type_check
def _differentiate(image, planes):
    height, width = image.shape
    for y in range(height):
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            planes[y, x, 0] = image[y, x]
            planes[y, x, 1] = HALF * (image[y, min(x + 1, width - 1)] - image[y, max(x - 1, 0)])
            planes[y, x, 2] = HALF * (image[below, x] - image[above, x])


@_compiled
@no_type_check
def _aim(s, aims):
    height, width = aims.shape[1:]
    for y in range(height):
        start = (y + 1) * (width + 1)
        u, v, along, down = s[U, start : start + width], s[V, start : start + width], aims[0, y], aims[1, y]
        for x in range(width):
            along[x] = np.float32(x) + u[x]
            down[x] = np.float32(y) + v[x]


@_compiled
@no_type_check
def _linearise(s, warped, first, flat):
    height, width = first.shape
    for y in range(height):
        start, stop = (y + 1) * (width + 1), (y + 2) * (width + 1) - 1
        gx, gy, rho, inverse = s[GX, start:stop], s[GY, start:stop], s[RHO, start:stop], s[INVERSE, start:stop]
        u, v, row, image = s[U, start:stop], s[V, start:stop], warped[y], first[y]
        for x in range(width):
            gx[x], gy[x] = row[x, 1], row[x, 2]
            rho[x] = row[x, 0] - row[x, 1] * u[x] - row[x, 2] * v[x] - image[x]
            steepness = row[x, 1] * row[x, 1] + row[x, 2] * row[x, 2]
            inverse[x] = ONE / steepness if steepness > flat else ZERO


@_compiled
@no_type_check
def _relax(s, stride, limit, theta, most, enough):
    """Iterate until the sum of squared changes is small enough; how many it took, and the last one's sum."""
    start, stop = stride, s.shape[1] - stride
    taken, change = 0, enough + ONE
    while taken < most and change > enough:
        change = ZERO
        # A pixel's u needs the old p of itself, its left and its upper neighbour; its p needs the new u of itself, its
        # right and its lower neighbour: so p follows one row behind.
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
