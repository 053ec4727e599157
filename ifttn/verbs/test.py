"""`ifttn test`: score the test videos with a trained recipe."""

import argparse

import pandas as pd

from ifttn.experiment import testing
from ifttn.experiment.own import recipe_of
from ifttn.experiment.scores import late_fusion, per_class, top1, tune
from ifttn.experiment.significance import wilson
from ifttn.verbs.inputs import work_of


def run(o: argparse.Namespace) -> None:
    """Print a line for each head and for late fusion: accuracy, its interval, and the accuracy of other readings."""
    o.recipe = recipe_of(o.recipe)
    work = work_of(o)
    run = testing.test(work, o.recipe)
    scores = run.scores()
    fused = late_fusion(scores.heads)
    for name, each in (*scores.heads.items(), *([("together", fused)] if len(scores.heads) > 1 else [])):
        share, total = top1(each, scores.labels), len(scores.labels)
        low, high = wilson(round(share * total), total)
        read = ", ".join(
            f"{reading} {top1(heads[name] if name in heads else late_fusion(heads), scores.labels):.3f}"
            for reading, heads in scores.readings.items()
        )
        print(f"{name:9} top-1 {share:.3f} [{low:.3f}, {high:.3f}] of {total} videos; {read}")
    if o.classes:
        table = pd.DataFrame(per_class(fused, scores.labels, scores.actions))
        print(table.to_string(index=False, float_format="%.3f"))
    if o.tune:
        tuned = tune(testing.score_held_out(work, o.recipe), [video.name for video in work.split.test])
        weights = ", ".join(f"{head} {weight:g}" for head, weight in tuned.weights.items())
        reached = top1(late_fusion(scores.heads, tuned.weights), scores.labels)
        print(f"{tuned.label} ({weights}): top-1 {reached:.3f} of the test videos, {tuned.top1:.3f} of those held out")
    print(f"scores: {run.folder / 'scores.npz'}")
