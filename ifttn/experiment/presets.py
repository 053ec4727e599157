"""How large a network is and how long it trains. Every choice has a reason, which `--dry-run` prints."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ifttn.data.frame_source import StoreSettings
from ifttn.experiment.recipes import JOINT, Recipe, Stage


@dataclass(frozen=True)
class Schedule:
    """How long a stage trains, and at which learning rate."""

    epochs: int
    lr: float
    decay_at: tuple[int, ...] | None = ()
    """Epochs at which the rate falls to a tenth. None: one cycle, up to `lr` and down to zero."""
    least: int = 0
    """The smallest number of steps. A small data set gets as many more epochs as this needs."""

    def fitted(self, videos: int, batch: int) -> "Schedule":
        """The schedule for this number of training videos, with `batch` videos per step."""
        return replace(self, epochs=max(self.epochs, -(-self.least // -(-videos // batch))))

    def lasting(self, epochs: int) -> "Schedule":
        """The schedule with another number of epochs. The learning rate falls at the same shares of the epochs."""
        falls = self.decay_at and tuple(round(each * epochs / self.epochs) for each in self.decay_at)
        return replace(self, epochs=epochs, decay_at=falls, least=0)


OWN_SCHEDULES: dict[str, Schedule] = {}
"""Stage of a user's own network (`ifttn.experiment.own`) -> its schedule at every preset."""


@dataclass(frozen=True)
class Preset:
    """The size of networks, the length of their training, and their views of a video."""

    backbone: str
    store: StoreSettings
    segments: int
    size: int
    """Side of a crop in pixels."""
    schedules: Mapping[str, Schedule]
    """Stage -> its schedule."""
    scales: Mapping[str, tuple[float, ...]]
    """Scales of random crops: "rgb" if only RGB images are loaded, otherwise "motion"."""
    crops: int
    """Number of views of a test video: 1, 3 or 10."""
    batch: int
    """Videos per step."""
    optimiser: str
    """"sgd" (momentum 0.9) or "adamw"."""
    weight_decay: float
    clip: Mapping[str, float]
    """Largest gradient norm of a step, for "rgb", "motion" and, if parts are clipped separately, "ttn"."""
    clip_apart: bool
    """Whether each stream with its head, and the part after the streams, are clipped separately."""
    dropout: Mapping[str, float]
    pretrained: bool
    """Whether spatial streams start from ImageNet weights."""
    stem: str
    """How a motion stream starts from the spatial stream. "averaged": its first convolution is the mean over RGB, with
    five times the learning rate (TSN). "by axis": each filter of this mean sees either x or y of the motion."""
    batch_norm: str
    """Batch norm of the streams that train: "trained", or "partial", which freezes all but the first layer (TSN)."""
    joint_batch_norm: str | None
    """Batch norm of the streams in the joint stage: a value of `batch_norm`, or "frozen". None: as in other stages."""
    joint_loss: str
    """Loss of the joint stage: "per head", a cross-entropy loss for each head; or "fused", one loss on the late-fused
    logits."""
    frozen_views: int | None
    """If streams are frozen, the pyramids of this number of views are computed once. None: new views every epoch."""
    workers: int
    """Processes that load batches."""
    peers: str | None
    """Size of peers (a name of PEER_SIZES). None: no size fits."""
    arrives: Mapping[str, float]
    """Stage -> training accuracy (0..1) that the last epoch usually reaches if the network has learnt all factors."""

    def batch_norm_in(self, stage: Stage) -> str:
        """Batch norm of the streams in a stage."""
        return (stage == JOINT and self.joint_batch_norm) or self.batch_norm

    def fitted(self, recipe: Recipe, videos: int) -> "Preset":
        """The preset for a recipe, which may have its own number of segments, and for this number of videos."""
        schedules = {**self.schedules, **OWN_SCHEDULES}
        schedules = {name: schedule.fitted(videos, self.batch) for name, schedule in schedules.items()}
        return replace(self, segments=recipe.segments or self.segments, schedules=schedules)

    def lasting(self, epochs: Mapping[str, int]) -> "Preset":
        """The preset with other numbers of epochs for some stages."""
        other = {name: each.lasting(epochs[name]) for name, each in self.schedules.items() if name in epochs}
        return replace(self, schedules={**self.schedules, **other})


class Choice(NamedTuple):
    """The value of a field of a preset, and why it was chosen."""

    value: Any
    why: str


PARENTS: Mapping[str, str] = {"small": "paper", "smallest": "tiny"}
"""Preset -> the preset that it takes its other choices from."""

_CHOICES: Mapping[str, Mapping[str, Choice]] = {
    "paper": {
        "backbone": Choice("resnet50", "paper 4.2"),
        "store": Choice(
            StoreSettings(width=340, height=256, bound=20.0),
            "TSN's 340 x 256 and bound of 20 px, with which published flow accuracies were reached",
        ),
        "segments": Choice(7, "paper 4.2: K = 7"),
        "size": Choice(224, "the size of the ImageNet weights"),
        "schedules": Choice(
            {
                "spatial": Schedule(80, 1e-3, decay_at=(30, 60)),
                "temporal": Schedule(250, 1e-3, decay_at=(100, 200)),
                "mv-temporal": Schedule(250, 1e-3, decay_at=(100, 200)),
                "ttn": Schedule(200, 1e-3, decay_at=(80, 160)),
                "mv-ttn": Schedule(200, 1e-3, decay_at=(80, 160)),
                "joint": Schedule(30, 1e-4, decay_at=(20,)),
                "two-stream-i3d": Schedule(80, 1e-2, decay_at=(30, 60)),
                "din": Schedule(80, 1e-2, decay_at=(30, 60)),
                "c3d": Schedule(16, 3e-3, decay_at=(4, 8, 12)),
                "emv-cnn": Schedule(250, 1e-2, decay_at=(100, 200)),
                "coviar": Schedule(250, 1e-2, decay_at=(100, 200)),
                "off": Schedule(80, 1e-2, decay_at=(30, 60)),
                "off-flow": Schedule(250, 1e-2, decay_at=(100, 200)),
                "tsm": Schedule(50, 1e-2, decay_at=(20, 40)),
                "tdn": Schedule(60, 1e-2, decay_at=(30, 45, 55)),
            },
            "paper 4.2; the paper does not describe the joint stage: we chose 30 epochs at a tenth of the rate, so "
            "that trained parts change little; motion vectors train like flow; C3D has its own schedule; the other "
            "peers start from random weights and have the rate of the two-stream network",
        ),
        "scales": Choice(
            {"rgb": (1.0, 0.875, 0.75, 0.66), "motion": (1.0, 0.875, 0.75)},
            "TSN: 0.66 only for RGB images, not for their differences; two modalities have the same crop",
        ),
        "crops": Choice(
            10,
            "TSN's corners and centre, mirrored; K stays 7, because TTN was not trained on snippets 0.3 s apart",
        ),
        "batch": Choice(64, "paper 4.2; gradients are accumulated if memory is short"),
        "optimiser": Choice(
            "sgd",
            "paper 4.2: SGD, momentum 0.9; head biases at twice the rate, an averaged first convolution at five times "
            "the rate (TSN)",
        ),
        "weight_decay": Choice(5e-4, "TSN; biases, batch norm and fusion weights have none"),
        "clip": Choice(
            {"rgb": 40.0, "motion": 20.0, "ttn": 40.0},
            "TSN: 40 for RGB, 20 for flow; TTN has the norm of RGB, because it starts from its weights",
        ),
        "clip_apart": Choice(
            True,
            "TSN clips the network of each modality separately; a common norm would shrink RGB's gradients with flow's",
        ),
        "dropout": Choice({"rgb": 0.8, "motion": 0.7, "ttn": 0.8}, "paper 4.2"),
        "pretrained": Choice(True, "paper 4.2: the spatial network starts from ImageNet"),
        "batch_norm": Choice(
            "partial",
            "TSN: all layers but the first of a stream keep ImageNet's statistics; TTN's layers train, because the "
            "copied statistics do not describe its signed differences",
        ),
        "joint_batch_norm": Choice("frozen", "TTN was trained on features with these statistics"),
        "joint_loss": Choice("per head", "paper 3.4 trains all parts jointly, and a test adds the scores of all heads"),
        "stem": Choice("averaged", "TSN"),
        "arrives": Choice({}, "unknown for a user's own data set"),
        "frozen_views": Choice(None, "new views every epoch, because the paper uses strong augmentation"),
        "workers": Choice(8, "8 processes decode for a GPU without nvJPEG; a machine with fewer cores starts fewer"),
        "peers": Choice("paper", "as in their papers"),
    },
    "tiny": {
        "backbone": Choice("tiny", "a ResNet of four blocks with half the width, which trains in minutes on two cores"),
        "store": Choice(
            StoreSettings(width=96, height=72, bound=5.0, flow="tvl1-fast"),
            "96 x 72 still shows the shapes of the embedded videos, and they move less than 5 px per frame",
        ),
        "segments": Choice(4, "4 snippets are enough for the order of an embedded action"),
        "size": Choice(64, "64 of 72 rows leaves room for the corners"),
        "schedules": Choice(
            {
                "spatial": Schedule(3, 2e-3, decay_at=None, least=129),
                "temporal": Schedule(2, 1e-3, decay_at=None, least=86),
                "mv-temporal": Schedule(2, 1e-3, decay_at=None),
                "ttn": Schedule(26, 5e-3, decay_at=None, least=1118),
                "mv-ttn": Schedule(6, 2e-3, decay_at=None),
                "joint": Schedule(1, 5e-4, decay_at=None),
                "two-stream-i3d": Schedule(3, 3e-3, decay_at=None),
                "din": Schedule(6, 1e-3, decay_at=None),
                "c3d": Schedule(2, 1e-3, decay_at=None),
                "emv-cnn": Schedule(3, 1e-3, decay_at=None),
                "coviar": Schedule(4, 3e-3, decay_at=None),
                "off": Schedule(4, 2e-3, decay_at=None),
                "off-flow": Schedule(4, 2e-3, decay_at=None),
                "tsm": Schedule(20, 3e-3, decay_at=None),
                "tdn": Schedule(12, 3e-3, decay_at=None),
            },
            "one cycle learns in few epochs; a small data set needs as many steps as a large one; TTN needs the most "
            "steps, because only TTN sees order; the temporal stage is short, because a longer one unlearns the "
            "difference of x and y, which TTN needs and which the temporal stream's labels do not need",
        ),
        "scales": Choice({"rgb": (1.0, 0.875), "motion": (1.0, 0.875)}, "smaller crops would cut shapes off"),
        "crops": Choice(3, "left, centre, right"),
        "batch": Choice(16, "enough steps in an epoch of 640 videos"),
        "optimiser": Choice("adamw", "AdamW needs no tuning from random weights"),
        "stem": Choice(
            "by axis",
            "the mean sees x + y, and the temporal stage needs no more; then TTN learnt the factor binding with some "
            "seeds only",
        ),
        "arrives": Choice(
            {"ttn": 0.75, "joint": 0.75},
            "with dropout, a TTN that has learnt all four factors reaches 0.82 or more, and one that lacks one 0.65",
        ),
        "weight_decay": Choice(0.02, "AdamW's weight decay is decoupled and therefore larger"),
        "clip": Choice({"rgb": 0.5, "motion": 0.5}, "most steps are clipped, so that no step outweighs the others"),
        "clip_apart": Choice(False, "one norm: AdamW does not depend on the scale of a part"),
        "dropout": Choice(
            {"rgb": 0.0, "motion": 0.0, "ttn": 0.2},
            "a narrow network that trains for minutes does not overfit; TTN trains longest and has a little dropout",
        ),
        "pretrained": Choice(False, "nothing to download"),
        "batch_norm": Choice("trained", "there are no ImageNet statistics to keep"),
        "joint_batch_norm": Choice(None, "the joint stage has one short epoch"),
        "joint_loss": Choice(
            "fused", "with a loss of its own, the head of a stream would have to know binding and order, too"
        ),
        "frozen_views": Choice(6, "6 views are computed once, because the streams are most of the work"),
        "workers": Choice(0, "the second core trains another recipe"),
        "peers": Choice("small", "narrow networks for images of 64 px, which train in a few minutes"),
    },
    "small": {
        "backbone": Choice("resnet18", "less than half of ResNet-50's work per pixel"),
        "store": Choice(
            StoreSettings(width=171, height=128, bound=10.0),
            "half of the paper's resolution, and so half of its bound",
        ),
        "size": Choice(112, "a quarter of the pixels"),
        "schedules": Choice(
            {
                "spatial": Schedule(20, 1e-3, decay_at=(7, 15)),
                "temporal": Schedule(62, 1e-3, decay_at=(25, 50)),
                "mv-temporal": Schedule(62, 1e-3, decay_at=(25, 50)),
                "ttn": Schedule(50, 1e-3, decay_at=(20, 40)),
                "mv-ttn": Schedule(50, 1e-3, decay_at=(20, 40)),
                "joint": Schedule(7, 1e-4, decay_at=(5,)),
            },
            "a quarter of the paper's epochs at its rates, which take hours on one consumer GPU",
        ),
        "crops": Choice(1, "only the centre, which takes a tenth of the time of a test"),
        "dropout": Choice({"rgb": 0.5, "motion": 0.5, "ttn": 0.5}, "dropout 0.8 would leave too few of 512 features"),
        "peers": Choice(None, "no peer has a size between the paper's and the small one"),
    },
    "smallest": {
        "backbone": Choice("smallest", "8 channels: it shows that everything runs, and says nothing about accuracy"),
        "store": Choice(
            StoreSettings(width=96, height=72, bound=5.0, flow="dis"), "DIS takes an eighth of TV-L1's time"
        ),
        "schedules": Choice(
            {
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
                "tsm": Schedule(1, 2e-3, decay_at=None),
                "tdn": Schedule(1, 2e-3, decay_at=None),
            },
            "one epoch",
        ),
        "crops": Choice(1, "the centre"),
        "frozen_views": Choice(1, "one view is enough for one epoch"),
        "arrives": Choice({}, "one epoch is too short"),
    },
}

CHOICES: Mapping[str, Mapping[str, Choice]] = {
    name: {**_CHOICES.get(PARENTS.get(name, ""), {}), **own} for name, own in _CHOICES.items()
}
"""Preset -> field -> its value and reason."""
PRESETS: dict[str, Preset] = {
    name: Preset(**{field: choice.value for field, choice in choices.items()}) for name, choices in CHOICES.items()
}


def own_choices(name: str) -> tuple[str, ...]:
    """The fields in which a preset differs from its parent."""
    return tuple(_CHOICES[name])
