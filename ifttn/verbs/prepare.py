"""`ifttn prepare`: prepare videos for a store."""

import argparse
from dataclasses import replace

from ifttn.data import catalogue, diagnostic
from ifttn.data.preparation import prepare
from ifttn.data.preparation_report import summary
from ifttn.experiment.presets import PRESETS
from ifttn.verbs.inputs import print_left_out, print_names, store_of


def run(o: argparse.Namespace) -> int:
    """Prepare the videos. The exit code is 1 if a video failed. Missing and unlisted videos are printed."""
    if o.embedded:
        diagnostic.write(o.data, o.embedded, videos=o.videos, difficulty=o.difficulty, seed=0, jobs=o.jobs or -1)
    settings = PRESETS[o.preset].store
    settings = replace(settings, flow=o.flow or settings.flow)
    contents = catalogue.contents(o.data)
    print_names("in the folder, but in no list", contents.extra)
    print_left_out(contents)
    store = store_of(o)
    report = prepare(o.data, store, settings, jobs=o.scheduler or o.jobs, limit=o.limit, device=o.device)
    print("\n".join(summary(report)))
    failed = report[report.status == "failed"]
    print_names("failed", [f"{video}: {reason}" for video, reason in zip(failed.video, failed.reason, strict=True)])
    print(f"report: {store / 'report.csv'}")
    return 1 if len(failed) else 0
