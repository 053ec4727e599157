"""A trained run that predicts the action of a video file or of a live stream.

Shapes: K segments, V votes of a head (K of snippets, K - 1 of pairs), L motion fields of a snippet, A actions.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Integer, UInt8
from torch import Tensor

from ifttn.data.augmentation import apply, fit_on_device, test_crops
from ifttn.data.entry import Entry
from ifttn.data.flow import FLOWS
from ifttn.data.frame_source import FrameSource
from ifttn.data.live import LiveReader, reader_of
from ifttn.data.planes import Snippets
from ifttn.data.sampling import centre_starts, snippet_indices
from ifttn.data.video_source import as_they_come, from_file
from ifttn.experiment.presets import Preset
from ifttn.experiment.processes import Machine
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import late_fusion, scaled_fusion
from ifttn.memory import Pieces
from ifttn.model.backbone import Pyramid
from ifttn.model.folding import compiled_network, folded
from ifttn.model.network import Network, Output
from ifttn.vocabulary import IfttnError


@dataclass(frozen=True)
class Prediction:
    """The prediction of a network for one video, or for the last K segments of a stream."""

    actions: tuple[str, ...]
    scores: Float[np.ndarray, " A"]
    """Late-fused scores, without a softmax."""
    heads: Mapping[str, Float[np.ndarray, " A"]]
    """The scores of each head."""
    votes: Mapping[str, Float[np.ndarray, "V A"]]
    """The votes of each head, of K snippets or K - 1 pairs, in temporal order."""
    seconds: Float[np.ndarray, " K"]
    """The times of the snippets' frames, from the first frame of the video on."""
    notes: tuple[str, ...] = ()
    """What is missing from the file (`ifttn.data.losses`). For a stream, `stream` returns the notes at its end."""

    def top(self, count: int = 5) -> list[tuple[str, float]]:
        """The most likely actions with their probabilities, from a softmax over `scaled_fusion`."""
        probabilities = torch.softmax(torch.from_numpy(scaled_fusion(self.heads)), 0)
        best = probabilities.topk(min(count, len(self.actions)))
        return [(self.actions[i], p) for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)]

    @property
    def times(self) -> dict[str, Float[np.ndarray, "V 2"]]:
        """Per head, the times of the two frames of each vote in seconds. For a snippet, both are the same frame."""
        snippets = np.stack([self.seconds, self.seconds], 1)
        pairs = np.stack([self.seconds[:-1], self.seconds[1:]], 1)
        return {head: snippets if len(votes) == len(snippets) else pairs for head, votes in self.votes.items()}

    @property
    def segments(self) -> list["Prediction"]:
        """One prediction per segment, from the votes of its snippet and of the pair that ends with this snippet."""
        count = len(self.seconds)

        def votes_of(k: int) -> dict[str, Float[np.ndarray, "1 A"]]:
            return {
                head: votes[max(0, k + len(votes) - count)][None]
                for head, votes in self.votes.items()
                if k or len(votes) == count  # the first snippet is not the end of a pair
            }

        return [predicted(self.actions, votes_of(k), self.seconds[k : k + 1]) for k in range(count)]

    def as_json(self) -> dict[str, Any]:
        """All values, for `json.dumps`. Scores are in the order of `actions`."""
        times = self.times
        return {
            "actions": list(self.actions),
            "notes": list(self.notes),
            "top": [{"action": action, "probability": p} for action, p in self.top()],
            "scores": self.scores.tolist(),
            "heads": {head: scores.tolist() for head, scores in self.heads.items()},
            "votes": {
                head: [
                    {"from": float(begin), "to": float(end), "scores": vote.tolist()}
                    for (begin, end), vote in zip(times[head], votes, strict=True)
                ]
                for head, votes in self.votes.items()
            },
            "segments": [
                {"seconds": float(part.seconds[0]), "action": part.top(1)[0][0], "probability": part.top(1)[0][1]}
                for part in self.segments
            ],
        }


def predicted(
    actions: tuple[str, ...],
    votes: Mapping[str, Float[np.ndarray, "V A"]],
    seconds: Float[np.ndarray, " K"],
    notes: tuple[str, ...] = (),
) -> Prediction:
    """Consensus and late fusion of the votes. Heads without votes (of pairs, for a single snippet) do not count."""
    heads = {head: vote.mean(0) for head, vote in votes.items() if len(vote)}
    return Prediction(actions, late_fusion(heads), heads, dict(votes), seconds, notes)


class Recognizer:
    """`Recognizer.load(run)(video)` predicts the action of a file of any size and codec.

    It computes with a copy of `network` with folded batch normalisation, in the precision of `machine`.
    """

    def __init__(
        self,
        network: Network,
        actions: tuple[str, ...],
        preset: Preset,
        crops: int | None = None,
        machine: Machine | None = None,
    ) -> None:
        self.network, self.actions, self.preset, self.machine = network, actions, preset, machine or Machine()
        store = preset.store
        self.crops = test_crops(store.height, store.width, preset.size, preset.crops if crops is None else crops)

    @classmethod
    def load(
        cls, run: str | Path | Run, device: str = "cpu", crops: int | None = None, machine: Machine | None = None
    ) -> "Recognizer":
        """Load the network of a run.

        Args:
            run: folder of a finished run.
            device: device of the network.
            crops: views of each frame, 1, 3 or 10; by default the number in the tests of the run's preset.
            machine: the precision ("auto" is fp32 on a CPU, 16 bits on a GPU), and whether to compile.

        Raises:
            IfttnError: the folder has no finished run, or the number of crops is not 1, 3 or 10.
        """
        run = run if isinstance(run, Run) else Run(Path(run))
        return cls(run.network(device), tuple(run.identity["actions"]), run.preset(), crops, machine)

    def __call__(self, video: str | Path) -> Prediction:
        """Predict the action of a video file. The memory does not grow with the length of the video.

        Raises:
            IfttnError: the file cannot be decoded as a video, or has fewer than two frames.
        """
        planes, film = from_file(video, self.preset.store, self._planes, str(self.device))
        votes = _means(self._computed(planes, lambda output: output.votes))
        seconds = film.seconds[self._sampled(film.frames)[0]]
        return predicted(self.actions, votes, seconds, film.reader.notes)

    def features(self, video: str | Path | Entry) -> dict[str, np.ndarray]:
        """The features, votes and scores of a video, as means over the views.

        Args:
            video: a file, a folder of images, or an entry of a store that was prepared for the preset of the run.

        Returns:
            "level:<tap>" (K, C) of snippets or (K - 1, C) of pairs: the features of a level, pooled over its cells; a
            tap is "<modality>.<level>", "fused.<level>" or "<temporal head>.<level>". "votes:<head>" (V, A) and
            "head:<head>" (A,): logits of snippets or pairs, and their mean. "scores" (A,): late-fused scores. "frames"
            and "seconds" (K,): number and time of the middle frame of each snippet. "actions" (A,): names of actions.
            "notes": what is missing from a file.

        Raises:
            IfttnError: see `__call__`.
        """
        if isinstance(video, Entry):
            planes, count, times = self._planes(video), video.frames, np.arange(video.frames) / video.fps
            notes = ()
        else:
            planes, film = from_file(video, self.preset.store, self._planes, str(self.device))
            count, times, notes = film.frames, film.seconds, film.reader.notes
        seen, frames = self._computed(planes, _votes_and_levels), self._sampled(count)[0]
        found = {name: x.float().mean(0).cpu().numpy() for name, x in seen.items()}
        votes = {name.partition(":")[2]: x for name, x in found.items() if name.startswith("votes:")}
        prediction = predicted(self.actions, votes, times[frames])
        heads = {f"head:{head}": x for head, x in prediction.heads.items()}
        about = {"frames": frames, "seconds": prediction.seconds, "actions": np.array(self.actions)}
        about["notes"] = np.array(notes, str)
        return {**found, **heads, "scores": prediction.scores, **about}

    def stream(
        self,
        source: str | Path | Iterable[UInt8[np.ndarray, "H W 3"]],
        every: float = 1.0,
        fps: float = 25.0,
        motion: str | None = None,
    ) -> Generator[Prediction, None, tuple[str, ...]]:
        """Predict while frames arrive: after the snippet of each segment, for the last K segments.

        A segment lasts `every` seconds of the video, and its snippet begins with the frame in the middle of the
        segment. Each snippet passes through the streams once, and each pair of neighbours through the TTN once. Only
        the pyramids of one snippet and K votes are kept, for a source of any length. A segment without a frame gives no
        prediction. For a file of K n + L frames, segments of n frames end with the prediction of `recognizer(file)`.

        Args:
            source: a video file, a folder of images, or RGB frames in 0..255 of any size.
            every: length of a segment in seconds.
            fps: frames per second of a source that is no file.
            motion: name of a flow of FLOWS ("dis", "tvl1"). None: the motion with which the network was trained, which
                is the flow of its store, or the motion vectors of the file (for live frames, of an encoder).

        Returns:
            At the end, what is missing from the file (`Prediction.notes`).

        Raises:
            IfttnError: the file cannot be decoded; its end is missing (after the predictions before it); it ends before
                the end of the first snippet; or `motion` is unknown.
        """
        if motion not in (None, *FLOWS):
            raise IfttnError(f"unknown motion {motion!r}: choose from {', '.join(FLOWS)}, or None for the network's")
        if every <= 0 or fps <= 0:
            raise IfttnError(f"segments of {every:g} s and {fps:g} frames per second: both must be more than 0")
        store = self.preset.store
        size = (store.width, store.height)
        reader = reader_of(source, size) if isinstance(source, str | Path) else LiveReader(source, fps, size)
        segments, past, votes = self.preset.segments, None, dict[str, deque[np.ndarray]]()
        seconds: deque[float] = deque(maxlen=segments)
        for second, planes in as_they_come(reader, store, every, self._modalities, str(self.device), motion):
            cast, past = self._step(planes, past)
            seconds.append(second)
            for head, (vote, most) in cast.items():
                votes.setdefault(head, deque(maxlen=most)).append(vote)
            last = {head: np.stack(kept) for head, kept in votes.items()}
            yield predicted(self.actions, last, np.array(seconds))
        return reader.notes

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.network.parameters()).device

    @cached_property
    def _folded(self) -> Any:
        network = folded(self.network, self.machine.dtype(str(self.device)))
        return compiled_network(network) if self.machine.compile else network

    @cached_property
    def _placed(self) -> Integer[Tensor, "N 5"]:
        return torch.tensor([crop.facts for crop in self.crops]).to(self.device)

    def _computed(
        self,
        planes: Mapping[str, UInt8[np.ndarray, "K C H W"]],
        of: Callable[[Output], dict[str, Float[Tensor, "N V _"]]],
    ) -> dict[str, Float[Tensor, "N V _"]]:
        """The result of `of` for the network's output of all N views, computed in pieces that fit into memory."""
        pieces = Pieces(len(self.crops), "view")
        with torch.inference_mode(), self.machine.autocast(str(self.device)):
            views = self._views(planes)

            def compute(part: slice) -> dict[str, Float[Tensor, "N V _"]]:
                found = of(self._folded({m: x[part] for m, x in views.items()}))
                return {name: x.clone() for name, x in found.items()}  # a compiled network reuses their memory

            parts = [*pieces(compute, len(self.crops))]
            return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _views(self, planes: Mapping[str, UInt8[np.ndarray, "K C H W"]]) -> dict[str, UInt8[Tensor, "N K C S S"]]:
        """All N crops of every modality, on the device. A GPU gets the full planes in one copy and crops them."""
        size, device = self.preset.size, self.device
        if device.type == "cpu":
            return {
                m: torch.from_numpy(np.stack([apply(crop, x, size, m) for crop in self.crops]))
                for m, x in planes.items()
            }
        whole = torch.from_numpy(np.concatenate([*planes.values()], axis=1)).to(device)
        parts = whole.expand(len(self.crops), *whole.shape).split([x.shape[1] for x in planes.values()], dim=2)
        return {m: fit_on_device(x, self._placed, size, m) for m, x in zip(planes, parts, strict=True)}

    def _step(
        self, planes: Mapping[str, UInt8[np.ndarray, "1 C H W"]], past: Mapping[str, Pyramid] | None
    ) -> tuple[dict[str, tuple[Float[np.ndarray, " A"], int]], Mapping[str, Pyramid]]:
        """A new snippet, and the pyramids of the last snippet in all crops -> the new vote of each head, with the
        number of its votes in a video; and the pyramids of the new snippet. The first snippet forms no pair."""
        with torch.inference_mode(), self.machine.autocast(str(self.device)):
            own = self._folded.pyramids(self._views(planes))
            before = past or own
            both = {
                m: {level: _interleaved(before[m][level], x) for level, x in levels.items()}
                for m, levels in own.items()
            }
            votes = self._folded.read(both, segments=2).votes
        new = {head: vote for head, vote in votes.items() if past is not None or vote.shape[1] == 2}
        earlier = self.preset.segments - 2
        return {head: (mean[-1], earlier + len(mean)) for head, mean in _means(new).items()}, own

    @property
    def _modalities(self) -> tuple[str, ...]:
        return self.network.settings.modalities

    def _sampled(self, num_frames: int) -> tuple[Integer[np.ndarray, " K"], Integer[np.ndarray, "K L"]]:
        return snippet_indices(centre_starts(num_frames, self.preset.segments), num_frames)

    def _planes(self, source: FrameSource) -> dict[str, UInt8[np.ndarray, "K C H W"]]:
        snippets = Snippets(source, *self._sampled(source.frames))
        return {modality: snippets.planes(modality) for modality in self._modalities}


def _interleaved(first: Float[Tensor, "N C H W"], second: Float[Tensor, "N C H W"]) -> Float[Tensor, "S C H W"]:
    """The features of N snippets, alternately from `first` and `second`, with channels last in memory."""
    return torch.stack([first.movedim(1, -1), second.movedim(1, -1)], 1).flatten(0, 1).movedim(-1, 1)


def _votes_and_levels(output: Output) -> dict[str, Float[Tensor, "N V _"]]:
    """The votes of an output, and its features, averaged over the cells of a level."""
    videos = len(next(iter(output.votes.values())))
    pooled = {f"level:{tap}": x.mean((2, 3)).unflatten(0, (videos, -1)) for tap, x in output.taps.items()}
    return {**{f"votes:{head}": votes for head, votes in output.votes.items()}, **pooled}


def _means(votes: Mapping[str, Float[Tensor, "N V A"]]) -> dict[str, Float[np.ndarray, "V A"]]:
    """Per head, the mean over N views. All heads are copied from the device together."""
    means = [vote.float().mean(0) for vote in votes.values()]
    there = torch.cat(means).cpu().split([len(mean) for mean in means])
    return {head: mean.numpy() for head, mean in zip(votes, there, strict=True)}
