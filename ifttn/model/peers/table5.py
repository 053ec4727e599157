"""The systems of Tables 5 and 7 in two sizes, and the inputs that each takes from a video.

Tests check sizes and costs. Only CoViAR's paper prints a figure to compare with (2.7 times cheaper per frame than
ResNet-152). For I3D, BN-Inception, CaffeNet, CNN-M-2048 and C3D's cost, the tests use figures that others print for the
releases. C3D's parameters, EMV-CNN and OFF are counted by hand from their layers. Where a paper does not give the
weights of late fusion or the number of segments, we chose them.

Shapes: N videos, K segments, V snippets of a video, C planes of a snippet, H x W pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ifttn.model.network import Network, NetworkSettings, Scorer
from ifttn.model.peers.c3d import c3d
from ifttn.model.peers.coviar import P_FRAMES, coviar
from ifttn.model.peers.dynamic_image import dynamic_image_network
from ifttn.model.peers.emv import emv_cnn
from ifttn.model.peers.i3d import I3D_FRAMES, two_stream_i3d
from ifttn.model.peers.off import OFF
from ifttn.model.peers.tdn import TDN_FRAMES, tdn
from ifttn.model.peers.tsm import tsm
from ifttn.model.peers.tsn import tsn
from ifttn.vocabulary import MODALITIES, IfttnError

PEER_SIZES = ("paper", "small")


@dataclass(frozen=True)
class Variant:
    """A network at one size, and its inputs."""

    network: Callable[[int], Scorer]
    """Number of actions -> the network with random weights. Its `forward` takes planes by modality."""
    segment: Mapping[str, tuple[int, int]]
    """Per modality, the number of snippets of one segment, and the number of planes of each snippet."""
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
    """A system of Table 5 or 7. A comment names its paper, and the figures that its size was compared with."""

    row: str
    """Label in the table."""
    paper: Variant
    """The network of the peer's paper."""
    small: Variant
    """The same code, small enough for the embedded data set."""
    frames: int = 1
    """Frames of the video in a segment, as the peer's paper counts them for its "frames per second"."""
    trained: bool = True
    """Whether the study trains it as a peer. If not, it is already a recipe of our network."""

    def at(self, size: str) -> Variant:
        """The network at a size. Raises IfttnError for a size that is not in PEER_SIZES."""
        if size not in PEER_SIZES:
            raise IfttnError(f"{self.row} has no size {size!r}: choose from {', '.join(PEER_SIZES)}")
        return self.paper if size == "paper" else self.small


def _segment(*modalities: str) -> dict[str, tuple[int, int]]:
    """One snippet of each modality."""
    return {MODALITIES[name].run_of or name: (1, MODALITIES[name].channels) for name in modalities}


def _tsn(row: str, *modalities: str) -> Peer:
    return Peer(
        row=row,
        # Wang et al., ECCV 2016; BN-Inception: 11 295 240 parameters with 1000 classes
        paper=Variant(lambda actions: tsn(actions, modalities), _segment(*modalities), 224),
        small=Variant(lambda actions: tsn(actions, modalities, width=16), _segment(*modalities), 64),
        trained=False,
    )


def _ours(row: str, motion: str) -> Peer:
    def variant(backbone: str, size: int) -> Variant:
        settings = ("rgb", motion), "attention", "ttn", backbone
        return Variant(lambda actions: Network(NetworkSettings(actions, *settings)), _segment("rgb", motion), size)

    return Peer(row, paper=variant("resnet50", 224), small=variant("tiny", 64), trained=False)


PEERS: Mapping[str, Peer] = {
    "two-stream-i3d": Peer(
        row="Two-Stream I3D [2]",
        # Carreira & Zisserman, CVPR 2017; OpenVINO's model card of the release: 12.69 M, 279 GFLOPs a stream
        paper=Variant(two_stream_i3d, {"rgb": (1, 3 * I3D_FRAMES), "flow": (1, 2 * I3D_FRAMES)}, 224),
        small=Variant(lambda actions: two_stream_i3d(actions, width=16), _segment("rgb8", "flow8"), 64),
        frames=I3D_FRAMES,
    ),
    "tsn-rgb-flow": _tsn("TSN (RGB + Optical flow) [27]", "rgb", "flow"),
    "din": Peer(
        row="DIN [1]",
        # Bilen et al., CVPR 2016; CaffeNet: 233 MB, 724 M multiply-adds (convnet-burden)
        paper=Variant(dynamic_image_network, _segment("rgb10"), 224),
        small=Variant(lambda actions: dynamic_image_network(actions, size=64, width=24), _segment("rgb10"), 64),
        frames=10,
    ),
    "c3d": Peer(
        row="C3D [20]",
        # Tran et al., ICCV 2015; 38.5 G multiply-adds (Zhu et al., FASTER), parameters by hand
        paper=Variant(c3d, _segment("rgb16"), 112),
        small=Variant(lambda actions: c3d(actions, size=64, width=8), _segment("rgb16"), 64),
        frames=16,
    ),
    "tsn-rgb": _tsn("TSN (RGB) [27]", "rgb"),
    "tsn-rgb-rgbdiff": _tsn("TSN (RGB + RGB Difference) [27]", "rgb", "rgbdiff"),
    "emv-cnn": Peer(
        row="RGB + EMV-CNN [32]",
        # Zhang et al., CVPR 2016; CNN-M-2048: 353 MB, 2 G multiply-adds (convnet-burden)
        paper=Variant(emv_cnn, _segment("rgb", "mv10"), 224),
        small=Variant(lambda actions: emv_cnn(actions, size=64, width=24), _segment("rgb", "mv10"), 64),
    ),
    "coviar": Peer(
        row="CoViAR [29]",
        # Wu et al., CVPR 2018; 2.7 times cheaper per frame than ResNet-152
        paper=Variant(coviar, {"rgb": (1, 3), "accumulated": (P_FRAMES, 2), "residual": (P_FRAMES, 3)}, 224),
        small=Variant(
            lambda actions: coviar(actions, "tiny", "smallest"), _segment("rgb", "accumulated", "residual"), 64
        ),
        frames=1 + P_FRAMES,
    ),
    "off": Peer(
        row="OFF [19]",
        # Sun et al., CVPR 2018; no size given, counted by hand from the release
        paper=Variant(OFF, _segment("rgb", "rgbdiff"), 224),
        small=Variant(lambda actions: OFF(actions, width=16), _segment("rgb", "rgbdiff"), 64),
    ),
    "mv-if-ttn": _ours("MV-IF-TTN", "mv"),
}
"""In the order of the table."""

ON_FLOW = _ours("IF-TTN (RGB + Optical flow)", "flow")
"""MV-IF-TTN with optical flow in place of motion vectors. The paper's claim about speed compares the two."""
OFF_FLOW = Peer(
    row="OFF (Optical flow)",
    # Sun et al., CVPR 2018: the additional stream on flow of full OFF; no row of Table 5
    paper=Variant(lambda actions: OFF(actions, ("flow",)), _segment("flow"), 224),
    small=Variant(lambda actions: OFF(actions, ("flow",), width=16), _segment("flow"), 64),
)
LATER: Mapping[str, Peer] = {
    "tsm": Peer(
        row="TSM",
        # Lin et al., ICCV 2019; the parameters and the cost of ResNet-50
        paper=Variant(tsm, _segment("rgb"), 224),
        small=Variant(lambda actions: tsm(actions, "tiny"), _segment("rgb"), 64),
    ),
    "tdn": Peer(
        row="TDN",
        # Wang et al., CVPR 2021; 36 G multiply-adds of eight snippets, parameters counted from the release
        paper=Variant(tdn, _segment("rgb5"), 224),
        small=Variant(lambda actions: tdn(actions, "tiny"), _segment("rgb5"), 64),
        frames=TDN_FRAMES,
    ),
}
"""Systems that were published after the paper. They are in Table 7, which the paper does not have."""
TRAINED: Mapping[str, Peer] = {
    **{name: peer for name, peer in PEERS.items() if peer.trained},
    "off-flow": OFF_FLOW,
    **LATER,
}
"""Peers that the study trains."""
OWN: dict[str, Variant] = {}
"""The user's networks that were loaded in this process, by "<file>:<name>"."""
