"""TV-L1 optical flow: Zach, Pock, Bischof 2007, in the variant and with the defaults of OpenCV's DualTVL1.

The flow u is found on a pyramid of images, from coarse to fine (`CoarseToFine`). At each level, I1 is warped by u
(bicubic) and linearised there, five times over. With g = grad I1, the residual is rho(u) = rho_0 + <g, u>, and
iterations lower

    LAMBDA |rho(u)| + |grad u|    (Zach et al. 2007, Eqs. 6-15), by turns in the data term and in the total variation:

    v = u + min(max(-rho(u) / |g|^2, -LAMBDA THETA), LAMBDA THETA) g
    u = v + THETA div p
    p = (p + TAU / THETA grad u) / (1 + TAU / THETA |grad u|)

A 5 x 5 median smooths u before every 30 iterations. They end once the mean squared change of u is at most EPSILON^2.
How many that takes depends on the motion (10 to 100 on real videos); a fixed number misses OpenCV's flow by up to half
a pixel.

This file holds what both engines share: numba on a CPU (`tvl1_cpu`) and CUDA C++ on a GPU (`tvl1_cuda`).
`ifttn.data.flow` chooses between them. The plain algorithm in torch, with which tests compare both, is
tests/data/tvl1_reference.py.

Shapes: B pairs, H x W pixels of a level. Planes of a flow (u, v) along (x, y), of a dual field (u_x, u_y, v_x, v_y), of
the data (g_x, g_y, rho_0).
"""

from dataclasses import dataclass

TAU, LAMBDA, THETA = 0.25, 0.15, 0.3
EPSILON = 0.01
"""Pixels: the root mean square change of u at which iterations end."""
OUTER, INNER = 10, 30
"""Medians a warp at most, iterations after each median at most."""
FLAT = 1.1920929e-7
"""A pixel has no data term where |g|^2 is at most this."""
SMALLEST = 16
"""Pixels: a level has no shorter side."""


@dataclass(frozen=True)
class CoarseToFine:
    """How many levels there are, how far apart, and how often each linearises. The defaults are OpenCV's."""

    scales: int = 5
    """Levels at most."""
    step: float = 0.8
    """Side of a level over the side of the next finer one."""
    warps: int = 5
    """Linearisations a level."""

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
"""At 96 x 72 it takes a third of the time, and its flow is 0.04 px away in the mean: one level of a store whose bound
is 5 px."""


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
