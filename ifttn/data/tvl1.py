"""TV-L1 optical flow: Zach, Pock, Bischof 2007, in the variant and with the defaults of OpenCV's DualTVL1.

The flow u is found on a pyramid of images, from coarse to fine (`CoarseToFine`). At each level, five times, I1 is
warped by u (bicubic) and linearised. With g = grad I1, the residual is rho(u) = rho_0 + <g, u>, and iterations minimise

    LAMBDA |rho(u)| + |grad u|    (Zach et al. 2007, Eqs. 6-15), alternating the data term and the total variation:

    v = u + min(max(-rho(u) / |g|^2, -LAMBDA THETA), LAMBDA THETA) g
    u = v + THETA div p
    p = (p + TAU / THETA grad u) / (1 + TAU / THETA |grad u|)

A 5 x 5 median smooths u before every 30 iterations. Iterations end when the mean squared change of u is at most
EPSILON^2. Their number depends on the motion (10 to 100 on real videos). With a fixed number, the flow would differ
from OpenCV's by up to half a pixel.

This file has the constants of both engines: numba on a CPU (`tvl1_cpu`) and CUDA C++ on a GPU (`tvl1_cuda`).
`ifttn.data.flow` chooses between them. Tests compare both with the plain algorithm in torch,
tests/data/tvl1_reference.py.

Shapes: B pairs, H x W pixels of a level. A flow has planes (u, v) along (x, y), a dual field (u_x, u_y, v_x, v_y), the
data (g_x, g_y, rho_0).
"""

from dataclasses import dataclass

TAU, LAMBDA, THETA = 0.25, 0.15, 0.3
EPSILON = 0.01
"""Root mean square change of u, in pixels, at which iterations end."""
OUTER, INNER = 10, 30
"""Largest number of medians per warp, and of iterations after each median."""
FLAT = 1.1920929e-7
"""A pixel whose |g|^2 is at most this value has no data term."""
SMALLEST = 16
"""Shortest side of a level in pixels."""


@dataclass(frozen=True)
class CoarseToFine:
    """The number of levels, the ratio of their sizes, and the linearisations per level. The defaults are OpenCV's."""

    scales: int = 5
    """Largest number of levels."""
    step: float = 0.8
    """Side of a level divided by the side of the next finer level."""
    warps: int = 5
    """Linearisations per level."""

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) of the levels, with the finest level first."""
        levels = [(height, width)]
        for _ in range(self.scales - 1):
            height, width = round(height * self.step), round(width * self.step)
            if min(height, width) < SMALLEST:
                break
            levels.append((height, width))
        return levels


OPENCV = CoarseToFine()
FAST = CoarseToFine(scales=3, step=0.5, warps=3)
"""At 96 x 72 it takes a third of the time, and its flow differs by 0.04 px on average. This is one byte level of a
store with a bound of 5 px."""


def bytes_moved(height: int, width: int, iterations: float = 25.0, fused: int = 1) -> float:
    """Bytes that a pair moves between memory and processor, if each pass reads and writes each field once.

    In float32, a warp moves 36 bytes per pixel (in: image, three warped planes, flow; out: data), a median 16, and a
    pass of `fused` iterations 60 (in: data, flow, dual; out: flow, dual). At 340 x 256, all levels together have 2.48
    times the pixels of the finest level, and 5 warps of 25 iterations move 1.68 GB per pair. A GPU that moves 3 TB per
    second computes fewer than 1,800 such pairs per second, unless its caches keep data from one pass to the next.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.
        iterations: mean number of iterations per warp, over pixels (`tvl1_cpu.Solver.iterations` counts them).
        fused: iterations in one pass over memory.
    """
    pixels = sum(h * w for h, w in OPENCV.sizes(height, width))
    medians = max(1.0, iterations / INNER)
    return pixels * OPENCV.warps * (36 + 16 * medians + 60 * iterations / fused)
