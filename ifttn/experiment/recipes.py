"""Every run of the study as a row: what is trained, from what, in which stages, and at which size.

A recipe says what the network is; a preset says how large it is and how long it trains. Any recipe runs at any preset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from ifttn.data.store import StoreSettings
from ifttn.model.network import NetworkSettings
from ifttn.vocabulary import IfttnError

Row = TypeVar("Row")

LATE_FUSION: Mapping[str, float] = {
    "rgb": 1.0,
    "flow": 1.5,
    "mv": 1.5,
    "ttn": 1.5,
    "ttn-rgb": 0.75,
    "ttn-flow": 0.75,
}
"""Weight of each head's scores, set before any test: TSN's 1 : 1.5, and 1.5 for all that follows the streams."""


@dataclass(frozen=True)
class Stage:
    """A phase of training (paper section 3.4)."""

    name: str
    trains: tuple[str, ...]
    """Prefixes of the network's parts. All else is frozen: weights, batch statistics and dropout."""
    heads: tuple[str, ...] = ()
    """Prefixes of the heads that get a cross-entropy loss each; none: one loss on the late-fused score."""


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

    @property
    def needs(self) -> tuple[str, ...]:
        """Recipes whose runs must be finished first."""
        return tuple(dict.fromkeys(start.recipe for start in self.starts_from))


SPATIAL = Stage("spatial", trains=("streams.rgb", "heads.rgb"), heads=("rgb",))
TEMPORAL = Stage("temporal", trains=("streams.flow", "heads.flow"), heads=("flow",))
MV_TEMPORAL = Stage("mv-temporal", trains=("streams.mv", "heads.mv"), heads=("mv",))
TTN = Stage("ttn", trains=("fusion", "temporal", "heads.ttn"), heads=("ttn",))
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


IF_TTN = Recipe(
    modalities=("rgb", "flow"),
    fusion="attention",
    stages=(TTN, JOINT),
    starts_from=(*streams_of(rgb="spatial", flow="temporal"), Start("temporal.ttn", "spatial", "streams.rgb")),
)

RECIPES: Mapping[str, Recipe] = {
    "spatial": Recipe(("rgb",), stages=(SPATIAL,)),
    "temporal": Recipe(("flow",), stages=(TEMPORAL,), starts_from=(Start("streams.flow", "spatial", "streams.rgb"),)),
    # Motion vectors start from the flow-trained networks (paper section 3.3), stage by stage.
    "mv-temporal": Recipe(
        ("mv",),
        stages=(MV_TEMPORAL,),
        starts_from=(Start("streams.mv", "temporal", "streams.flow"), Start("heads.mv", "temporal", "heads.flow")),
    ),
    "if-ttn": IF_TTN,
    "mv-if-ttn": replace(
        IF_TTN,
        modalities=("rgb", "mv"),
        stages=(MV_TTN, JOINT),
        starts_from=(
            *streams_of(rgb="spatial", mv="mv-temporal"),
            Start("temporal.ttn", "if-ttn", "temporal.ttn"),
            Start("heads.ttn", "if-ttn", "heads.ttn"),
        ),
    ),
    "if-ttn-adaptive": replace(IF_TTN, fusion="adaptive"),
    "if-ttn-additive": replace(IF_TTN, fusion="additive"),
    "if-ttn-multiplicative": replace(IF_TTN, fusion="multiplicative"),
    "ttn-separate": replace(
        IF_TTN,
        fusion="separate",
        starts_from=(
            *streams_of(rgb="spatial", flow="temporal"),
            Start("temporal.ttn-rgb", "spatial", "streams.rgb"),
            Start("temporal.ttn-flow", "temporal", "streams.flow"),
        ),
    ),
    "trn": replace(IF_TTN, temporal="trn", starts_from=streams_of(rgb="spatial", flow="temporal")),
    "ifm-average": replace(IF_TTN, temporal="average", starts_from=streams_of(rgb="spatial", flow="temporal")),
}


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
    """Multi-scale crops, by "rgb" where RGB is alone and "motion" where a motion modality is loaded."""
    crops: int
    """Views of a test video: 1, 3 or 10."""
    batch: int
    """Videos a step."""
    optimiser: str
    """"sgd" (momentum 0.9) or "adamw"."""
    weight_decay: float
    clip: Mapping[str, float]
    """Largest norm of a step's gradient, by "rgb" or "motion"."""
    dropout: Mapping[str, float]
    pretrained: bool = False
    """Spatial streams start from ImageNet."""
    batch_norm: str = "trained"
    """Of the streams while they train: "trained", or TSN's "partial", which freezes all but the first."""
    frozen_views: int | None = None
    """Views a video whose pyramids are computed once where the streams are frozen; None: new views every epoch."""
    workers: int = 0
    """Processes that load batches."""


PRESETS: Mapping[str, Preset] = {
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
        },
        scales={"rgb": (1.0, 0.875, 0.75, 0.66), "motion": (1.0, 0.875, 0.75)},
        crops=10,
        batch=64,
        optimiser="sgd",
        weight_decay=5e-4,
        clip={"rgb": 40.0, "motion": 20.0},
        dropout={"rgb": 0.8, "motion": 0.7, "ttn": 0.8},
        pretrained=True,
        batch_norm="partial",
        workers=8,
    ),
    # The embedded data set on two CPU cores, in minutes.
    "tiny": Preset(
        backbone="tiny",
        store=StoreSettings(width=96, height=72, bound=5.0),
        segments=4,
        size=64,
        schedules={
            "spatial": Schedule(4, 2e-3, decay_at=None),
            "temporal": Schedule(4, 2e-3, decay_at=None),
            "mv-temporal": Schedule(2, 1e-3, decay_at=None),
            "ttn": Schedule(28, 3e-3, decay_at=None),
            "mv-ttn": Schedule(6, 2e-3, decay_at=None),
            "joint": Schedule(1, 5e-4, decay_at=None),
        },
        scales={"rgb": (1.0, 0.875), "motion": (1.0, 0.875)},
        crops=3,
        batch=16,
        optimiser="adamw",
        weight_decay=0.02,
        clip={"rgb": 5.0, "motion": 5.0},
        dropout={"rgb": 0.0, "motion": 0.0, "ttn": 0.2},
        frozen_views=8,
    ),
}
PRESETS = {
    **PRESETS,
    # Hours on one consumer GPU.
    "small": replace(
        PRESETS["paper"],
        backbone="resnet18",
        store=StoreSettings(width=171, height=128, bound=10.0),
        size=112,
        schedules={
            name: replace(s, epochs=s.epochs // 4, decay_at=tuple(e // 4 for e in s.decay_at or ()))
            for name, s in PRESETS["paper"].schedules.items()
        },
        crops=1,
    ),
    # Seconds: shows that everything runs, and nothing about accuracy.
    "smallest": replace(
        PRESETS["tiny"],
        backbone="smallest",
        schedules={name: replace(s, epochs=1) for name, s in PRESETS["tiny"].schedules.items()},
        crops=1,
        frozen_views=1,
    ),
}


def find(name: str, table: Mapping[str, Row], what: str) -> Row:
    """A row of a table.

    Raises:
        IfttnError: there is none of that name; the line names the choices.
    """
    if name not in table:
        raise IfttnError(f"unknown {what} {name!r}: choose from {', '.join(table)}")
    return table[name]


def network_settings(recipe: Recipe, preset: Preset, actions: int) -> NetworkSettings:
    """The network of a recipe at the size of a preset."""
    return NetworkSettings(
        actions=actions,
        modalities=recipe.modalities,
        fusion=recipe.fusion,
        temporal=recipe.temporal,
        backbone=preset.backbone,
        dropout=preset.dropout,
    )
