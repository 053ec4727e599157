"""`ifttn figures`: draw Figures 1, 6 and 7 for trained runs, and the curves of their training."""

import argparse

from ifttn import gallery
from ifttn.verbs.inputs import work_of
from lab import showcase


def run(o: argparse.Namespace) -> None:
    """Draw the figures, and print the title of each when it is finished."""
    work = work_of(o)
    work.split.side("test")
    if o.denoise:
        gallery.train_denoiser_on(work, gallery.complete_recipe(work))
    for figure in gallery.draw_figures(work, o.out, full=o.full, contours=o.contours):
        print(figure.title)
    print(f"figures: {o.out}")
    if o.gallery:
        run = next(recipe for recipe in gallery.COMPLETE if work.run(recipe).tested)
        for path in showcase.write_showcase(work, run, o.out, o.gallery, o.shots):
            print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
