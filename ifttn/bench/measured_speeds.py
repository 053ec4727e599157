"""The timings of `ifttn bench speed`: rates of the rows, and what the run says of the paper's claims about speed."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float64

from ifttn.bench.clock import Spread, Timing, device_name
from ifttn.bench.systems import (
    DECODE,
    END_TO_END,
    PRODUCT,
    ROWS,
    SNIPPETS,
    VECTORS,
    VIDEOS,
    Conditions,
    segments_taken,
)
from ifttn.vocabulary import STACK

AIM = 0.8
"""MV-IF-TTN is to reach this part of the speed that its bound allows."""


class MeasuredSpeeds:
    """The timings of one run, under its conditions, of a video of so many frames at so many a second."""

    def __init__(self, conditions: Conditions, num_frames: int, fps: float) -> None:
        self.conditions, self.num_frames, self.fps = conditions, num_frames, fps
        self.timings: list[Timing] = []

    def frame(self) -> pd.DataFrame:
        """A row a timing: row, definition, round, seconds, count, and the conditions."""
        on = self.conditions
        rows = [(t.workload.row, t.workload.definition, t.round, t.seconds, t.workload.count) for t in self.timings]
        return pd.DataFrame(rows, columns=["row", "definition", "round", "seconds", "count"]).assign(
            size=on.size,
            segments=on.segments,
            batch=on.batch,
            device=device_name(on.device),
            precision=on.dtype,
            compiled=on.machine.compile,
            frames=self.num_frames,
        )

    def timings_of(self, row: str, definition: str = "") -> list[Timing]:
        """The repetitions of one figure."""
        return [t for t in self.timings if (t.workload.row, t.workload.definition) == (row, definition)]

    def seconds(self, row: str, definition: str = "") -> Float64[np.ndarray, " n"]:
        """The seconds of each repetition."""
        return np.array([t.seconds for t in self.timings_of(row, definition)], np.float64)

    def rate(self, row: str, definition: str = "") -> Spread | None:
        """The rate a second; None where nothing was measured."""
        found = self.timings_of(row, definition)
        return Spread.of([t.workload.count / t.seconds for t in found]) if found else None

    def ratio(self, quick: str, slow: str) -> Spread | None:
        """The end-to-end speed of one row divided by that of another in the same round.

        Where the two were measured unequally often, the last figure of each stands for the rounds that it lacks.
        """
        first, second = self.seconds(quick, END_TO_END), self.seconds(slow, END_TO_END)
        if not (len(first) and len(second)):
            return None
        rounds = np.arange(max(len(first), len(second)))
        ratios = second[rounds.clip(max=len(second) - 1)] / first[rounds.clip(max=len(first) - 1)]
        return Spread.of(ratios)._replace(repetitions=min(len(first), len(second)))

    def flow_seconds(self, row: str) -> float | None:
        """Seconds of the flow that a row takes of a video, 0 where it takes none; None where it was not measured."""
        if "flow" not in ROWS[row].at(self.conditions.size).segment:
            return 0.0
        network, reading, whole = self.rate(row, VIDEOS), self.rate(VECTORS), self.seconds(row, END_TO_END)
        if not (network and reading and len(whole)):
            return None
        return max(0.0, float(np.median(whole)) - 1 / network.median - 1 / reading.median)

    def paper_fps(self, row: str) -> float | None:
        """Frames a second as we read Table 5: those that the network sees, one a snippet or a peer's whole run, in
        batches and without decoding, but with their flow. None where a part of it was not measured."""
        rate, flow = self.rate(row, SNIPPETS), self.flow_seconds(row)
        if rate is None or flow is None:
            return None
        taken = segments_taken(ROWS[row].at(self.conditions.size), self.num_frames, self.conditions.segments)
        return ROWS[row].frames / (1 / rate.median + flow / taken)

    def gmacs(self, row: str) -> float:
        """Billions of multiply-adds of one video."""
        return self.timings_of(row, SNIPPETS)[0].workload.weight / self.conditions.batch

    def bounds(self, row: str = "mv-if-ttn") -> tuple[float, float] | None:
        """Seconds a video that no implementation of a row goes below: decoding alone, and the multiply-adds at the rate
        of a large product. None where one was not measured."""
        product, decoding = self.rate(PRODUCT), self.rate(DECODE)
        if not (product and decoding and self.rate(row, VIDEOS)):
            return None
        return 1 / decoding.median, self.gmacs(row) / product.median

    def claims(self) -> Sequence[str]:
        """A sentence for each thing that the paper says of speed, and that this run has measured."""
        return [*self._tenfold(), *self._real_time(), *self._bounded()]

    def _tenfold(self) -> Iterator[str]:
        for slow, paper in (("if-ttn", ""), ("tsn-rgb-flow", " (the paper prints 142 and 14: 10.1)")):
            ratio = self.ratio("mv-if-ttn", slow)
            if ratio is None:
                continue
            yield (
                f"MV-IF-TTN end to end against {ROWS[slow].row}: {ratio:.1f} times as fast{paper}; "
                f"at least 10 {'holds' if ratio.median >= 10 else 'does not hold'}."
            )
            yield from self._why(slow)

    def _why(self, slow: str) -> Iterator[str]:
        """Says what limits the ratio, and gives the ratio where the flow of all fields of a video is needed."""
        flow, own_network, reading = self.flow_seconds(slow), self.rate("mv-if-ttn", VIDEOS), self.rate(VECTORS)
        if not (flow is not None and own_network and reading):
            return
        own, other = (float(np.median(self.seconds(name, END_TO_END))) for name in ("mv-if-ttn", slow))
        variant = ROWS[slow].at(self.conditions.size)
        fields = STACK * segments_taken(variant, self.num_frames, self.conditions.segments)
        all_fields = self.num_frames - 1
        yield (
            f"  Flow of the {fields} fields that the snippets hold takes {1000 * flow:.0f} ms, decoding with vectors "
            f"{1000 / reading.median:.0f} ms, MV-IF-TTN's network {1000 / own_network.median:.0f} ms: "
            f"{min(1.0, 1 / own_network.median / own):.0%} of its time, which bounds the ratio."
        )
        yield (
            f"  Before the network alone: {1 + flow * reading.median:.0f} times. With flow of all {all_fields} fields, "
            f"as a live stream or a store needs (estimated): {(other + flow * (all_fields / fields - 1)) / own:.1f} "
            "times."
        )

    def _real_time(self) -> Iterator[str]:
        rate = self.rate("mv-if-ttn", END_TO_END)
        if rate:
            frames = rate.median * self.num_frames
            yield (
                f"MV-IF-TTN {'passes' if frames > self.fps else 'misses'} real time: {frames / self.fps:.1f} times as "
                f"fast as the video plays ({frames:.0f} of its frames a second, played at {self.fps:g})."
            )

    def _bounded(self) -> Iterator[str]:
        bounds, own, product = self.bounds(), self.rate("mv-if-ttn", END_TO_END), self.rate(PRODUCT)
        if bounds and own and product:
            decoding, network = bounds
            reached = max(bounds) * own.median
            yield (
                f"MV-IF-TTN's bounds, in ms a video: decoding alone {1000 * decoding:.1f}; "
                f"{self.gmacs('mv-if-ttn'):.1f} G multiply-adds at {product.median:.0f} G a second "
                f"{1000 * network:.1f}. It takes {1000 / own.median:.1f}, {reached:.2f} of the larger "
                f"({'aim met' if reached >= AIM else 'aim missed'}: {AIM})."
            )
