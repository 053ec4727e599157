"""The metrics that a run wrote while it trained, and its stages that ended short. This module needs no torch."""

import json
from contextlib import suppress
from pathlib import Path

import pandas as pd


def read_metrics(folder: Path) -> pd.DataFrame:
    """The metrics of the run in a folder: `Run.metrics`."""
    rows = []
    with suppress(FileNotFoundError):
        for line in (folder / "metrics.jsonl").read_text().splitlines():
            with suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    if not rows:
        columns = ["stage", "epoch", "of", "loss", "accuracy", "lr", "seconds", "videos_per_second"]
        return pd.DataFrame(columns=columns)
    return pd.DataFrame(rows).drop_duplicates(["stage", "epoch"], keep="last", ignore_index=True)


def shortfalls(folder: Path) -> tuple[str, ...]:
    """A line for each finished stage that had fewer training videos right at its end than its preset expects.

    The preset expects it of networks that fuse their streams: the others cannot see every factor. A folder without
    recipe.json, which holds scores alone, has none.
    """
    try:
        run = json.loads((folder / "recipe.json").read_text())
    except FileNotFoundError:
        return ()
    if run["recipe_row"]["fusion"] in (None, "separate"):
        return ()
    metrics = read_metrics(folder)
    last = metrics[metrics.epoch == metrics["of"] - 1].set_index("stage").accuracy
    return tuple(
        f"{run['recipe']} on {run['dataset']}, split {run['split']}, seed {run['seed']}: stage {stage} ended with "
        f"{last[stage]:.2f} of its training videos right, where {share:.2f} or more are usual: another seed or a "
        "longer stage may do better"
        for stage, share in run["preset_row"]["arrives"].items()
        if stage in last.index and last[stage] < share
    )
