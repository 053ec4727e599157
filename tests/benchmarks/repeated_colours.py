"""Does a network notice how a JPEG decoder enlarges colours? OpenCV interpolates them; nvJPEG probably repeats them.

    pip install simplejpeg
    python tests/benchmarks/repeated_colours.py --seeds 6

simplejpeg, without libjpeg-turbo's interpolation, stands for nvJPEG. A spatial network of the preset `tiny` learns to
tell 25 recordings apart, from pictures of one decoder, and is tested on pictures of both.
"""

import argparse
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import simplejpeg  # pyright: ignore[reportMissingImports]
import torch

from ifttn.bench.store import drawn
from ifttn.data import entry
from ifttn.data.catalogue import read_split
from ifttn.experiment import testing, training
from ifttn.experiment.processes import Machine
from ifttn.experiment.scores import top1
from ifttn.experiment.work import Work
from ifttn.vocabulary import Split

TRAINED, EPOCHS = 640, 12
interpolated = entry._decoded


def repeated(jpeg: np.ndarray, flag: int, shape: tuple[int, ...]) -> np.ndarray:
    """The pictures of a decoder that repeats colours."""
    if flag != cv2.IMREAD_COLOR_RGB:
        return interpolated(jpeg, flag, shape)
    return simplejpeg.decode_jpeg(jpeg, "RGB", fastdct=False, fastupsample=True)


def of_recordings(split: Split) -> Split:
    """The videos of a split at random on two sides, with their recordings as classes."""
    videos = np.random.default_rng(0).permutation(np.array([*split.train, *split.test], object))
    names = [found[0] for video in videos if (found := re.search(r"_g\d+_", video.name))]
    classes = sorted(set(names))
    videos = [replace(v, label=classes.index(n), action=n, group=n) for v, n in zip(videos, names, strict=True)]
    return replace(split, train=tuple(videos[:TRAINED]), test=tuple(videos[TRAINED:]), actions=tuple(classes))


def main() -> None:
    """Print the accuracies of each network."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seeds", type=int, default=6)
    torch.set_num_threads(1)
    ways = {"interpolated": interpolated, "repeated": repeated}
    with tempfile.TemporaryDirectory() as folder:
        data, store = drawn(Path(folder), "tiny", 960, flow="dis")
        split = of_recordings(read_split(data, 1))
        for seed in range(p.parse_args().seeds):
            for trained, decoder in ways.items():
                runs, machine = Path(folder) / trained / str(seed), Machine(workers=0)
                work = Work(
                    split, store, runs, "tiny", seed, progress=False, epochs={"spatial": EPOCHS}, machine=machine
                )
                with mock.patch.object(entry, "_decoded", decoder):
                    training.train(work, "spatial")
                for tested, other in ways.items():
                    with mock.patch.object(entry, "_decoded", other):
                        scores = testing._score(work, work.trained("spatial"), split.test)
                    accuracy = top1(scores.heads["rgb"], scores.labels)
                    print(f"seed {seed}, trained on {trained}, tested on {tested} colours: {accuracy:.3f}", flush=True)


if __name__ == "__main__":
    main()
