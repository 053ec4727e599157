import tomllib
from importlib.resources import files

import pytest
import torch
from torch.nn.functional import cross_entropy

from ifttn.model.peers.table5 import PEERS, TRAINED


def test_the_peers_are_the_rows_of_the_table_in_its_order():
    tables = tomllib.loads(files("ifttn.experiment").joinpath("tables.toml").read_text())["tables"]
    assert [peer.row for peer in PEERS.values()] == [row["method"] for row in tables[4]["rows"]]


@pytest.mark.parametrize("name", {**PEERS, **TRAINED})
def test_every_peer_takes_what_it_asks_for_and_votes_with_every_head(name):
    variant = {**PEERS, **TRAINED}[name].paper
    with torch.device("meta"), torch.no_grad():
        net = variant.network(101).eval()
        output = net({m: torch.empty(s, dtype=torch.uint8) for m, s in variant.inputs(videos=1, segments=2).items()})
    assert set(output.logits) == set(net.scoring)
    assert all(logits.shape == (1, 101) for logits in output.logits.values())


@pytest.mark.parametrize("name", TRAINED)
def test_a_peer_of_the_embedded_set_learns_a_batch_by_heart(name):
    torch.manual_seed(0)
    variant = TRAINED[name].small
    net, labels = variant.network(4), torch.tensor([0, 3])
    for module in net.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # only the loss is of interest
    inputs = {m: torch.randint(0, 256, s, dtype=torch.uint8) for m, s in variant.inputs(videos=2, segments=2).items()}
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = sum(cross_entropy(logits, labels) for logits in net(inputs).logits.values())
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.8 * losses[0]


def test_variants_for_the_embedded_set_are_small():
    for peer in TRAINED.values():
        with torch.device("meta"):
            assert sum(p.numel() for p in peer.small.network(16).parameters()) < 5e6
