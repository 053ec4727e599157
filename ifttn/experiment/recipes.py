"""Every run of the study as a row: what is trained, from what, in which stages, and at which size.

A recipe says what the network is; a preset says how large it is and how long it trains. Any recipe runs at any preset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from ifttn.data.store import StoreSettings
from ifttn.model.network import NetworkSettings
from ifttn.model.peers.off import heads_of
from ifttn.model.peers.trained import PeerSettings
from ifttn.vocabulary import IfttnError

Row = TypeVar("Row")


@dataclass(frozen=True)
class Child(Generic[Row]):
    """A row that shows only what differs from its parent."""

    parent: str
    changes: Mapping[str, Any]


def like(parent: str, **changes: Any) -> Child:
    """The row `parent` of the same table, but for `changes`."""
    return Child(parent, changes)


def resolved(rows: Mapping[str, Row | Child[Row]]) -> dict[str, Row]:
    """Every row in full; a parent stands above its children."""
    table: dict[str, Row] = {}
    for name, row in rows.items():
        table[name] = replace(table[row.parent], **row.changes) if isinstance(row, Child) else row  # type: ignore[type-var]
    return table


@dataclass(frozen=True)
class Stage:
    """A phase of training (paper section 3.4)."""

    name: str
    trains: tuple[str, ...]
    """Parts of the network by their whole names, "" for all of it. All else is frozen: weights, batch statistics and
    dropout."""
    heads: tuple[str, ...] = ()
    """Heads that get a cross-entropy loss each; none: one loss on the late-fused score."""


@dataclass(frozen=True)
class Start:
    """Part of a network that takes its weights from a part of a finished run."""

    part: str
    recipe: str
    source: str


@dataclass(frozen=True)
class Recipe:
    """What is trained, from what, in which stages."""

    modalities: tuple[str, ...]
    stages: tuple[Stage, ...]
    starts_from: tuple[Start, ...] = ()
    fusion: str | None = None
    temporal: str = "ttn"
    peer: str | None = None
    """Another system of Table 5 or 6 (a name of TRAINED) in the place of our network. It takes the modalities in the
    order of its streams, and starts at random."""
    segments: int | None = None
    """K, where it is not the preset's."""

    @property
    def needs(self) -> tuple[str, ...]:
        """Recipes whose runs must be finished first."""
        return tuple(dict.fromkeys(start.recipe for start in self.starts_from))


SPATIAL = Stage("spatial", trains=("streams.rgb", "heads.rgb"), heads=("rgb",))
TEMPORAL = Stage("temporal", trains=("streams.flow", "heads.flow"), heads=("flow",))
RGBDIFF = Stage("temporal", trains=("streams.rgbdiff", "heads.rgbdiff"), heads=("rgbdiff",))
MV_TEMPORAL = Stage("mv-temporal", trains=("streams.mv", "heads.mv"), heads=("mv",))
TTN = Stage("ttn", trains=("fusion", "temporal", "heads.ttn"), heads=("ttn",))
TTN_SEPARATE = Stage("ttn", ("fusion", "temporal", "heads.ttn-rgb", "heads.ttn-flow"), heads=("ttn-rgb", "ttn-flow"))
MV_TTN = Stage("mv-ttn", trains=TTN.trains, heads=TTN.heads)  # goes on from a trained TTN, and so has its own length
# One loss on what is reported. With a loss on every head, the streams fit noise in what they cannot see (order,
# binding), and the complete network is dragged down by it; here a stream is asked only for what the sum still lacks.
JOINT = Stage("joint", trains=("",))


def streams_of(**sources: str) -> tuple[Start, ...]:
    """Streams and their heads, each from the run that trained it."""
    return tuple(
        Start(f"{part}.{modality}", recipe, f"{part}.{modality}")
        for modality, recipe in sources.items()
        for part in ("streams", "heads")
    )


def _off_stage(name: str, *modalities: str) -> Stage:
    return Stage(name, trains=("",), heads=tuple(head for m in modalities for head in heads_of(m).values()))


RECIPE_ROWS: Mapping[str, Recipe | Child[Recipe]] = {
    "spatial": Recipe(("rgb",), stages=(SPATIAL,)),
    "temporal": Recipe(("flow",), stages=(TEMPORAL,), starts_from=(Start("streams.flow", "spatial", "streams.rgb"),)),
    "rgbdiff": Recipe(
        ("rgbdiff",), stages=(RGBDIFF,), starts_from=(Start("streams.rgbdiff", "spatial", "streams.rgb"),)
    ),
    "if-ttn": Recipe(
        modalities=("rgb", "flow"),
        fusion="attention",
        stages=(TTN, JOINT),
        starts_from=(*streams_of(rgb="spatial", flow="temporal"), Start("temporal.ttn", "spatial", "streams.rgb")),
    ),
    # The whole motion-vector network starts from the flow-trained IF-TTN (paper section 3.3), and then goes through the
    # stages of section 3.4: its stream alone, TTN on frozen streams, everything.
    "mv-temporal": Recipe(
        ("mv",),
        stages=(MV_TEMPORAL,),
        starts_from=(Start("streams.mv", "if-ttn", "streams.flow"), Start("heads.mv", "if-ttn", "heads.flow")),
    ),
    "mv-if-ttn": like(
        "if-ttn",
        modalities=("rgb", "mv"),
        stages=(MV_TTN, JOINT),
        starts_from=(
            *streams_of(rgb="if-ttn", mv="mv-temporal"),
            Start("temporal.ttn", "if-ttn", "temporal.ttn"),
            Start("heads.ttn", "if-ttn", "heads.ttn"),
        ),
    ),
    "if-ttn-adaptive": like("if-ttn", fusion="adaptive"),
    "if-ttn-additive": like("if-ttn", fusion="additive"),
    "if-ttn-multiplicative": like("if-ttn", fusion="multiplicative"),
    "ttn-separate": like(
        "if-ttn",
        fusion="separate",
        stages=(TTN_SEPARATE, JOINT),
        starts_from=(
            *streams_of(rgb="spatial", flow="temporal"),
            Start("temporal.ttn-rgb", "spatial", "streams.rgb"),
            Start("temporal.ttn-flow", "spatial", "streams.rgb"),
        ),
    ),
    "trn": like("if-ttn", temporal="trn", starts_from=streams_of(rgb="spatial", flow="temporal")),
    "ifm-average": like("if-ttn", temporal="average", starts_from=streams_of(rgb="spatial", flow="temporal")),
    "two-stream-i3d": Recipe(
        ("rgb8", "flow8"),
        stages=(Stage("two-stream-i3d", trains=("",), heads=("rgb", "flow")),),
        peer="two-stream-i3d",
        segments=1,
    ),
    "din": Recipe(("rgb10",), stages=(Stage("din", trains=("",), heads=("rgb",)),), peer="din"),
    "c3d": Recipe(("rgb16",), stages=(Stage("c3d", trains=("",), heads=("rgb",)),), peer="c3d", segments=1),
    "emv-cnn": Recipe(("rgb", "mv10"), stages=(Stage("emv-cnn", trains=("",), heads=("rgb", "mv")),), peer="emv-cnn"),
    "coviar": Recipe(
        ("rgb", "accumulated", "residual"),
        stages=(Stage("coviar", trains=("",), heads=("rgb", "accumulated", "residual")),),
        peer="coviar",
    ),
    "off": Recipe(("rgb", "rgbdiff"), stages=(_off_stage("off", "rgb", "rgbdiff"),), peer="off"),
    "off-flow": Recipe(("flow",), stages=(_off_stage("off-flow", "flow"),), peer="off-flow"),
}
RECIPES: dict[str, Recipe] = resolved(RECIPE_ROWS)

WHY_RECIPE: Mapping[str, str] = {
    "spatial": "a standard TSN from ImageNet weights (paper section 3.4)",
    "temporal": "from the trained spatial network, its first convolution averaged over RGB and its head new (paper "
    "section 3.4; TSN starts it from ImageNet)",
    "rgbdiff": "TSN's RGB difference, started and trained as the temporal network",
    "mv-temporal": "the first stage of the motion-vector network, which starts from the flow-trained IF-TTN (paper "
    "section 3.3): motion vectors have flow's channels, so that its stream and head fit",
    "if-ttn": "TTN from the trained spatial network's levels 3-5 on frozen streams, then everything jointly (section "
    "3.4); one loss on the late-fused score: with a loss a head, the streams fit noise in what they cannot see",
    "mv-if-ttn": "the flow-trained IF-TTN starts all of it (paper section 3.3): RGB stream, TTN and their heads "
    "directly, the motion-vector stream by way of its own stage",
    "if-ttn-adaptive": "Table 1: Eq. 3, three scalars a level from (1, 0, 1), where Eq. 3 is Eq. 2",
    "if-ttn-additive": "Table 2: a sum in the place of IFM",
    "if-ttn-multiplicative": "Table 2: a product in the place of IFM; theirs stands inside the residual units",
    "ttn-separate": "Table 1: a TTN on each stream, both from the trained spatial network (section 3.4): four networks",
    "trn": "Figure 4: TRN of two frames on fused features; its perceptron starts at random, as no weights fit it",
    "ifm-average": "what IFM gives without TTN: snippets vote from their own fused level 5",
    "two-stream-i3d": "Table 5's two-stream I3D, a loss a network, on one snippet of eight frames a video in the place "
    "of 64; from random weights, where its paper inflates ImageNet's and trains on Kinetics first",
    "din": "Table 5's dynamic image network, on the dynamic images of ten frames; no ImageNet weights fit it",
    "c3d": "Table 5's C3D from random weights, on one snippet of sixteen frames a video, as it is trained",
    "emv-cnn": "Table 5's RGB + EMV-CNN, a loss a network; from random weights and without a flow network to imitate, "
    "which needs one of its kind",
    "coviar": "Table 5's CoViAR, a loss a network, on one frame of a segment as its paper has it; all three at once, "
    "and from random weights",
    "off": "Table 5's OFF on RGB and RGB differences, a loss at every stage; all of it at once, where its paper trains "
    "the base before what stands on it",
    "off-flow": "Table 6's full OFF has a stream on optical flow beside OFF's: streams meet in their scores alone, so "
    "that it is trained by itself",
}
"""Recipe -> why it is so."""


@dataclass(frozen=True)
class Schedule:
    """How long a stage trains, and how fast."""

    epochs: int
    lr: float
    decay_at: tuple[int, ...] | None = ()
    """Epochs at which the rate falls to a tenth; None: one cycle, up to `lr` and down to nothing."""


@dataclass(frozen=True)
class Preset:
    """How large, how long, on what views."""

    backbone: str
    store: StoreSettings
    segments: int
    size: int
    """Side of a crop in pixels."""
    schedules: Mapping[str, Schedule]
    """By name of stage."""
    scales: Mapping[str, tuple[float, ...]]
    """Multi-scale crops, by "rgb" where nothing but RGB images is loaded and "motion" where anything else is."""
    crops: int
    """Views of a test video: 1, 3 or 10."""
    batch: int
    """Videos a step."""
    optimiser: str
    """"sgd" (momentum 0.9) or "adamw"."""
    weight_decay: float
    clip: Mapping[str, float]
    """Largest norm of a step's gradient, by "rgb" or "motion", and "ttn" where parts are clipped apart."""
    dropout: Mapping[str, float]
    pretrained: bool = False
    """Spatial streams start from ImageNet."""
    batch_norm: str = "trained"
    """Of the streams while they train: "trained", or TSN's "partial", which freezes all but the first."""
    frozen_views: int | None = None
    """Views a video whose pyramids are computed once where the streams are frozen; None: new views every epoch."""
    workers: int = 0
    """Processes that load batches."""
    clip_apart: bool = False
    """Each stream with its head, and what follows the streams, has a norm of its own; else one norm over all."""
    joint_batch_norm: str | None = None
    """Of the streams in the joint stage: as `batch_norm`, or "frozen"; None: no other than in the stages before."""
    ema: float = 0.0
    """A finished stage has the moving average of its weights, of this decay a step; 0: the last weights themselves."""
    peers: str | None = None
    """Size of a peer: "paper", or "embedded"; None: there is none that fits."""


PRESET_ROWS: Mapping[str, Preset | Child[Preset]] = {
    # The paper, section 4.2; what it leaves open follows TSN.
    "paper": Preset(
        backbone="resnet50",
        store=StoreSettings(width=340, height=256, bound=20.0),
        segments=7,
        size=224,
        schedules={
            "spatial": Schedule(80, 1e-3, decay_at=(30, 60)),
            "temporal": Schedule(250, 1e-3, decay_at=(100, 200)),
            "mv-temporal": Schedule(250, 1e-3, decay_at=(100, 200)),
            "ttn": Schedule(200, 1e-3, decay_at=(80, 160)),
            "mv-ttn": Schedule(200, 1e-3, decay_at=(80, 160)),
            "joint": Schedule(30, 1e-4, decay_at=(20,)),  # ours: the paper gives none
            "two-stream-i3d": Schedule(80, 1e-2, decay_at=(30, 60)),
            "din": Schedule(80, 1e-2, decay_at=(30, 60)),
            "c3d": Schedule(16, 3e-3, decay_at=(4, 8, 12)),
            "emv-cnn": Schedule(250, 1e-2, decay_at=(100, 200)),
            "coviar": Schedule(250, 1e-2, decay_at=(100, 200)),
            "off": Schedule(80, 1e-2, decay_at=(30, 60)),
            "off-flow": Schedule(250, 1e-2, decay_at=(100, 200)),
        },
        scales={"rgb": (1.0, 0.875, 0.75, 0.66), "motion": (1.0, 0.875, 0.75)},
        crops=10,
        batch=64,
        optimiser="sgd",
        weight_decay=5e-4,
        clip={"rgb": 40.0, "motion": 20.0, "ttn": 40.0},
        dropout={"rgb": 0.8, "motion": 0.7, "ttn": 0.8},
        pretrained=True,
        batch_norm="partial",
        workers=8,
        clip_apart=True,
        joint_batch_norm="frozen",
        peers="paper",
    ),
    # The embedded data set on two CPU cores, in minutes.
    "tiny": Preset(
        backbone="tiny",
        store=StoreSettings(width=96, height=72, bound=5.0, flow="tvl1-fast"),
        segments=4,
        size=64,
        schedules={
            "spatial": Schedule(4, 2e-3, decay_at=None),
            "temporal": Schedule(4, 2e-3, decay_at=None),
            "mv-temporal": Schedule(2, 1e-3, decay_at=None),
            "ttn": Schedule(16, 5e-3, decay_at=None),
            "mv-ttn": Schedule(6, 2e-3, decay_at=None),
            "joint": Schedule(1, 5e-4, decay_at=None),
            "two-stream-i3d": Schedule(3, 3e-3, decay_at=None),
            "din": Schedule(6, 1e-3, decay_at=None),
            "c3d": Schedule(2, 1e-3, decay_at=None),
            "emv-cnn": Schedule(3, 1e-3, decay_at=None),
            "coviar": Schedule(4, 3e-3, decay_at=None),
            "off": Schedule(4, 2e-3, decay_at=None),
            "off-flow": Schedule(4, 2e-3, decay_at=None),
        },
        scales={"rgb": (1.0, 0.875), "motion": (1.0, 0.875)},
        crops=3,
        batch=16,
        optimiser="adamw",
        weight_decay=0.02,
        clip={"rgb": 0.5, "motion": 0.5},
        dropout={"rgb": 0.0, "motion": 0.0, "ttn": 0.2},
        frozen_views=8,
        peers="embedded",
    ),
    # Hours on one consumer GPU.
    "small": like(
        "paper",
        backbone="resnet18",
        store=StoreSettings(width=171, height=128, bound=10.0),
        size=112,
        schedules={
            "spatial": Schedule(20, 1e-3, decay_at=(7, 15)),
            "temporal": Schedule(62, 1e-3, decay_at=(25, 50)),
            "mv-temporal": Schedule(62, 1e-3, decay_at=(25, 50)),
            "ttn": Schedule(50, 1e-3, decay_at=(20, 40)),
            "mv-ttn": Schedule(50, 1e-3, decay_at=(20, 40)),
            "joint": Schedule(7, 1e-4, decay_at=(5,)),
        },
        crops=1,
        dropout={"rgb": 0.5, "motion": 0.5, "ttn": 0.5},
        peers=None,
    ),
    # Seconds: shows that everything runs, and nothing about accuracy.
    "smallest": like(
        "tiny",
        backbone="smallest",
        store=StoreSettings(width=96, height=72, bound=5.0, flow="dis"),
        schedules={
            "spatial": Schedule(1, 2e-3, decay_at=None),
            "temporal": Schedule(1, 2e-3, decay_at=None),
            "mv-temporal": Schedule(1, 1e-3, decay_at=None),
            "ttn": Schedule(1, 3e-3, decay_at=None),
            "mv-ttn": Schedule(1, 2e-3, decay_at=None),
            "joint": Schedule(1, 5e-4, decay_at=None),
            "two-stream-i3d": Schedule(1, 2e-3, decay_at=None),
            "din": Schedule(1, 1e-3, decay_at=None),
            "c3d": Schedule(1, 1e-3, decay_at=None),
            "emv-cnn": Schedule(1, 1e-3, decay_at=None),
            "coviar": Schedule(1, 2e-3, decay_at=None),
            "off": Schedule(1, 2e-3, decay_at=None),
            "off-flow": Schedule(1, 2e-3, decay_at=None),
        },
        crops=1,
        frozen_views=1,
    ),
}
PRESETS: Mapping[str, Preset] = resolved(PRESET_ROWS)

WHY: Mapping[str, Mapping[str, str]] = {
    "paper": {
        "backbone": "paper 4.2",
        "store": "TSN's 340 x 256, and its bound of 20 px, are what published flow accuracies stand on",
        "segments": "paper 4.2: K = 7",
        "size": "224: the size of the ImageNet weights",
        "schedules": "paper 4.2; joint is ours (it gives none): a tenth of the rate, 30 epochs, so that frozen parts "
        "move little; motion vectors as flow",
        "scales": "TSN: 0.66 only for RGB images, not for their differences; with two modalities one crop serves both",
        "crops": "TSN's corners and centre, mirrored; K stays 7, as neighbours 0.3 s apart are not what TTN was "
        "trained on",
        "batch": "paper 4.2: 64, by accumulation where memory asks for it",
        "optimiser": "paper 4.2: SGD, momentum 0.9; head biases at twice the rate, an averaged first convolution at "
        "five times (TSN)",
        "weight_decay": "TSN; none on biases, batch norm and fusion weights",
        "clip": "TSN: 40 for RGB, 20 for flow; TTN as RGB, whose weights it starts from",
        "dropout": "paper 4.2",
        "pretrained": "paper 4.2: the spatial network starts from ImageNet",
        "batch_norm": "TSN: all but a stream's first keep ImageNet's statistics. TTN's are trained: it sees signed "
        "differences, which the copied statistics do not describe",
        "frozen_views": "new views every epoch, as strong augmentation is what the paper asks for",
        "workers": "8 keep one GPU fed",
        "clip_apart": "TSN clips each modality's network by itself; one norm would let flow's gradients shrink RGB's",
        "joint_batch_norm": "features that TTN was trained on keep their statistics",
        "ema": "none: the paper reports the last weights",
        "peers": "as their papers have them; schedules are C3D's own, and at the two-stream network's rate for the "
        "others, which start at random here",
    },
    "tiny": {
        "backbone": "a ResNet of four blocks, half as wide: minutes on two cores",
        "store": "96 x 72 still shows the shapes of the embedded videos; they move less than 5 px a frame",
        "segments": "K = 4: enough for the order of what happens in an embedded video",
        "size": "64 of 72 rows leaves room for the corners",
        "schedules": "one cycle learns in few epochs; TTN needs the most, and only it sees order",
        "scales": "smaller crops would cut shapes off",
        "crops": "left, centre, right",
        "batch": "16: enough steps in an epoch of 640 videos",
        "optimiser": "AdamW needs no tuning from random weights; an averaged first convolution at five times the rate "
        "(TSN): x and y are alike in it at first, and TTN learns binding late from a stream that confuses them",
        "weight_decay": "AdamW's is decoupled, and so is larger",
        "clip": "0.5: most steps are shortened, so that none outweighs the others",
        "dropout": "a narrow network that trains for minutes does not overfit; TTN, which trains longest, a little",
        "pretrained": "nothing to download",
        "batch_norm": "there are no ImageNet statistics to keep",
        "frozen_views": "8 views, computed once: the streams are most of the work",
        "workers": "the second core trains another recipe",
        "clip_apart": "one norm: AdamW does not mind the scale of a part",
        "joint_batch_norm": "one short epoch",
        "ema": "one cycle ends at a rate of nothing, which averages by itself",
        "peers": "narrow, for images of 64 px: a minute or a few each",
    },
    "small": {
        "backbone": "less than half of ResNet-50's work a pixel",
        "store": "half of the paper's resolution, and so half of its bound",
        "size": "112: a quarter of the pixels",
        "schedules": "a quarter of the paper's epochs at its rates",
        "crops": "the centre alone: a tenth of the time of a test",
        "dropout": "0.8 of 512 features would leave too few",
        "peers": "none is of a size between",
    },
    "smallest": {
        "backbone": "8 channels",
        "store": "DIS takes an eighth of TV-L1's time",
        "schedules": "one epoch",
        "crops": "the centre",
        "frozen_views": "one",
    },
}
"""Preset -> field -> why it is so; what a preset does not name has its parent's reason."""


def why(preset: str, field: str) -> str:
    """Why a field of a preset is as it is."""
    if field not in WHY[preset]:
        row = PRESET_ROWS[preset]
        return why(row.parent, field) if isinstance(row, Child) else ""
    return WHY[preset][field]


def find(name: str, table: Mapping[str, Row], what: str) -> Row:
    """A row of a table.

    Raises:
        IfttnError: there is none of that name; the line names the choices.
    """
    if name not in table:
        raise IfttnError(f"unknown {what} {name!r}: choose from {', '.join(table)}")
    return table[name]


def in_order(name: str) -> list[str]:
    """A recipe, after all recipes whose runs it starts from, directly or not."""
    needed = [each for need in RECIPES[name].needs for each in in_order(need)]
    return [*dict.fromkeys([*needed, name])]


def fitted(preset: Preset, recipe: Recipe) -> Preset:
    """The preset with what the recipe has its own way."""
    return replace(preset, segments=recipe.segments or preset.segments)


def network_settings(recipe: Recipe, preset: Preset, actions: int) -> NetworkSettings:
    """The network of a recipe at the size of a preset.

    Raises:
        IfttnError: the recipe's peer has no such size.
    """
    if recipe.peer:
        if preset.peers is None:
            sized = ", ".join(name for name, row in PRESETS.items() if row.peers)
            raise IfttnError(f"no size of the peer {recipe.peer} fits this preset: choose from {sized}")
        return PeerSettings(
            actions, recipe.modalities, None, dropout=preset.dropout, peer=recipe.peer, size=preset.peers
        )
    return NetworkSettings(
        actions=actions,
        modalities=recipe.modalities,
        fusion=recipe.fusion,
        temporal=recipe.temporal,
        backbone=preset.backbone,
        dropout=preset.dropout,
    )
