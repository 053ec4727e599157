import copy

import torch

from ifttn.experiment.networks import network_settings
from ifttn.experiment.optimisation import freeze_all_but, stage_loss
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import JOINT, RECIPES
from ifttn.experiment.recomputing import recompute
from ifttn.model.network import Network


def test_recomputed_blocks_have_the_same_gradients_and_move_their_statistics_once():
    torch.manual_seed(0)
    plain = Network(network_settings(RECIPES["if-ttn"], PRESETS["smallest"], 4))
    saving = copy.deepcopy(plain)
    recompute(saving)
    inputs = {"rgb": torch.rand(2, 4, 3, 64, 64) * 255, "flow": torch.rand(2, 4, 10, 64, 64) * 255}
    for network in (plain, saving):
        freeze_all_but(network, JOINT.trains, "trained")
        torch.manual_seed(1)  # dropout
        stage_loss(JOINT, network(inputs), torch.tensor([0, 3]))[0].backward()
    for (name, one), (_, other) in zip(plain.named_parameters(), saving.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=name)
    for (name, one), (_, other) in zip(plain.named_buffers(), saving.named_buffers(), strict=True):
        torch.testing.assert_close(one, other, msg=name)
    assert list(plain.state_dict()) == list(saving.state_dict())
