"""The metrics that a run wrote while it trained, and its stages that ended short. This module needs no torch."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

METRICS = ("stage", "epoch", "of", "loss", "accuracy", "lr", "seconds", "videos_per_second")
"""The columns that every epoch has."""


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The metrics of the run in a folder, a row for each epoch; of an epoch that was trained twice, the later row."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    with suppress(FileNotFoundError):
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            with suppress(json.JSONDecodeError):
                row = json.loads(line)
                rows.pop(place := (row["stage"], row["epoch"]), None)
                rows[place] = row
    return list(rows.values())


def shortfalls(folder: Path) -> tuple[str, ...]:
    """A line for each finished stage whose last accuracy on training videos is below the value that its preset expects.

    The value applies to networks that fuse their streams, because other networks cannot see every factor. A folder with
    scores but without recipe.json has no such line.
    """
    try:
        run = json.loads((folder / "recipe.json").read_text())
    except FileNotFoundError:
        return ()
    if run["recipe_row"]["fusion"] in (None, "separate"):
        return ()
    last = {row["stage"]: row["accuracy"] for row in read_metrics(folder) if row["epoch"] == row["of"] - 1}
    return tuple(
        f"{run['recipe']} on {run['dataset']}, split {run['split']}, seed {run['seed']}: stage {stage} ended with "
        f"{last[stage]:.2f} of its training videos right, where {share:.2f} or more are usual: another seed or a "
        "longer stage may do better"
        for stage, share in run["preset_row"]["arrives"].items()
        if stage in last and last[stage] < share
    )
