"""From trained runs to the paper's Figures 1, 6 and 7, what they prove, and the curves of training.

It stands beside `ifttn.verbs`, above `lab`: it opens runs, asks `ifttn.insight`, and lets `lab.figures` draw.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from hashlib import sha256
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import torch
from jaxtyping import UInt8
from torch import Tensor

from ifttn.data import diagnostic
from ifttn.data.loading import whole_snippets
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES, find
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import late_fusion
from ifttn.experiment.study import Places, StudySettings, work_on
from ifttn.experiment.training import Work
from ifttn.files import write_whole
from ifttn.insight import deepdraw
from ifttn.insight.cam import STRIDE, class_activation_maps, on_pixels
from ifttn.insight.deepdraw import Material, Palette, Settings, State
from ifttn.insight.denoiser import Denoiser, denoiser_file, load_denoiser, packed, train_denoiser
from ifttn.insight.judge import Panel, train_panel
from ifttn.insight.localisation import cascade, examples_of, localise, road
from ifttn.insight.order import SUCCESS, Frames, Pair, in_words, nearest_frames, order_report
from ifttn.model.network import Network
from ifttn.vocabulary import MODALITIES, IfttnError, Video
from lab import figures, report

COMPLETE = ("if-ttn", "mv-if-ttn")
"""Recipes whose network is complete; the figures show the first that is trained."""

FINER = 4
"""Maps have a cell every 32 / FINER px."""

SEEDS, JUDGES = 5, 5
"""Drawings of an action, and judges of form, where all is drawn (`full`)."""

AT_ONCE = 16
"""Drawings that are made in one batch."""


class Drawn(NamedTuple):
    """A figure or a table on its way to a file."""

    name: str
    title: str
    caption: str
    figure: figures.Figure
    table: pd.DataFrame | None = None


def draw(work: Work, out: Path, *, full: bool = False) -> list[report.Figure]:
    """Draw every figure that the trained runs of a split allow, as PNG files in `out`; a line of caption beside each.

    Args:
        work: a split, its store and its runs.
        out: folder; what the figures prove lies there as CSV files, too.
        full: draw all actions with five seeds and measure on all test videos, in hours instead of a minute.

    Raises:
        IfttnError: no complete network is trained on this split.
    """
    run = _complete(work)
    done = []
    for each in _figures(Gallery(work, run, full)):
        png = BytesIO()
        each.figure.savefig(png, format="png")
        write_whole(out / f"{each.name}.png", png.getvalue())
        write_whole(out / f"{each.name}.txt", f"{each.title}\n{each.caption}\n".encode())
        if each.table is not None:
            write_whole(out / f"{each.name}.csv", each.table.to_csv().encode())
        done.append(report.Figure(each.title, each.caption, png.getvalue()))
    return done


def draw_split(places: Places, dataset: str, split: int, setup: StudySettings) -> None:
    """The step of the study that draws; again only when a network that it shows, or asks, is another one."""
    work, drawn = work_on(places, dataset, split, setup), places.root / "figures" / "drawn.json"
    shown = next((recipe for recipe in COMPLETE if work.run(recipe).tested), "")
    weights = sorted(work.runs.glob(f"{dataset}/*/{shown}/weights.safetensors"))
    weights += sorted(work.run("").folder.glob("denoiser-*.safetensors"))
    seen = json.dumps({str(path.relative_to(work.runs)): sha256(path.read_bytes()).hexdigest() for path in weights})
    if not (drawn.exists() and drawn.read_text() == seen):
        draw(work, drawn.parent)
        write_whole(drawn, seen.encode())


def train_denoiser_on(work: Work) -> None:
    """Train what draws Figures 1 and 7, or find it trained.

    Raises:
        IfttnError: no complete network is trained, or its preset has no drawing through a denoiser.
    """
    run = _complete(work)
    preset = find(work.preset, PRESETS, "preset")
    if preset.size != deepdraw.PRESETS["tiny-denoised"].crop:
        raise IfttnError(
            f"no drawing through a denoiser at preset {work.preset}: one of {preset.size} px takes days to train, "
            "and DeepDraw as published draws there"
        )
    modalities = run.network().settings.modalities
    path = denoiser_file(work.runs, work.split.dataset, work.split.number, modalities)
    if not path.exists():
        snippets = [whole_snippets(work.store, video, modalities, preset.segments) for video in work.split.train]
        real = {m: torch.stack([each[m] for each in snippets]).to(work.device) for m in modalities}
        unfinished = path.with_suffix(".unfinished")
        trained = train_denoiser(real, seed=work.seed, progress=work.progress, unfinished=unfinished)
        write_whole(path, packed(trained))
        unfinished.unlink(missing_ok=True)


def _complete(work: Work) -> Run:
    run = next((work.trained(recipe) for recipe in COMPLETE if work.run(recipe).tested), None)
    if run is None:
        raise IfttnError(
            f"no tested run of {' or '.join(COMPLETE)} in {work.run('').folder}: `ifttn train if-ttn` first"
        )
    return run


def load(out: Path) -> list[report.Figure]:
    """The figures that `draw` wrote."""
    texts = {path.with_suffix(".png"): path.read_text().split("\n") for path in sorted(out.glob("*.txt"))}
    return [report.Figure(title, caption, png.read_bytes()) for png, (title, caption, _) in texts.items()]


class Gallery:
    """What all figures of a run share: its network, witnesses, real frames, and what the embedded set knows of them."""

    def __init__(self, work: Work, run: Run, full: bool) -> None:
        self.work, self.run, self.full = work, run, full
        self.network = run.network(work.device)
        self.modalities = self.network.settings.modalities
        self.segments = find(work.preset, PRESETS, "preset").segments
        self.actions = work.split.actions
        self.plan: pd.DataFrame | None = None
        with suppress(IfttnError):  # of other data sets, balls and phases are not known
            self.plan = diagnostic.factors(work.split.test[0].path.parents[1])
        self.where = f"{run.folder.name} on {work.split.dataset}, split {work.split.number}, preset {work.preset}"
        own = {f"split {work.split.number}": self.network}
        others = dict(self._trained_apart())
        helper = dict(list(others.items())[:-1][:1])  # with two others, one helps to draw and one bears witness
        self.drawing = {**own, **helper}
        self.apart = {name: network for name, network in others.items() if name not in helper}

        self._frames: tuple[int, Frames] | None = None
        where = denoiser_file(work.runs, work.split.dataset, work.split.number, self.modalities)
        self.denoiser: Denoiser | None = load_denoiser(where, work.device) if where.exists() else None

    def _trained_apart(self) -> Iterator[tuple[str, Network]]:
        """Networks of other splits, which never saw this one: only they can bear witness to a drawing."""
        for split in sorted({1, 2, 3} - {self.work.split.number}):
            other = Run.of(self.work.runs, self.work.split.dataset, split, self.run.folder.name)
            if other.finished:
                yield f"split {split}", other.fitting(self.actions).network(self.work.device)

    def whole(self, video: Video) -> dict[str, Tensor]:
        """A video's test snippets, whole frames: per modality (K, C, H, W)."""
        snippets = whole_snippets(self.work.store, video, self.modalities, self.segments)
        return {modality: x.to(self.work.device) for modality, x in snippets.items()}

    def palettes(self, videos: int = 48) -> dict[str, Palette]:
        """What real frames and motion are like, of videos spread over the training list."""
        train = self.work.split.train
        seen = [self.whole(video) for video in train[:: max(1, len(train) // videos)]]
        return {m: Palette.of(torch.cat([each[m] for each in seen])) for m in self.modalities}

    def frames(self, action: int, videos: int = 16) -> Frames:
        """Training frames of an action, and when they come; those of the last action are kept, and no others."""
        if self._frames is None or self._frames[0] != action:
            self._frames = None
            own = [video for video in self.work.split.train if video.label == action][:videos]
            images = torch.cat([self.whole(video)["rgb"] for video in own]).float()
            times = np.tile((np.arange(self.segments) + 0.5) / self.segments, len(own))
            self._frames = action, Frames(images, times)
        return self._frames[1]

    def judge(self) -> Panel | None:
        """Of form, where rings and discs are what actions differ in."""
        return None if self.plan is None else train_panel(JUDGES if self.full else 1).to(self.work.device)

    @property
    def shown(self) -> list[int]:
        """Actions that stand in Figures 1 and 7."""
        return spread_couples(len(self.actions), 4)

    @property
    def orders(self) -> list[int] | None:
        """Of each action of the embedded set: 0 if rings come first, 1 if discs do."""
        if self.plan is None:
            return None
        return self.plan.groupby("action").order.first().reindex(list(self.actions)).tolist()


def _figures(gallery: Gallery) -> Iterator[Drawn]:
    yield from _drawings(gallery)
    yield _maps(gallery)
    yield _localisation(gallery)
    work, run = gallery.work, gallery.run
    runs = {name: work.run(name) for name in (*RECIPES[run.folder.name].needs, run.folder.name)}
    yield Drawn(
        "training",
        "Training",
        f"Loss of each recipe over its stages ({work.split.dataset}, split {work.split.number}).",
        figures.training_curves({name: each.metrics() for name, each in runs.items()}),
    )
    scores = run.scores()
    yield Drawn(
        "confusion",
        "What is taken for what",
        f"Late-fused scores of {gallery.where}, test videos.",
        figures.confusion(late_fusion(scores.heads), scores.labels, scores.actions),
    )


def _images(planes: Tensor) -> UInt8[np.ndarray, "_ H W 3"]:
    return planes.clamp(0, 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def spread_couples(actions: int, count: int) -> list[int]:
    """Some actions, in neighbouring couples, spread over the list (embedded sets: couples differ in order alone)."""
    first = [2 * round(x) for x in np.linspace(0, max(0, actions // 2 - 1), max(1, count // 2))]
    return sorted({action for each in first for action in (each, each + 1) if action < actions})


# Figures 1 and 7, and what they prove.


class Sitting(NamedTuple):
    """One way of drawing all subjects, and what their pairs prove."""

    settings: Settings
    material: Material
    shown: dict[int, tuple[State, State]]
    """By action in the figure: TTN's drawing and TSN's, of seed 0."""
    proved: pd.DataFrame
    """A row a subject."""
    tsn_right: list[bool]
    """Of each subject where a judge knows it: TSN's drawing shows what comes first."""


def _drawings(gallery: Gallery) -> Iterator[Drawn]:
    """As published; and, where a denoiser is trained, with it: then this is the figure, and that stands beside it."""
    size, judge = find(gallery.work.preset, PRESETS, "preset").size, gallery.judge()
    published = _sat(gallery, deepdraw.preset_for(size), Material(gallery.palettes()), judge)
    if gallery.denoiser is None:
        hint = deepdraw.PRESETS["tiny-denoised"].crop == size
        how = f"{BLURRED} (`ifttn figures --denoise` draws them through a denoiser)" if hint else BLURRED
        yield _figure_1_7(gallery, published, "figure_1_7", "Figures 1 and 7", how)
        yield _order(gallery, published, judge, "order", "")
        return
    denoised = _sat(gallery, deepdraw.PRESETS["tiny-denoised"], Material(denoiser=gallery.denoiser), judge)
    yield _figure_1_7(gallery, denoised, "figure_1_7", "Figures 1 and 7", DENOISED)
    yield _order(gallery, denoised, judge, "order", "")
    yield _figure_1_7(gallery, published, "figure_1_7_published", "Figures 1 and 7 by DeepDraw as published", BLURRED)
    yield _order(gallery, published, judge, "order_published", ", by DeepDraw as published")


BLURRED = "From noise alone, blurred after every step"
DENOISED = (
    "From noise alone, through a denoiser of pairs of training snippets, which knows what two snippets of a video look "
    "like, but neither their action nor which came first"
)


def _sat(gallery: Gallery, settings: Settings, material: Material, judge: Panel | None) -> Sitting:
    """Draws some subjects at a time, and keeps what is shown: all drawings of UCF101 would fill a GPU."""
    actions, seeds = (range(len(gallery.actions)), SEEDS) if gallery.full else (gallery.shown, 1)
    shown: dict[int, tuple[State, State]] = {}
    proved, right, known = [], list[bool](), _known(gallery, judge)
    for some in _some(list(product(actions, range(seeds)))):
        ttn = _last(list(gallery.drawing.values()), some, settings, "ttn", material)
        tsn = _last([gallery.network], some, settings, "spatial", material)
        pairs = _pairs(gallery, some, ttn)
        proved.append(order_report(pairs, gallery.drawing, gallery.apart, frames=gallery.frames, judge=known))
        right += _show_what_comes_first(some, tsn, known)
        for (action, seed), *both in zip(some, ttn, tsn, strict=True):
            if seed == 0 and action in gallery.shown:
                shown[action] = both[0], both[1]
    return Sitting(settings, material, shown, pd.concat(proved, ignore_index=True), right)


def _some(subjects: Sequence[tuple[int, int]]) -> Iterator[Sequence[tuple[int, int]]]:
    """(action, seed) of the drawings of one batch after the other."""
    return (subjects[first : first + AT_ONCE] for first in range(0, len(subjects), AT_ONCE))


def _last(
    networks: Sequence[Network],
    subjects: Sequence[tuple[int, int]],
    settings: Settings,
    head: str,
    material: Material,
) -> tuple[State, ...]:
    """The finished drawings; what they were on the way is not kept."""
    (done,) = deque(deepdraw.draw_many(networks, subjects, settings, head=head, material=material), maxlen=1)
    return done


def _pairs(gallery: Gallery, subjects: Sequence[tuple[int, int]], states: Sequence[State]) -> Iterator[Pair]:
    for (action, seed), state in zip(subjects, states, strict=True):
        assert isinstance(state.motion, Tensor)
        yield Pair(action, seed, dict(zip(gallery.modalities, (_rgb(state), state.motion), strict=True)))


def _show_what_comes_first(
    subjects: Sequence[tuple[int, int]], tsn: Sequence[State], known: tuple[Panel, list[int]] | None
) -> list[bool]:
    """A TSN drawing is one snippet: paired with its neighbour's, which differs in order alone, it has no sequence."""
    if known is None:
        return []
    judge, orders = known
    with torch.no_grad():
        said = judge(torch.cat([_rgb(state) for state in tsn])).tolist()
    return [value * (1 - 2 * orders[action]) > 0 for value, (action, _) in zip(said, subjects, strict=True)]


def _known(gallery: Gallery, judge: Panel | None) -> tuple[Panel, list[int]] | None:
    """The judge, and what it is to see first of each action."""
    return None if judge is None or gallery.orders is None else (judge, gallery.orders)


def _rgb(state: State) -> Tensor:
    assert isinstance(state.rgb, Tensor)
    return state.rgb


def _figure_1_7(gallery: Gallery, sat: Sitting, name: str, title: str, how: str) -> Drawn:
    apart = " and ".join(gallery.apart)
    witness = f"the network of {apart} did not draw." if apart else "no other split is trained to bear witness."
    return Drawn(
        name,
        f"{title}: what an action looks like to TSN and to TTN",
        f"DeepDraw on {gallery.where}, seed 0, networks of {' and '.join(gallery.drawing)}. {how}. Below: what drives "
        "the spatial stream (TSN), and the ordered pair of snippets, with their motion, that drives the TTN branch. "
        "Above: the nearest training frames of the action by the spatial stream's features; black where none is near. "
        f"p(A,B) and p(B,A): probability of the action for the drawn pair and for its swap; {witness}",
        figures.figure_1_7([_block(gallery, sat, action) for action in gallery.shown]),
    )


def _block(gallery: Gallery, sat: Sitting, action: int) -> figures.DrawnAction:
    state, tsn = sat.shown[action]
    proved = sat.proved[(sat.proved.action == action) & (sat.proved.seed == 0)].iloc[0]
    drawings, frames = torch.cat([_rgb(tsn), _rgb(state)]), gallery.frames(action)
    nearest = nearest_frames(gallery.network, drawings, frames.images)
    photographs = _images(frames.images)[nearest.indices[:, 0].cpu().numpy()]
    note = f"drawing networks: p(A,B) {proved['own p(A,B)']:.2f}, p(B,A) {proved['own p(B,A)']:.2f}"
    if gallery.apart:
        note += f"; apart: p(A,B) {proved['apart p(A,B)']:.2f}, p(B,A) {proved['apart p(B,A)']:.2f}"
    if "margin" in proved:
        note += f"\njudge of form: {'right' if proved.margin > 0 else 'wrong'} sequence ({proved.margin:+.1f})"
    assert isinstance(state.motion, Tensor)
    return figures.DrawnAction(
        action=gallery.actions[action],
        drawings=_images(drawings),
        photographs=[p if ok else None for p, ok in zip(photographs, nearest.resembles.tolist(), strict=True)],
        motion=state.motion.round().clamp(0, 255).byte().cpu().numpy(),
        note=note,
        succeeded=bool(proved["own p(A,B)"] >= SUCCESS),
    )


def _order(gallery: Gallery, sat: Sitting, judge: Panel | None, name: str, how: str) -> Drawn:
    witnesses, proved = gallery.apart or gallery.drawing, sat.proved
    real = order_report(_real_pairs(gallery, 320 if gallery.full else 32), {}, witnesses)
    gaps = {"drawn, by the drawing networks": proved["own gap"].to_numpy()}
    if gallery.apart:
        gaps["drawn, by a network apart"] = proved["apart gap"].to_numpy()
    floor = _floor(gallery, sat, judge) if gallery.full else None
    if floor is not None:
        gaps["drawn from random weights"] = floor["apart gap"].to_numpy()
    gaps["drawn, by TSN"] = proved["tsn gap"].to_numpy()
    gaps["real neighbouring snippets"] = real["apart gap"].to_numpy()
    words = in_words(proved)
    if judge is not None and sat.tsn_right:
        words += f" The judge of form is a panel of {len(judge.judges)}."
        words += f" Of TSN's drawings, {sum(sat.tsn_right)} of {len(sat.tsn_right)} show what comes first."
    if floor is not None and "margin" in floor:
        right = int((floor.margin > 0).sum())
        words += f" Of drawings from random weights, {right} of {len(floor)} have the right sequence."
    return Drawn(
        name,
        f"Do the drawings carry order{how}?",
        f"Each dot a pair of snippets of {gallery.where}. {words}",
        figures.order_gaps(gaps),
        proved.assign(action=[gallery.actions[int(action)] for action in proved.action]),
    )


def _real_pairs(gallery: Gallery, count: int) -> Iterator[Pair]:
    """The pair around the middle of test videos spread over the list."""
    test, middle = gallery.work.split.test, (gallery.segments - 1) // 2
    for video in test[:: max(1, len(test) // count)]:
        inputs = {modality: x[middle : middle + 2].float() for modality, x in gallery.whole(video).items()}
        yield Pair(video.label, 0, inputs)


def _floor(gallery: Gallery, sat: Sitting, judge: Panel | None) -> pd.DataFrame:
    """What networks that have learned nothing draw, one a seed: what the way of drawing itself puts in."""
    reports, witnesses = [], gallery.apart or gallery.drawing
    for seed, own in sat.proved.groupby("seed"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(cast(int, seed))
            untrained = Network(gallery.network.settings).to(gallery.work.device).eval()
        for some in _some([(int(action), cast(int, seed)) for action in own.action]):
            states = _last([untrained], some, sat.settings, "ttn", sat.material)
            reports.append(order_report(_pairs(gallery, some, states), {}, witnesses, judge=_known(gallery, judge)))
    return pd.concat(reports, ignore_index=True)


# Figure 6, and what it proves.


def _maps(gallery: Gallery) -> Drawn:
    run, network, split = gallery.run, gallery.network, gallery.work.split
    scores = run.scores()
    right = late_fusion(scores.heads).argmax(1) == scores.labels
    videos = {video.name: video for video in split.test}
    examples = []
    for action in spread_couples(len(split.actions), 4):
        own = scores.labels == action
        if own.any():
            sure = np.where(own & right if (own & right).any() else own, 1, 0)
            examples.append(_cam_example(gallery, videos[scores.videos[int(sure.argmax())]], action))
    motion = MODALITIES[network.settings.modalities[1]].name
    return Drawn(
        "figure_6",
        "Figure 6: where the streams and IF-TTN look",
        f"Class activation maps of {gallery.where}, on whole frames, a cell every {STRIDE // FINER} px (last levels "
        "dilated), for the true action, on test videos that it gets right where there are any; the snippets lie on "
        f"either side of the video's middle. Motion is {motion}. IF-TTN has one map for both snippets, because it "
        "reads them only after their subtraction.",
        figures.figure_6(examples),
    )


def _cam_example(gallery: Gallery, video: Video, action: int) -> figures.CamExample:
    network, inputs = gallery.network, gallery.whole(video)
    appearance, motion = gallery.modalities
    middle = (gallery.segments - 1) // 2  # the pair around the middle of the video
    pair = slice(middle, middle + 2)
    batch = {modality: x[None].float() for modality, x in inputs.items()}
    maps = class_activation_maps(network, batch, torch.tensor([[action]], device=gallery.work.device), finer=FINER)
    with torch.inference_mode():
        logits = network(batch).logits
    height, width = inputs[appearance].shape[-2:]
    shown = {
        head: on_pixels(each[0, :, 0], (height, width), STRIDE / FINER).cpu().numpy() for head, each in maps.items()
    }
    said = [logits[head][0].softmax(0)[action].item() for head in (appearance, motion, "ttn")]
    return figures.CamExample(
        title=gallery.actions[action],
        frames=_images(inputs[appearance][pair]),
        motion=inputs[motion][pair].cpu().numpy(),
        spatial=shown[appearance][pair],
        temporal=shown[motion][pair],
        pair=shown["ttn"][middle],
        probabilities=(said[0], said[1], said[2]),
    )


def _localisation(gallery: Gallery) -> Drawn:
    test = gallery.work.split.test
    videos = test if gallery.full else test[:: max(1, len(test) // 32)]
    examples = partial(examples_of, gallery.work.store, modalities=gallery.modalities, segments=gallery.segments)
    table = localise(gallery.network, examples(videos, plan=gallery.plan), finer=(1, FINER)).table()
    changed = cascade(gallery.network, list(examples(videos[:: max(1, len(videos) // 4)][:4], plan=gallery.plan)))
    words = "; ".join(f"{figures.HEADS.get(head, head)} {changed[head].iloc[0]:+.2f}" for head in changed)
    text = (
        f"Class activation maps of {gallery.where} for the true action, {len(videos)} test videos, whole frames, "
        "means with bootstrap intervals of 95 %, in parts of the region's share of the frame. Rank correlation of the "
        f"maps with those of a network whose classifiers are random: {words}."
    )
    if gallery.full:
        lost = road(gallery.network, examples(videos[::8], plan=gallery.plan)).groupby(["head", "method"]).change.mean()
        text += " ROAD, mean change of the logit: " + "; ".join(
            f"{' '.join(map(str, k))} {v:+.2f}" for k, v in lost.items()
        )
    return Drawn(
        "localisation", "Figure 6 in numbers: where the evidence lies", text, figures.localisation(table), table
    )
