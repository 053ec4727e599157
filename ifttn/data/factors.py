"""The factors of the embedded data set: what each of its videos and actions is, as the table in its folder says."""

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from ifttn.vocabulary import IfttnError

FACTORS = ("scene", "speed", "binding", "order")


def factors(root: Path) -> pd.DataFrame:
    """The plan that `write` left in the data set's folder; IfttnError where there is none."""
    if not (root / "factors.parquet").exists():
        raise IfttnError(f"{root} has no factors.parquet: it is not the embedded data set")
    return pd.read_parquet(root / "factors.parquet")


def factors_of_actions(root: Path) -> dict[str, Int[np.ndarray, " A"]]:
    """Factor -> its value for each action of the data set; empty where the data set is not the embedded one."""
    if not (root / "factors.parquet").exists():
        return {}
    values = factors(root).groupby("action").first().sort_index()
    return {factor: values[factor].to_numpy() for factor in FACTORS}
