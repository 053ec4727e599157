"""The timings of `ifttn bench speed`: the rates of the rows, and the paper's claims about speed."""

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
"""MV-IF-TTN should reach this share of the speed that its bound allows."""
MV_IF_TTN = "mv-if-ttn"


class MeasuredSpeeds:
    """The timings of one run, with its conditions, for a video of `num_frames` frames at `fps` frames per second."""

    def __init__(self, conditions: Conditions, num_frames: int, fps: float) -> None:
        self.conditions, self.num_frames, self.fps = conditions, num_frames, fps
        self.timings: list[Timing] = []

    def frame(self) -> pd.DataFrame:
        """One row per timing: row, definition, round, seconds, count, and the conditions."""
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
        """The timings of a row by one definition."""
        return [t for t in self.timings if (t.workload.row, t.workload.definition) == (row, definition)]

    def seconds(self, row: str, definition: str = "") -> Float64[np.ndarray, " n"]:
        """The seconds of each repetition."""
        return np.array([t.seconds for t in self.timings_of(row, definition)], np.float64)

    def rate(self, row: str, definition: str = "") -> Spread | None:
        """The rate per second. None if it was not measured."""
        found = self.timings_of(row, definition)
        return Spread.of([t.workload.count / t.seconds for t in found]) if found else None

    def ratio(self, slow: str) -> Spread | None:
        """The end-to-end speed of MV-IF-TTN divided by the speed of another row in the same round.

        If one row has fewer rounds, its last timing is used for the missing rounds.
        """
        first, second = self.seconds(MV_IF_TTN, END_TO_END), self.seconds(slow, END_TO_END)
        if not (len(first) and len(second)):
            return None
        rounds = np.arange(max(len(first), len(second)))
        ratios = second[rounds.clip(max=len(second) - 1)] / first[rounds.clip(max=len(first) - 1)]
        return Spread.of(ratios)._replace(repetitions=min(len(first), len(second)))

    def flow_seconds(self, row: str) -> float | None:
        """Seconds for the flow of a video; 0 for a row without flow. None if it was not measured."""
        if "flow" not in ROWS[row].at(self.conditions.size).segment:
            return 0.0
        network, reading, whole = self.rate(row, VIDEOS), self.rate(VECTORS), self.seconds(row, END_TO_END)
        if not (network and reading and len(whole)):
            return None
        return max(0.0, float(np.median(whole)) - 1 / network.median - 1 / reading.median)

    def paper_fps(self, row: str) -> float | None:
        """Frames per second in our reading of Table 5: the frames that the network sees (one per snippet, or all of a
        peer's run), in batches, with their flow and without decoding. None if a part was not measured."""
        rate, flow = self.rate(row, SNIPPETS), self.flow_seconds(row)
        if rate is None or flow is None:
            return None
        taken = segments_taken(ROWS[row].at(self.conditions.size), self.num_frames, self.conditions.segments)
        return ROWS[row].frames / (1 / rate.median + flow / taken)

    def gmacs(self, row: str) -> float:
        """Billions of multiply-adds of one video."""
        return self.timings_of(row, SNIPPETS)[0].workload.weight / self.conditions.batch

    def claims(self) -> Sequence[str]:
        """A sentence for each claim of the paper about speed that this run has measured."""
        return [*self._tenfold(), *self._real_time(), *self._bounded()]

    def _tenfold(self) -> Iterator[str]:
        for slow, paper in (("if-ttn", ""), ("tsn-rgb-flow", " (the paper prints 142 and 14: 10.1)")):
            ratio = self.ratio(slow)
            if ratio is None:
                continue
            yield (
                f"MV-IF-TTN end to end against {ROWS[slow].row}: {ratio:.1f} times as fast{paper}; "
                f"at least 10 {'holds' if ratio.median >= 10 else 'does not hold'}."
            )
            yield from self._why(slow)

    def _why(self, slow: str) -> Iterator[str]:
        """Sentences on what limits the ratio, and on the ratio if a video needs the flow of all its fields."""
        flow, own_network, reading = self.flow_seconds(slow), self.rate(MV_IF_TTN, VIDEOS), self.rate(VECTORS)
        if not (flow is not None and own_network and reading):
            return
        own, other = (float(np.median(self.seconds(name, END_TO_END))) for name in (MV_IF_TTN, slow))
        variant = ROWS[slow].at(self.conditions.size)
        fields = STACK * segments_taken(variant, self.num_frames, self.conditions.segments)
        all_fields = self.num_frames - 1
        yield (
            f"  The flow of the {fields} fields of the snippets takes {1000 * flow:.0f} ms, decoding with vectors "
            f"{1000 / reading.median:.0f} ms, MV-IF-TTN's network {1000 / own_network.median:.0f} ms: "
            f"{min(1.0, 1 / own_network.median / own):.0%} of its time, which limits the ratio."
        )
        yield (
            f"  Ratio without networks: {1 + flow * reading.median:.0f} times. With flow of all {all_fields} fields, "
            f"as for a live stream or a store (estimated): {(other + flow * (all_fields / fields - 1)) / own:.1f} "
            "times."
        )

    def _real_time(self) -> Iterator[str]:
        rate = self.rate(MV_IF_TTN, END_TO_END)
        if rate:
            frames = rate.median * self.num_frames
            yield (
                f"MV-IF-TTN {'passes' if frames > self.fps else 'misses'} real time: {frames / self.fps:.1f} times as "
                f"fast as the video plays ({frames:.0f} of its frames per second, played at {self.fps:g})."
            )

    def _bounded(self) -> Iterator[str]:
        """Two lower bounds of the seconds per video: decoding alone, and multiply-adds at the rate of a product."""
        decode, own, product = self.rate(DECODE), self.rate(MV_IF_TTN, END_TO_END), self.rate(PRODUCT)
        if decode and own and product and self.rate(MV_IF_TTN, VIDEOS):
            decoding, network = 1 / decode.median, self.gmacs(MV_IF_TTN) / product.median
            reached = max(decoding, network) * own.median
            yield (
                f"MV-IF-TTN's bounds, in ms per video: decoding alone {1000 * decoding:.1f}; "
                f"{self.gmacs(MV_IF_TTN):.1f} G multiply-adds at {product.median:.0f} G per second "
                f"{1000 * network:.1f}. It takes {1000 / own.median:.1f}; the larger bound is {reached:.2f} of this "
                f"({'aim met' if reached >= AIM else 'aim missed'}: {AIM})."
            )
