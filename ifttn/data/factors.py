"""The factors of each video and action of the embedded data set, from the table in its folder."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from ifttn.vocabulary import IfttnError

FACTORS = ("scene", "speed", "binding", "order")


def factors(root: Path) -> pd.DataFrame:
    """The plan that `diagnostic.write` put into the folder. Raises IfttnError if the folder has no plan."""
    if not (root / "factors.parquet").exists():
        raise IfttnError(f"{root} has no factors.parquet: it is not the embedded data set")
    return pd.read_parquet(root / "factors.parquet")


def factors_of_actions(root: Path) -> dict[str, Int[np.ndarray, " A"]]:
    """Factor -> its value for each action. Empty if the data set is not an embedded data set."""
    if not (root / "factors.parquet").exists():
        return {}
    values = factors(root).groupby("action").first().sort_index()
    return {factor: values[factor].to_numpy() for factor in FACTORS}
