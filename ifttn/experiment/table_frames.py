"""A table as a DataFrame, for a spreadsheet or a notebook."""

import pandas as pd

from ifttn.experiment.table_texts import columns_of, factors_of, heading
from ifttn.experiment.tables import Table


def to_frame(table: Table) -> pd.DataFrame:
    """One row for each cell. What was not measured is missing, never filled from the paper.

    Columns: method, column, paper (in the column's unit), paper on (its data set), measured, low, high (in % with its
    95 % interval, or a speed with its quartiles), top-5, mean class, 1:1:1 (all weights are 1), sd splits, sd seeds
    (all in %), p (McNemar's exact test against the last measured row of the column), READINGS (top-1 in %), p reversed,
    p shuffled (McNemar's exact test against the snippets in order: 1 where no video changes), a column for each factor
    (fractions 0..1), videos (in all splits), splits, seeds, short (stages that ended below the usual accuracy),
    measured on, why (the cell is empty). `frame.attrs` holds number, title, caption, notes and the factors' names.
    """
    frame = pd.DataFrame(columns_of(table)).astype({"videos": "Int64", "seeds": "Int64"})
    frame.attrs.update(number=table.number, title=table.title, caption=heading(table))
    frame.attrs.update(notes=table.notes, factors=factors_of(table))
    return frame
