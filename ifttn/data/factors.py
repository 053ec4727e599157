"""The factors of each video and action of the embedded data set, from the table in its folder."""

from pathlib import Path

import numpy as np
from jaxtyping import Int

TABLE = "factors.parquet"
"""The table in the folder of an embedded data set: `diagnostic.plan_videos`."""
FACTORS = ("scene", "speed", "binding", "order")


def factors_of_actions(root: Path) -> dict[str, Int[np.ndarray, " A"]]:
    """Factor -> its value for each action. Empty if the data set is not an embedded data set."""
    if not (root / TABLE).exists():
        return {}
    from pyarrow.parquet import ParquetFile  # only here: most data sets have no such table

    columns = ParquetFile(root / TABLE).read(["action", *FACTORS]).to_pydict()
    of_action = dict(zip(columns["action"], zip(*(columns[name] for name in FACTORS), strict=True), strict=True))
    values = np.array([of_action[action] for action in sorted(of_action)])
    return dict(zip(FACTORS, values.T, strict=True))
