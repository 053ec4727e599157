import pytest
import torch
from torch import nn

from ifttn.model.folding import folded
from ifttn.model.network import Network, NetworkSettings
from ifttn.model.peers.coviar import coviar
from ifttn.model.peers.i3d import I3D
from ifttn.model.peers.off import OFF
from ifttn.model.peers.streams import Streams
from ifttn.model.peers.tsn import tsn
from ifttn.vocabulary import MODALITIES

NETWORKS = {
    "complete": lambda: Network(NetworkSettings(5, ("rgb", "mv"), backbone="smallest")),
    "separate": lambda: Network(NetworkSettings(5, fusion="separate", backbone="smallest")),
    "bottlenecks": lambda: Network(NetworkSettings(5, ("rgb",), fusion=None, backbone="resnet50")),
    "tsn": lambda: tsn(5, ("rgb", "rgbdiff"), width=8),
    "off": lambda: OFF(5, width=8),
    "coviar": lambda: coviar(5, "smallest", "smallest"),
    "i3d": lambda: Streams({"rgb": I3D(3, 5)}),
}


def inputs_of(name, network):
    channels = {m: MODALITIES[m].channels for m in network.streams}
    if name == "i3d":
        channels = {"rgb": 3 * 8}
    generator = torch.Generator().manual_seed(1)
    return {m: torch.randint(0, 256, (1, 2, c, 64, 64), generator=generator).byte() for m, c in channels.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_answers_as_it_did_with_fewer_passes(name):
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):  # statistics of no data would fold to next to nothing
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    inputs, quick = inputs_of(name, network), folded(network)
    with torch.inference_mode():
        expected, found = network(inputs), quick(inputs)
    for head, votes in expected.votes.items():
        torch.testing.assert_close(found.votes[head], votes, rtol=1e-3, atol=float(1e-3 * votes.abs().max()))
    left = [part for part in quick.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert len(left) == (2 if name == "coviar" else 0)  # those of its inputs, which no convolution comes before
    assert any(isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d) for part in network.modules())
