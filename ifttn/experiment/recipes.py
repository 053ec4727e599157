"""The recipes of the study: for each run, its network, its starting weights and its stages.

A preset (`presets.py`) adds sizes and schedules. Any recipe runs at any preset.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from ifttn.model.peers.off_heads import heads_of
from ifttn.vocabulary import IfttnError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Stage:
    """A phase of training (paper section 3.4)."""

    name: str
    trains: tuple[str, ...]
    """Names of the parts of the network that train; "" is the whole network. The weights, batch statistics and dropout
    of all other parts are frozen."""
    heads: tuple[str, ...] = ()
    """Heads, each with a cross-entropy loss. For a stage without heads, the preset chooses the loss (`joint_loss`)."""


@dataclass(frozen=True)
class Start:
    """The weights of a part of a network come from a part (`source`) of the finished run of a recipe."""

    part: str
    recipe: str
    source: str


@dataclass(frozen=True)
class Recipe:
    """A network, its starting weights and its stages."""

    why: str
    """The reason for the recipe. `--dry-run` prints it."""
    modalities: tuple[str, ...]
    stages: tuple[Stage, ...]
    starts_from: tuple[Start, ...] = ()
    fusion: str | None = None
    temporal: str = "ttn"
    peer: str | None = None
    """Another system of Tables 5 to 7 (a name of TRAINED) instead of our network. Its modalities are in the order of
    its streams. It starts from random weights, except for parts that ImageNet's weights fit."""
    segments: int | None = None
    """K, if it differs from the preset's."""

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
MV_TTN = replace(TTN, name="mv-ttn")  # has its own schedule, because it continues from a trained TTN
FLOW_FURTHER = replace(TEMPORAL, name="mv-temporal")  # trains the flow stream as long as the motion-vector stream
JOINT = Stage("joint", trains=("",))


def streams_of(**sources: str) -> tuple[Start, ...]:
    """The stream and head of each modality start from the run of a recipe."""
    return tuple(
        Start(f"{part}.{modality}", recipe, f"{part}.{modality}")
        for modality, recipe in sources.items()
        for part in ("streams", "heads")
    )


def _peer(
    name: str, why: str, modalities: tuple[str, ...], heads: tuple[str, ...], segments: int | None = None
) -> Recipe:
    """A peer trains all its parts in one stage, with a loss for each head."""
    return Recipe(why, modalities, (Stage(name, trains=("",), heads=heads),), peer=name, segments=segments)


IF_TTN = Recipe(
    why="TTN starts from the trained spatial network's levels 3-5 and trains on frozen streams; then everything trains "
    "jointly (section 3.4)",
    modalities=("rgb", "flow"),
    fusion="attention",
    stages=(TTN, JOINT),
    starts_from=(*streams_of(rgb="spatial", flow="temporal"), Start("temporal.ttn", "spatial", "streams.rgb")),
)

RECIPES: dict[str, Recipe] = {
    "spatial": Recipe(
        "a standard TSN that starts from ImageNet weights (paper section 3.4)", ("rgb",), stages=(SPATIAL,)
    ),
    "temporal": Recipe(
        why="it starts from the trained spatial network, with the first convolution averaged over RGB and a new head "
        "(paper section 3.4; TSN starts it from ImageNet)",
        modalities=("flow",),
        stages=(TEMPORAL,),
        starts_from=(Start("streams.flow", "spatial", "streams.rgb"),),
    ),
    "rgbdiff": Recipe(
        why="TSN's RGB difference, which starts and trains like the temporal network",
        modalities=("rgbdiff",),
        stages=(RGBDIFF,),
        starts_from=(Start("streams.rgbdiff", "spatial", "streams.rgb"),),
    ),
    "if-ttn": IF_TTN,
    "mv-temporal": Recipe(
        why="the first stage of the motion-vector network, which starts from the IF-TTN on flow (paper section 3.3); "
        "motion vectors have as many channels as flow, so the weights of stream and head fit",
        modalities=("mv",),
        stages=(MV_TEMPORAL,),
        starts_from=(Start("streams.mv", "if-ttn", "streams.flow"), Start("heads.mv", "if-ttn", "heads.flow")),
    ),
    "mv-if-ttn": replace(
        IF_TTN,
        why="all parts start from the IF-TTN on flow (paper section 3.3) and train in the stages of section 3.4; the "
        "motion-vector stream has a stage of its own before",
        modalities=("rgb", "mv"),
        stages=(MV_TTN, JOINT),
        starts_from=(
            *streams_of(rgb="if-ttn", mv="mv-temporal"),
            Start("temporal.ttn", "if-ttn", "temporal.ttn"),
            Start("heads.ttn", "if-ttn", "heads.ttn"),
        ),
    ),
    "if-ttn-further": replace(
        IF_TTN,
        why="the control of mv-if-ttn: the IF-TTN on flow trains further, in the same stages and epochs as mv-if-ttn, "
        "so that only flow and motion vectors differ",
        stages=(FLOW_FURTHER, MV_TTN, JOINT),
        starts_from=(
            *streams_of(rgb="if-ttn", flow="if-ttn"),
            Start("temporal.ttn", "if-ttn", "temporal.ttn"),
            Start("heads.ttn", "if-ttn", "heads.ttn"),
        ),
    ),
    "if-ttn-adaptive": replace(
        IF_TTN,
        why="Table 1: Eq. 3, with three scalars per level that start at (1, 0, 1), which makes Eq. 3 equal to Eq. 2",
        fusion="adaptive",
    ),
    "if-ttn-additive": replace(IF_TTN, why="Table 2: a sum instead of IFM", fusion="additive"),
    "if-ttn-multiplicative": replace(
        IF_TTN,
        why="Table 2: a product instead of IFM; the original system has it inside the residual units",
        fusion="multiplicative",
    ),
    "ttn-separate": replace(
        IF_TTN,
        why="Table 1: a TTN on each stream; both start from the trained spatial network (section 3.4)",
        fusion="separate",
        stages=(TTN_SEPARATE, JOINT),
        starts_from=(
            *streams_of(rgb="spatial", flow="temporal"),
            Start("temporal.ttn-rgb", "spatial", "streams.rgb"),
            Start("temporal.ttn-flow", "spatial", "streams.rgb"),
        ),
    ),
    "trn": replace(
        IF_TTN,
        why="Figure 4: TRN of two frames on fused features; its perceptron starts from random weights",
        temporal="trn",
        starts_from=streams_of(rgb="spatial", flow="temporal"),
    ),
    "ifm-average": replace(
        IF_TTN,
        why="IFM without TTN: each snippet votes from its own fused level 5",
        temporal="average",
        starts_from=streams_of(rgb="spatial", flow="temporal"),
    ),
    "two-stream-i3d": _peer(
        "two-stream-i3d",
        "Table 5's two-stream I3D, with a loss for each network; it sees one snippet of eight frames per video instead "
        "of 64, and starts from random weights (its paper inflates ImageNet's weights and trains on Kinetics first)",
        modalities=("rgb8", "flow8"),
        heads=("rgb", "flow"),
        segments=1,
    ),
    "din": _peer(
        "din",
        "Table 5's dynamic image network, on the dynamic images of ten frames; no ImageNet weights fit it",
        modalities=("rgb10",),
        heads=("rgb",),
    ),
    "c3d": _peer(
        "c3d",
        "Table 5's C3D from random weights, on one snippet of sixteen frames a video, as in its paper",
        modalities=("rgb16",),
        heads=("rgb",),
        segments=1,
    ),
    "emv-cnn": _peer(
        "emv-cnn",
        "Table 5's RGB + EMV-CNN, with a loss for each network; it starts from random weights and does not imitate a "
        "flow network",
        modalities=("rgb", "mv10"),
        heads=("rgb", "mv"),
    ),
    "coviar": _peer(
        "coviar",
        "Table 5's CoViAR, with a loss for each network, on one frame per segment as in its paper; all three networks "
        "train at once and start from random weights",
        modalities=("rgb", "accumulated", "residual"),
        heads=("rgb", "accumulated", "residual"),
    ),
    "off": _peer(
        "off",
        "Table 5's OFF on RGB and RGB differences, with a loss at every level; all parts train at once (its paper "
        "trains the base first)",
        modalities=("rgb", "rgbdiff"),
        heads=(*heads_of("rgb").values(), *heads_of("rgbdiff").values()),
    ),
    "off-flow": _peer(
        "off-flow",
        "the additional stream on optical flow of Table 6's full OFF; it trains alone, because streams meet only in "
        "their logits",
        modalities=("flow",),
        heads=tuple(heads_of("flow").values()),
    ),
    "tsm": _peer(
        "tsm",
        "Table 7's TSM on one frame per segment, with as many segments as the other rows; its paper has eight",
        modalities=("rgb",),
        heads=("rgb",),
    ),
    "tdn": _peer(
        "tdn",
        "Table 7's TDN on five frames per segment, with as many segments as the other rows; its paper has eight",
        modalities=("rgb5",),
        heads=("rgb",),
    ),
}
OF_THE_PACKAGE = tuple(RECIPES)
"""The recipes of this package, without a user's own."""


def find(name: str, table: Mapping[str, Value], what: str) -> Value:
    """A row of a table.

    Raises:
        IfttnError: the table has no row of that name; the message lists the choices.
    """
    if name not in table:
        raise IfttnError(f"unknown {what} {name!r}: choose from {', '.join(table)}")
    return table[name]


def with_its_sources(name: str) -> list[str]:
    """All recipes that a recipe starts from, directly or indirectly, and then the recipe itself."""
    needed = [each for need in RECIPES[name].needs for each in with_its_sources(need)]
    return [*dict.fromkeys([*needed, name])]
