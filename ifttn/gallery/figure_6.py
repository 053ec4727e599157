"""Figure 6: the evidence of the streams and of IF-TTN, as maps and as numbers."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import torch

from ifttn.gallery.sources import Drawn, Sources, as_images
from ifttn.insight.cam import STRIDE, class_activation_maps, on_pixels
from ifttn.insight.embedded.balls import ball_regions
from ifttn.insight.localisation import cascade, examples_of, localisation_table, localise, road
from ifttn.vocabulary import MODALITIES, Video
from lab import figures

CELLS_FINER = 4
"""Maps have a cell every 32 / CELLS_FINER px."""


def draw_figures_6(sources: Sources, *, contours: bool) -> Iterator[Drawn]:
    """Draw Figure 6, and compare where the maps of many test videos lie with a random map and a centred map.

    Figure 6 shows the pair in the middle of one test video for each action.

    Args:
        sources: the networks and videos of the run.
        contours: outline the balls of the embedded data set.
    """
    numbers = _localisation(sources)
    assert numbers.table is not None
    split = sources.work.split
    scores, fused = sources.run.scores(), sources.fused_scores()
    right = fused.argmax(1) == scores.labels
    videos = {video.name: video for video in split.test}
    examples = []
    for action in sources.shown:
        own = scores.labels == action
        if own.any():
            sure = np.where(own & right if (own & right).any() else own, 1, 0)
            examples.append(_cam_example(sources, videos[scores.videos[int(sure.argmax())]], action, contours))
    motion = MODALITIES[sources.modalities[1]].name
    text = (
        f"Class activation maps of {sources.where}, for the true action, on whole frames, with a cell every "
        f"{STRIDE // CELLS_FINER} px (the last levels are dilated). The test videos are classified correctly if the "
        "action has such a video. The snippets lie before and after the middle of the video. The column motion shows "
        f"{motion}. IF-TTN has one map for both snippets, because it sees only their difference. Below: how often the "
        "highest pixel lies in the region, and the share of positive evidence in the region (means over test videos, "
        "with bootstrap intervals of 95 %). A constant map scores the region's share of the frame."
    )
    if contours and sources.factors is not None:
        text += " The balls are outlined."
    figure = figures.figure_6(examples, _notes(sources, numbers.table))
    yield Drawn("figure_6", "Figure 6: the evidence of the streams and of IF-TTN", text, figure)
    yield numbers


def _notes(sources: Sources, table: pd.DataFrame) -> list[str]:
    """The names of the measurements, and their values for the spatial stream, the temporal stream and IF-TTN."""
    region, named = ("moving", "what moves") if sources.factors is None else ("balls", "the balls")
    rows = table.xs((region, f"CAM, every {STRIDE // CELLS_FINER} px"), level=("region", "method"))
    notes = [f"{named}: {100 * rows.area.mean():.0f} % of the frame\nhighest pixel there\nevidence there"]
    for _, row in rows.loc[[*sources.modalities, "ttn"]].iterrows():
        x = 100 * row
        shares = (f"{x[m]:.0f} % [{x[f'{m} low']:.0f}, {x[f'{m} high']:.0f}]" for m in ("pointing", "energy"))
        notes.append("\n".join([f"{row.videos:.0f} test videos", *shares]))
    return notes


def _cam_example(sources: Sources, video: Video, action: int, contours: bool) -> figures.CamExample:
    network, inputs = sources.network, sources.snippets(video)
    appearance, motion = sources.modalities
    pair = slice(sources.middle, sources.middle + 2)
    batch = {modality: x[None].float() for modality, x in inputs.items()}
    actions = torch.tensor([[action]], device=sources.work.device)
    maps = class_activation_maps(network, batch, actions, finer=CELLS_FINER)
    with torch.inference_mode():
        logits = network(batch).logits
    height, width = inputs[appearance].shape[-2:]
    balls = None
    if contours and sources.factors is not None:
        regions = ball_regions(sources.factors.loc[video.name], sources.segments, (height, width))
        balls = regions["balls"][pair]
    on_frame = {
        head: on_pixels(each[0, :, 0], (height, width), STRIDE / CELLS_FINER).cpu().numpy()
        for head, each in maps.items()
    }
    spatial, temporal, ttn = (logits[head][0].softmax(0)[action].item() for head in (appearance, motion, "ttn"))
    return figures.CamExample(
        title=sources.actions[action],
        frames=as_images(inputs[appearance][pair]),
        motion=inputs[motion][pair].cpu().numpy(),
        spatial=on_frame[appearance][pair],
        temporal=on_frame[motion][pair],
        pair=on_frame["ttn"][sources.middle],
        probabilities=(spatial, temporal, ttn),
        outlined=balls,
    )


def _localisation(sources: Sources) -> Drawn:
    test = sources.work.split.test
    videos = test if sources.full else test[:: max(1, len(test) // 32)]
    examples = partial(
        examples_of,
        sources.work.store,
        modalities=sources.modalities,
        segments=sources.segments,
        factors=sources.factors,
    )
    table = localisation_table(localise(sources.network, examples(videos), finer=(1, CELLS_FINER)))
    correlations = cascade(sources.network, list(examples(videos[:: max(1, len(videos) // 4)][:4])))
    words = "; ".join(
        f"{figures.HEAD_NAMES.get(head, head)} {correlations[head].iloc[0]:+.2f}" for head in correlations
    )
    text = (
        f"Class activation maps of {sources.where}, for the true action, on whole frames of {len(videos)} test videos. "
        "Means with bootstrap intervals of 95 %, divided by the region's share of the frame. Rank correlation with the "
        f"maps of a network with random classifiers: {words}."
    )
    if sources.full:
        changes = road(sources.network, examples(videos[::8])).groupby(["head", "method"]).change.mean()
        lost = (f"{' '.join(map(str, key))} {change:+.2f}" for key, change in changes.items())
        text += f" ROAD, mean change of the logit: {'; '.join(lost)}."
    return Drawn(
        "localisation", "Figure 6 in numbers: the place of the evidence", text, figures.localisation(table), table
    )
