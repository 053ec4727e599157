"""A model of the host of a GPU, on a machine without one: does the loader keep up with training?

    python tests/benchmarks/host_of_a_gpu.py --modalities flow --gpu 719
    python tests/benchmarks/host_of_a_gpu.py --modalities rgb flow --gpu 272

A pause stands for the time that nvJPEG takes for a batch, and another for the time that the GPU trains on it. Small
calls of torch stand for the launches of a step. Processes really read the store, decode RGB and pass batches on.
Uploads, crops and locked memory are left out, so a real GPU may wait longer.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from unittest import mock

import torch

from ifttn.bench.store import dataset_of, example
from ifttn.data import batch
from ifttn.data.loading import Loader, in_order
from ifttn.experiment.presets import PRESETS

VIDEOS, LEAD_IN = 64, 4


def main() -> None:
    """Print the rate of training with data, and of the pauses alone."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--modalities", nargs="+", default=["flow"])
    p.add_argument("--gpu", type=float, default=719, help="videos/s that the GPU trains on from memory")
    p.add_argument("--fields", type=float, default=35_000, help="fields/s that nvJPEG decodes")
    p.add_argument("--kernels", type=int, default=3000, help="calls of torch in a step")
    p.add_argument("--workers", type=int, default=2)
    p.add_argument("--batches", type=int, default=30)
    o = p.parse_args()
    torch.set_num_threads(1)
    pixel = torch.zeros(1, 2, 1, dtype=torch.uint8)

    def decode(files: list[torch.Tensor]) -> list[torch.Tensor]:
        time.sleep(len(files) / o.fields)
        return [pixel.view(1, 2, 1) for _ in files]

    def decoded(read, modality, settings, decode) -> torch.Tensor:
        return torch.stack(decode(read.jpegs[modality].files)).view(-1, 2, 1, 1)

    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(batch, "_decoded", decoded),
        mock.patch.object(batch.Uncut, "cut", lambda self, *_: batch.Batch(self.planes, self.labels, self.names)),
    ):
        store = example(Path(folder), PRESETS["paper"].store)
        data = dataset_of(store, PRESETS["paper"], o.modalities, VIDEOS * (o.batches + LEAD_IN))
        with closing(Loader(data, "cpu", o.workers, decode=decode)) as loader:
            following = partial(next, loader(in_order(data, VIDEOS)))
            feed = batch.ahead(following, o.batches + LEAD_IN, batch.AHEAD)
            for _ in range(LEAD_IN):
                next(feed)
            seconds, waited = train(feed, VIDEOS / o.gpu, o.kernels)
    rate = VIDEOS * o.batches / seconds
    print(f"{rate:.0f} videos/s: {rate / o.gpu:.2f} of the GPU's {o.gpu:.0f}; waiting {waited / seconds:.1%}")


def train(feed: Iterator[batch.Batch], step: float, kernels: int) -> tuple[float, float]:
    """The seconds of a training in which the host is one step ahead, and its seconds without a batch."""
    x, waited = torch.zeros(4), 0.0
    began = before = free = time.perf_counter()
    while True:
        asked = time.perf_counter()
        try:
            next(feed)
        except StopIteration:
            return free - began, waited
        launched = time.perf_counter()
        waited += launched - asked
        for _ in range(kernels):
            x.add(1)
        before, free = free, max(free, launched) + max(step, time.perf_counter() - launched)
        time.sleep(max(0.0, before - time.perf_counter()))


if __name__ == "__main__":
    main()
