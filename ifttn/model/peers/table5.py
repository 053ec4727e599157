"""The ten rows of Table 5, each as something to build, feed and time.

Sizes and costs are tested. Of the papers, CoViAR's alone prints a figure that a network can be held to (2.7 times
cheaper a frame than ResNet-152). I3D, BN-Inception, CaffeNet, CNN-M-2048 and C3D's cost are held to what others print
of the releases or count of them; C3D's parameters, EMV-CNN and OFF are counted by hand from their layers. What nobody
prints is our reading: how a row's late fusion weighs its streams, and how many segments it takes of a video.

Shapes: N videos, K segments, V snippets of a video, C planes of a snippet, H x W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from ifttn.model.network import Network, NetworkSettings
from ifttn.model.peers import c3d, coviar, dynamic_image, emv, i3d
from ifttn.model.peers.off import OFF
from ifttn.model.peers.tsn import tsn
from ifttn.vocabulary import MODALITIES, IfttnError

SIZES = ("paper", "small")


@dataclass(frozen=True)
class Setup:
    """A network at one size, and what it is fed."""

    network: Callable[[int], nn.Module]
    """Actions -> the network, weights drawn at random. Its `forward` takes planes by modality and returns `Output`."""
    segment: Mapping[str, tuple[int, int]]
    """Per modality, what one segment of a video gives: how many snippets, and of how many planes each."""
    size: int
    """Side of an image in pixels."""

    def inputs(self, videos: int, segments: int) -> dict[str, tuple[int, int, int, int, int]]:
        """Per modality, the shape (N, V, C, H, W) of the bytes that `forward` takes."""
        return {
            modality: (videos, segments * snippets, planes, self.size, self.size)
            for modality, (snippets, planes) in self.segment.items()
        }


@dataclass(frozen=True)
class Peer:
    """A row of Table 5."""

    row: str
    """Its label in the table."""
    reference: str
    """Where the network comes from, and what its size was checked against."""
    setup: Setup
    """As its paper has it."""
    frames: int = 1
    """Frames of the video that a segment covers, where the peer's own "frames per second" counts them."""
    embedded: Setup | None = None
    """By the same code, small enough to train on the embedded set in minutes; None: a row of the study already."""
    small: Setup | None = None
    """For a quick look at its speed, where `embedded` is None."""

    def at(self, size: str) -> Setup:
        """The network at a size of SIZES; IfttnError on another name."""
        found = {"paper": self.setup, "small": self.embedded or self.small}.get(size)
        if found is None:
            raise IfttnError(f"no size {size!r} of {self.row}: choose from {', '.join(SIZES)}")
        return found


def _one(*modalities: str) -> dict[str, tuple[int, int]]:
    return {modality: (1, MODALITIES[modality].channels) for modality in modalities}


def _ours(motion: str, backbone: str, size: int) -> Setup:
    def build(actions: int) -> nn.Module:
        return Network(NetworkSettings(actions, modalities=("rgb", motion), backbone=backbone))

    return Setup(build, _one("rgb", motion), size)


PEERS: Mapping[str, Peer] = {
    "two-stream-i3d": Peer(
        row="Two-Stream I3D [2]",
        reference="Carreira & Zisserman, CVPR 2017; OpenVINO's model card of the release: 12.69 M, 279 GFLOPs a stream",
        setup=Setup(i3d.two_stream_i3d, {"rgb": (1, 3 * i3d.FRAMES), "flow": (1, 2 * i3d.FRAMES)}, 224),
        frames=i3d.FRAMES,
        embedded=Setup(
            lambda actions: i3d.two_stream_i3d(actions, width=16), {"rgb": (1, 3 * 8), "flow": (1, 2 * 8)}, 64
        ),
    ),
    "tsn-rgb-flow": Peer(
        row="TSN (RGB + Optical flow) [27]",
        reference="Wang et al., ECCV 2016; BN-Inception: 11 295 240 parameters with 1000 classes",
        setup=Setup(lambda actions: tsn(actions, ("rgb", "flow")), _one("rgb", "flow"), 224),
        small=Setup(lambda actions: tsn(actions, ("rgb", "flow"), width=16), _one("rgb", "flow"), 64),
    ),
    "din": Peer(
        row="DIN [1]",
        reference="Bilen et al., CVPR 2016; CaffeNet: 233 MB, 724 M multiply-adds (convnet-burden)",
        setup=Setup(dynamic_image.dynamic_image_network, {"rgb": (1, 3 * dynamic_image.FRAMES)}, 224),
        frames=dynamic_image.FRAMES,
        embedded=Setup(
            lambda actions: dynamic_image.dynamic_image_network(actions, size=64, width=24),
            {"rgb": (1, 3 * dynamic_image.FRAMES)},
            64,
        ),
    ),
    "c3d": Peer(
        row="C3D [20]",
        reference="Tran et al., ICCV 2015; 38.5 G multiply-adds (Zhu et al., FASTER), parameters by hand",
        setup=Setup(c3d.c3d, {"rgb": (1, 3 * c3d.FRAMES)}, 112),
        frames=c3d.FRAMES,
        embedded=Setup(lambda actions: c3d.c3d(actions, size=64, width=8), {"rgb": (1, 3 * c3d.FRAMES)}, 64),
    ),
    "tsn-rgb": Peer(
        row="TSN (RGB) [27]",
        reference="Wang et al., ECCV 2016; BN-Inception: 11 295 240 parameters with 1000 classes",
        setup=Setup(lambda actions: tsn(actions, ("rgb",)), _one("rgb"), 224),
        small=Setup(lambda actions: tsn(actions, ("rgb",), width=16), _one("rgb"), 64),
    ),
    "tsn-rgb-rgbdiff": Peer(
        row="TSN (RGB + RGB Difference) [27]",
        reference="Wang et al., ECCV 2016; BN-Inception: 11 295 240 parameters with 1000 classes",
        setup=Setup(lambda actions: tsn(actions, ("rgb", "rgbdiff")), _one("rgb", "rgbdiff"), 224),
        small=Setup(lambda actions: tsn(actions, ("rgb", "rgbdiff"), width=16), _one("rgb", "rgbdiff"), 64),
    ),
    "emv-cnn": Peer(
        row="RGB + EMV-CNN [32]",
        reference="Zhang et al., CVPR 2016; CNN-M-2048: 353 MB, 2 G multiply-adds (convnet-burden)",
        setup=Setup(emv.emv_cnn, {"rgb": (1, 3), "mv": (1, 2 * emv.FIELDS)}, 224),
        embedded=Setup(
            lambda actions: emv.emv_cnn(actions, size=64, width=24),
            {"rgb": (1, 3), "mv": (1, 2 * emv.FIELDS)},
            64,
        ),
    ),
    "coviar": Peer(
        row="CoViAR [29]",
        reference="Wu et al., CVPR 2018; 2.7 times cheaper a frame than ResNet-152",
        setup=Setup(
            coviar.coviar,
            {"rgb": (1, 3), "accumulated": (coviar.P_FRAMES, 2), "residual": (coviar.P_FRAMES, 3)},
            224,
        ),
        frames=1 + coviar.P_FRAMES,
        embedded=Setup(
            lambda actions: coviar.coviar(actions, "tiny", "smallest"),
            {"rgb": (1, 3), "accumulated": (1, 2), "residual": (1, 3)},
            64,
        ),
    ),
    "off": Peer(
        row="OFF [19]",
        reference="Sun et al., CVPR 2018; no size given, counted by hand from the release",
        setup=Setup(OFF, _one("rgb", "rgbdiff"), 224),
        embedded=Setup(lambda actions: OFF(actions, width=16), _one("rgb", "rgbdiff"), 64),
    ),
    "mv-if-ttn": Peer(
        row="MV-IF-TTN",
        reference="ours: the network of the study's recipe mv-if-ttn",
        setup=_ours("mv", "resnet50", 224),
        small=_ours("mv", "tiny", 64),
    ),
}
"""In the order of the table."""

ON_FLOW = Peer(
    row="IF-TTN (RGB + Optical flow)",
    reference="ours: the network of the study's recipe if-ttn; no row of Table 5",
    setup=_ours("flow", "resnet50", 224),
    small=_ours("flow", "tiny", 64),
)
"""What MV-IF-TTN is but for its motion: the two side by side are the paper's claim about speed."""
OFF_FLOW = Peer(
    row="OFF (Optical flow)",
    reference="Sun et al., CVPR 2018: the stream that full OFF has beside those of OFF; no row of Table 5",
    setup=Setup(lambda actions: OFF(actions, ("flow",)), _one("flow"), 224),
    embedded=Setup(lambda actions: OFF(actions, ("flow",), width=16), _one("flow"), 64),
)
TRAINED: Mapping[str, Peer] = {**{name: peer for name, peer in PEERS.items() if peer.embedded}, "off-flow": OFF_FLOW}
"""Those that the study trains."""
