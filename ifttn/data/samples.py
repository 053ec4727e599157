"""Samples of a store: which frames, fields and crop a network sees of a video, and their bytes.

Shapes: N videos, K segments, C channels of a modality's snippet, L = STACK motion fields, H x W pixels.
"""

import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Integer, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from ifttn.data import augmentation, sampling
from ifttn.data.augmentation import Crop
from ifttn.data.batch import HostBatch, Jpegs, Portion
from ifttn.data.entry import Entry
from ifttn.data.frame_source import WHOLE
from ifttn.data.planes import Snippets
from ifttn.data.store import Store
from ifttn.vocabulary import MODALITIES, IfttnError, Video

Keys = Sequence[tuple[int, int]]
"""(view, index of the video) of each sample of a batch."""
Empty = Callable[[tuple[int, ...]], UInt8[np.ndarray, "..."]]
"""Makes an array of a shape, with arbitrary content."""


@dataclass
class SnippetDataset(Dataset):
    """Samples of prepared videos, by (view, index of the video).

    With `scales`, for training: a view is an epoch. Segments and crop are drawn from (seed, view, index), so that a
    sample does not depend on workers or on earlier samples. Without `scales`, for tests: snippets come from the centres
    of the segments, and a view is one of the `crops` fixed crops.
    """

    store: Store
    videos: Sequence[Video]
    modalities: Sequence[str]
    segments: int
    size: int
    """Side in pixels of the crop that the network takes."""
    scales: Sequence[float] | None = None
    """Sides of random crops relative to the shorter side of the stored frame, in falling order."""
    crops: int = 1
    seed: int = 0
    fitted: bool = True
    """Whether crops are resized and mirrored here. If not, `Uncut.cut` does it for the complete batch."""
    encoded: bool = False
    """Whether motion fields stay JPEG files, which a GPU decodes. Then `fitted` is false."""
    checked: tuple[Store, Sequence[Video]] | None = None
    """The store and videos of the last check, so that `replace` does not repeat it."""

    def __post_init__(self) -> None:
        """Raise IfttnError for an unknown modality or videos that are not in the store."""
        if unknown := set(self.modalities) - set(MODALITIES):
            raise IfttnError(f"unknown modality {', '.join(sorted(unknown))}; choose from {', '.join(MODALITIES)}")
        if self.checked is None or self.checked[0] is not self.store or self.checked[1] is not self.videos:
            stored = set(self.store.index().video)
            if absent := [video.name for video in self.videos if video.name not in stored]:
                raise IfttnError(
                    f"{len(absent)} of {len(self.videos)} videos are not in {self.store.folder}, the first is "
                    f"{absent[0]}; run `ifttn prepare`"
                )
            self.checked = self.store, self.videos
        settings = self.store.settings
        self.views = augmentation.test_crops(settings.height, settings.width, self.size, self.crops)
        self._memory = _Memory(2 * len(self.modalities))  # a batch in use, and the next

    @property
    def whole(self) -> bool:
        """Whether planes are full frames, because several views are cut from them."""
        return not self.fitted and self.scales is None and self.crops > 1

    def encodes(self, modality: str) -> bool:
        """Whether the planes of a modality stay JPEG files."""
        return self.encoded and (MODALITIES[modality].run_of or modality) in ("flow", "mv")

    @property
    def bytes_of_jpegs(self) -> int:
        """The bytes of a video's motion fields as pictures, for those that stay JPEG files."""
        channels = sum(MODALITIES[m].channels for m in self.modalities if self.encodes(m))
        return self.segments * channels * self.store.settings.height * self.store.settings.width

    def __len__(self) -> int:
        return len(self.videos)

    def __getitem__(self, key: tuple[int, int]) -> tuple[dict[str, UInt8[np.ndarray, "K C H W"]], int, str]:
        """Bytes of each modality, label, and name of the video."""
        batch = replace(self, fitted=True, encoded=False).read([key])
        return {modality: x[0].numpy() for modality, x in batch.planes.items()}, batch.labels[0], batch.names[0]

    def read(self, keys: Keys) -> HostBatch:
        """A complete batch. Its memory is used again when nobody holds it any more."""
        planes = self.empty(len(keys), self._memory.array)
        return self.joined(keys, planes, [self.fill(keys, planes)])

    def empty(self, count: int, empty: Empty) -> dict[str, UInt8[np.ndarray, "N K C H W"]]:
        """Arrays for the decoded planes of a batch of `count` videos, in the order of the modalities."""
        settings = self.store.settings
        side = self.size if self.fitted else min(settings.height, settings.width)
        area = (settings.height, settings.width) if self.whole else (side, side)
        decoded = [m for m in self.modalities if not self.encodes(m)]
        shapes = {m: (count, self.segments, MODALITIES[m].channels, *area) for m in decoded}
        return {m: empty(shape) if self.fitted else _unfitted(shape, m, empty) for m, shape in shapes.items()}

    def fill(self, keys: Keys, planes: Mapping[str, UInt8[np.ndarray, "n K C H W"]]) -> Portion:
        """Decode some videos of a batch directly into their rows of its planes."""
        jpegs = {m: Jpegs([], []) for m in self.modalities if self.encodes(m)}
        crops = [self._fill(key, {m: x[row] for m, x in planes.items()}, jpegs) for row, key in enumerate(keys)]
        return Portion([crop.facts for crop in crops], jpegs)

    def joined(
        self, keys: Keys, planes: Mapping[str, UInt8[np.ndarray, "N K C H W"]], portions: Sequence[Portion]
    ) -> HostBatch:
        """The batch of these keys, from its planes and its portions in their order."""
        videos = [self.videos[index] for _, index in keys]
        return HostBatch(
            {modality: torch.from_numpy(x) for modality, x in planes.items()},
            {modality: Jpegs.joined([each.jpegs[modality] for each in portions]) for modality in portions[0].jpegs},
            np.array([facts for portion in portions for facts in portion.crops]),
            [video.label for video in videos],
            [video.name for video in videos],
        )

    def draw(
        self, key: tuple[int, int], num_frames: int
    ) -> tuple[Integer[np.ndarray, " K"], Integer[np.ndarray, "K L"], Crop]:
        """Frames, fields and crop of a sample of a video with `num_frames` frames."""
        view, index = key
        if self.scales is None:
            starts, crop = sampling.centre_starts(num_frames, self.segments), self.views[view]
        else:
            rng, settings = np.random.default_rng((self.seed, view, index)), self.store.settings
            starts = sampling.random_starts(num_frames, self.segments, rng)
            crop = augmentation.random_crop(settings.height, settings.width, self.size, self.scales, rng)
        return *sampling.snippet_indices(starts, num_frames), crop

    def _fill(
        self, key: tuple[int, int], planes: Mapping[str, UInt8[np.ndarray, "K C H W"]], jpegs: Mapping[str, Jpegs]
    ) -> Crop:
        """Decode the planes of a sample into arrays, and add its JPEG files to `jpegs`."""
        with self.store.open(self.videos[key[1]].name) as entry:
            frames, fields, crop = self.draw(key, entry.frames)
            snippets = Snippets(entry, frames, fields)
            for modality, own in jpegs.items():
                _add(own, entry, *snippets.stack(modality, MODALITIES[modality].channels))
            for modality, x in planes.items():
                if self.fitted:
                    cut = _unfitted((*x.shape[:2], crop.height, crop.width), modality, _new)
                    snippets.planes(modality, crop.region, cut)
                    augmentation.fit(cut, crop, self.size, modality, x)
                elif self.whole:
                    snippets.planes(modality, WHOLE, x)
                else:
                    snippets.planes(modality, crop.region, x[..., : crop.height, : crop.width])
        return crop


def _add(jpegs: Jpegs, entry: Entry, stored: str, wanted: Integer[np.ndarray, " M"]) -> None:
    """Add the files of one video."""
    numbers, places = np.unique(wanted, return_inverse=True)
    jpegs.places.append(places + len(jpegs.files))
    jpegs.files += map(torch.from_numpy, entry.jpegs(stored, numbers))


def _new(shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
    return np.empty(shape, np.uint8)


def _unfitted(shape: tuple[int, ...], modality: str, empty: Empty) -> UInt8[np.ndarray, "... C H W"]:
    """Empty planes for crops before resizing. RGB planes have their channels last in memory, as a JPEG has."""
    if modality != "rgb":
        return empty(shape)
    return np.moveaxis(empty((*shape[:-3], *shape[-2:], shape[-3])), -1, -3)


class _Memory:
    """Arrays that are used again when no batch holds them any more.

    New memory from the system would cost a batch up to a tenth of the time of its decoding.
    """

    def __init__(self, most: int) -> None:
        self.arrays = deque[np.ndarray](maxlen=most)

    def array(self, shape: tuple[int, ...]) -> UInt8[np.ndarray, "..."]:
        """An array of this shape, with arbitrary content."""
        for i in range(len(self.arrays)):
            # Only the deque and this call refer to a free array: tensors and views refer to the array of their memory.
            if self.arrays[i].shape == shape and sys.getrefcount(self.arrays[i]) == 2:
                return self.arrays[i]
        self.arrays.append(_new(shape))
        return self.arrays[-1]


def whole_snippets(
    store: Store, video: Video, modalities: Sequence[str], segments: int
) -> dict[str, UInt8[Tensor, "K C H W"]]:
    """The test snippets of a video, from the centres of its K segments, uncropped at the size of the store.

    Raises:
        IfttnError: the video is not in the store, or its entry is damaged.
    """
    with store.open(video.name) as entry:
        starts = sampling.centre_starts(entry.frames, segments)
        snippets = Snippets(entry, *sampling.snippet_indices(starts, entry.frames))
        return {modality: torch.from_numpy(snippets.planes(modality)) for modality in modalities}
