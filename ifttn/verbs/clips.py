"""`ifttn clips`: measure accuracy against the number of training videos per action."""

import argparse

import pandas as pd

from ifttn.experiment.clips import curve, train_on_few
from ifttn.files import write_whole
from ifttn.verbs.inputs import work_of
from lab.accuracy_figures import clips_curve
from lab.pictures import figure_png


def run(o: argparse.Namespace) -> None:
    """Train on each number of clips. The table and the figure are written again after each training."""
    work = work_of(o)
    out, table = o.runs / f"{work.split.dataset}-split{work.split.number}-{o.recipe}", pd.DataFrame()
    for found in train_on_few(work, o.recipe, o.clips, range(o.seed, o.seed + o.repeats)):
        table = curve(found)
        write_whole(out.with_name(f"{out.name}.csv"), table.to_csv(index=False).encode())
        title = f"{o.recipe} on {work.split.dataset}, split {work.split.number}"
        write_whole(out.with_name(f"{out.name}.png"), figure_png(clips_curve(table, title, len(work.split.actions))))
        (clips, seed), _ = [*found.items()][-1]
        print(f"{clips} clips of each action, seed {seed}: done", flush=True)
    print(table.to_string(index=False, float_format="%.3f"))
    print(f"figure: {out}.png; table: {out}.csv")
