import torch
from torch import nn

from ifttn.model.network import normalise
from ifttn.model.peers.streams import Streams, output_size, volume


def test_no_motion_and_no_residual_are_zero():
    for name, planes in [("mv", 20), ("flow", 128), ("accumulated", 2), ("residual", 3)]:
        assert (normalise(torch.full((1, planes, 4, 4), 128, dtype=torch.uint8), name) == 0).all()


def test_stacked_planes_become_images_in_their_order():
    planes = torch.arange(12.0).view(1, 12, 1, 1)
    assert volume(planes, channels=3)[0, :, 2].flatten().tolist() == [6.0, 7.0, 8.0]


def test_counting_the_outputs_leaves_the_layers_where_they_are():
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Flatten())
    assert output_size(features, (3, 10, 10)) == 4 * 4 * 4
    assert features(torch.zeros(1, 3, 10, 10)).shape == (1, 64)


def test_a_head_is_the_mean_of_its_streams_votes():
    streams = Streams(
        {"rgb": nn.Sequential(nn.Flatten(), nn.Linear(3 * 4, 5)), "mv": nn.Sequential(nn.Flatten(), nn.Linear(8, 5))}
    )
    inputs = {"rgb": torch.rand(2, 3, 3, 2, 2) * 255, "mv": torch.rand(2, 7, 2, 2, 2) * 255}
    output = streams(inputs)
    assert streams.head_names == ("rgb", "mv")
    assert output.votes["rgb"].shape == (2, 3, 5)
    assert output.votes["mv"].shape == (2, 7, 5)
    torch.testing.assert_close(output.logits["mv"], output.votes["mv"].mean(1))
    alone = streams({m: x[1:] for m, x in inputs.items()})
    torch.testing.assert_close(alone.logits["rgb"], output.logits["rgb"][1:])
