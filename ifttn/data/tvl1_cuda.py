"""TV-L1 of many pairs on a GPU. NVRTC compiles `tvl1.cu` for the current GPU, and this file launches its kernels.

Most of the time goes into iterations, and an iteration computes little with each byte that it reads. So a launch of
`relax` does FUSED iterations on a tile that stays on the chip. The number of iterations that a pair needs is known only
afterwards. If fewer than FUSED were enough, the next launch repeats the pair from its input with the right number. Each
field has two buffers: a launch reads one and writes the other, and the state of a pair says which buffer holds the
result, so that no field is copied. After each median, the host waits once for the list of pairs that continue.

Shapes: B pairs, H x W pixels of a level, S floats in a row of a plane.
"""

from functools import cache
from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from ifttn.data.cuda_kernels import Launch, arguments, launcher, machine_code
from ifttn.data.tvl1 import EPSILON, FLAT, INNER, LAMBDA, OPENCV, OUTER, TAU, THETA, CoarseToFine

SOURCE = Path(__file__).with_name("tvl1.cu")
BYTES = 100
"""Bytes of memory for each pixel of the images, on all levels together."""
SHARE = 0.25
"""Share of the free memory for the pairs of a chunk."""
ROWS, WARPS, FUSED = 4, 12, 6
"""Rows of a tile per warp, warps per block, iterations per launch. Two blocks fit on a multiprocessor of an H100."""
THREADS = 128
"""Threads per block of the other kernels. Each thread computes one pixel, or four."""
DEFINED = {
    "PIXELS": THREADS,
    "ROWS": ROWS,
    "WARPS": WARPS,
    "FUSED": FUSED,
    "INNER": INNER,
    "LIMIT": f"{LAMBDA * THETA}f",
    "THETA": f"{THETA}f",
    "RATE": f"{TAU / THETA}f",
    "FLAT": f"{FLAT}f",
    "ENOUGH": EPSILON**2 * 2**24,
}
"""Constants of the source."""
ROUNDED = ("--prec-sqrt=false", "--prec-div=false", "--ftz=true")
"""These flags save a quarter of the instructions. A root or a quotient may have a wrong last bit, and values below
1e-38 become 0."""
ALIGNED = 8
"""A row begins at a multiple of this number of floats."""
MOST_PAIRS = 65_535 // 2
"""Largest number of pairs: a grid has at most 65,535 blocks along its second axis, and `resize` needs two per pair."""


def solve(
    previous: UInt8[Tensor, "B H W"],
    following: UInt8[Tensor, "B H W"],
    pyramid: CoarseToFine = OPENCV,
    launch: Launch | None = None,
) -> Float32[Tensor, "B 2 H W"]:
    """Displacements along x and y in pixels, from each image of `previous` to the same image of `following`.

    Args:
        previous: luminance in 0..255, on a GPU.
        following: luminance in 0..255, on the same GPU.
        pyramid: levels and warps.
        launch: launches the kernels; by default on the GPU of the images.
    """
    if launch:
        return _solve_chunk(previous, following, pyramid, launch)
    with torch.cuda.device(previous.device):  # a kernel is launched in the context of the current device
        launch = on_gpu(torch.cuda.current_device())
        pairs = int(SHARE * torch.cuda.mem_get_info()[0] / BYTES / previous[0].numel())
        pairs = min(MOST_PAIRS, max(1, pairs))
        chunks = zip(previous.split(pairs), following.split(pairs), strict=True)
        return torch.cat([_solve_chunk(first, second, pyramid, launch) for first, second in chunks])


def _solve_chunk(
    previous: UInt8[Tensor, "B H W"], following: UInt8[Tensor, "B H W"], pyramid: CoarseToFine, launch: Launch
) -> Float32[Tensor, "B 2 H W"]:
    solver = _Solver(launch, len(previous), pyramid.warps)
    sizes, ratio = pyramid.sizes(*previous.shape[1:]), 1 / pyramid.step
    images = [_padded(torch.stack([previous, following]).float())]
    for old, new in pairwise(sizes):
        images.append(solver.resized(images[-1], old, new, (ratio, ratio)))
    flow = images[-1].new_zeros(len(previous), 2, *images[-1].shape[-2:])
    for level in reversed(range(len(sizes))):
        if level + 1 < len(sizes):
            old, new = sizes[level + 1], sizes[level]
            flow = solver.resized(flow, old, new, (old[0] / new[0], old[1] / new[1]), gain=ratio)
        flow = solver.level(images[level][0], images[level][1], flow, sizes[level][1])
    return flow[..., : previous.shape[2]]


def shared_bytes() -> int:
    """Bytes of shared memory of a block of `relax`: its tile, the rows that warps exchange, and the sums."""
    return 16 * (2 * ROWS * 32 * WARPS + 2 * 32 * (WARPS + 1)) + 4 * FUSED * WARPS


class _Solver:
    """The launches for B pairs."""

    def __init__(self, launch: Launch, pairs: int, warps: int) -> None:
        self.launch, self.pairs, self.warps = launch, pairs, warps

    def resized(
        self,
        planes: Float32[Tensor, "*planes h s"],
        old: tuple[int, int],
        new: tuple[int, int],
        ratios: tuple[float, float],
        gain: float = 1.0,
    ) -> Float32[Tensor, "*planes H S"]:
        out = planes.new_zeros(*planes.shape[:-2], new[0], _stride(new[1]))
        count, blocks = planes[..., 0, 0].numel(), -(-new[0] * new[1] // THREADS)
        sizes = *old, planes.shape[-1], *new, out.shape[-1]
        self.launch("resize", (blocks, count, 1), THREADS, 0, arguments(planes, out, *sizes, *ratios, gain))
        return out

    def level(
        self,
        first: Float32[Tensor, "B H S"],
        second: Float32[Tensor, "B H S"],
        flow: Float32[Tensor, "B 2 H S"],
        width: int,
    ) -> Float32[Tensor, "B 2 H S"]:
        height, stride = first.shape[1:]
        flows, duals = flow.new_zeros(2, *flow.shape), flow.new_zeros(2, self.pairs, 4, height, stride)
        flows[0] = flow
        data = flow.new_zeros(self.pairs, 3, height, stride)
        states = torch.zeros(self.pairs, 2 * FUSED + 6, dtype=torch.int32, device=flow.device)
        turned, live = 2 * FUSED, 2 * FUSED + 4  # in a State: which buffer holds the flow; whether the pair continues
        everyone = torch.arange(self.pairs, dtype=torch.int32, device=flow.device)
        size, pixels = (self.pairs, height, width, stride), -(-height * width // THREADS)
        fours = -(-height * -(-width // 4) // THREADS)
        tiles = _tiles(width, 64), _tiles(height, ROWS * WARPS)
        for _ in range(self.warps):
            fields = arguments(first, second, flows, data, states, *size)
            self.launch("linearise", (pixels, self.pairs, 1), THREADS, 0, fields)
            chosen = everyone
            for _ in range(OUTER):
                self.launch("median", (fours, 1, len(chosen)), THREADS, 0, arguments(flows, states, chosen, *size))
                fields = arguments(flows, duals, data, states, chosen, *size)
                for _ in range(-(-INNER // FUSED) + 1):  # the last launch is for pairs that end within a launch
                    self.launch("relax", (*tiles, len(chosen)), 32 * WARPS, shared_bytes(), fields)
                chosen = everyone[states[:, live] != 0]
                if not len(chosen):
                    break
        return flows[states[:, turned].long(), everyone.long()]


def _tiles(length: int, tile: int) -> int:
    """Number of tiles along an axis. The first tile begins two pixels outside the image."""
    return 1 + max(0, -(-(length + 2 - tile) // (tile - 2 * FUSED)))


def _stride(width: int) -> int:
    return -(-width // ALIGNED) * ALIGNED


def _padded(images: Float32[Tensor, "*batch H W"]) -> Float32[Tensor, "*batch H S"]:
    return torch.nn.functional.pad(images, (0, _stride(images.shape[-1]) - images.shape[-1]))


@cache
def on_gpu(device: int) -> Launch:
    """A function that launches the kernels on this GPU, which must be the current one (`cuda_kernels.launcher`)."""
    return launcher(compiled, {"resize": 0, "linearise": 0, "median": 0, "relax": shared_bytes()})


def compiled(architecture: str) -> bytes:
    """The machine code for an architecture such as "sm_90" (`cuda_kernels.machine_code`)."""
    return machine_code(SOURCE, architecture, DEFINED, ROUNDED)
