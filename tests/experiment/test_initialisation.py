import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from ifttn.experiment import initialisation, training
from ifttn.experiment.initialisation import from_imagenet, load
from ifttn.experiment.networks import network_settings
from ifttn.experiment.presets import PRESETS
from ifttn.experiment.recipes import RECIPES
from ifttn.model import backbone
from ifttn.model.network import Network
from ifttn.model.peers.c3d import c3d
from ifttn.model.peers.tdn import tdn
from ifttn.model.peers.tsm import tsm
from ifttn.vocabulary import IfttnError


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return resnet18(weights=None).state_dict()


@pytest.fixture(scope="module")
def spatial():
    return Network(network_settings(RECIPES["spatial"], PRESETS["small"], 5))


def test_imagenet_weights_come_from_a_local_file_and_are_named(theirs, spatial, tmp_path):
    path = tmp_path / "mine.pth"
    torch.save(theirs, path)
    loaded = from_imagenet(spatial, "resnet18", path)
    for key, tensor in spatial.streams["rgb"].state_dict().items():
        assert torch.equal(tensor, theirs[key]), key
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    assert loaded.left == ("fc.weight", "fc.bias")
    text = str(loaded)
    assert f"mine.pth (sha256 {digest}, not torchvision's ResNet18_Weights.IMAGENET1K_V1)" in text
    assert "all its 120 tensors taken; left: fc (2 tensors)" in text
    save_file(theirs, tmp_path / "mine.safetensors")
    assert from_imagenet(spatial, "resnet18", tmp_path / "mine.safetensors").taken == 120


def test_backbones_of_peers_that_came_later_take_imagenets_weights_and_their_own_parts_do_not(theirs, tmp_path):
    torch.save(theirs, tmp_path / "mine.pth")
    network = tdn(5, "resnet18")
    long = {key: tensor.clone() for key, tensor in network.get_submodule("streams.rgb.long").state_dict().items()}
    found = {part: from_imagenet(network, "resnet18", tmp_path / "mine.pth", part) for part in network.pretrained}
    for part, loaded in found.items():
        state = network.get_submodule(part).state_dict()
        assert loaded.taken == len(state)
        for key, tensor in state.items():
            mean = theirs[key].mean(1, keepdim=True) if loaded.averaged and key == "conv1.weight" else theirs[key]
            torch.testing.assert_close(tensor, mean.expand_as(tensor))
    assert [len(loaded.left) for loaded in found.values()] == [2, 2 + 90]  # TDN's short-term path ends at level 2
    kept = network.get_submodule("streams.rgb.long").state_dict()
    assert all(torch.equal(long[key], tensor) for key, tensor in kept.items())
    assert tsm(5, "resnet18").pretrained == ("streams.rgb.backbone",)
    assert c3d(5, 64, 8).pretrained == ()


def test_a_file_that_is_not_what_its_name_says_is_refused(theirs, spatial, tmp_path):
    path = tmp_path / "resnet18-f37072fd.pth"  # torchvision's name, and not its content
    torch.save(theirs, path)
    with pytest.raises(IfttnError, match="is damaged: its sha256 begins with"):
        from_imagenet(spatial, "resnet18", path)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(IfttnError, match="no table of weights"):
        from_imagenet(spatial, "resnet18", tmp_path / "list.pth")
    with pytest.raises(IfttnError, match="No such file"):
        from_imagenet(spatial, "resnet18", tmp_path / "none.pth")
    with pytest.raises(IfttnError, match="no ImageNet weights for the backbone 'tiny'"):
        backbone.imagenet_weights("tiny")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_anything_else_is_named_in_one_line(theirs, tmp_path, suffix):
    torch.save(theirs, tmp_path / "whole.pth")
    cut = (tmp_path / "whole.pth").read_bytes()[:100_000]
    anything = [b"", b"no weights", b"<html>404 Not Found</html>\n", cut, b"a" * 257 + b"ustar" + bytes(1000)]
    path = tmp_path / f"weights.{suffix}"
    for content in (*anything, *(bytes([first]) + b".abc\n" for first in range(256))):  # each a command of pickle
        path.write_bytes(content)
        with pytest.raises(IfttnError, match=r"weights\.\w+ holds no readable weights: it must hold") as raised:
            backbone.local_weights(path, "resnet18")
        assert "\n" not in str(raised.value)


def test_a_date_in_a_name_is_no_hash(theirs, spatial, tmp_path):
    torch.save(theirs, tmp_path / "resnet18-20261126.pth")
    assert from_imagenet(spatial, "resnet18", tmp_path / "resnet18-20261126.pth").taken == 120


def test_torchvisions_own_weights_are_asked_for_by_their_enum(theirs, spatial, monkeypatch):
    asked = []

    def state(self, **options):
        asked.append((str(self), options["check_hash"]))
        return theirs

    weights = type(backbone._torchvisions("resnet18"))
    monkeypatch.setattr(weights, "get_state_dict", state)
    from_imagenet(spatial, "resnet18", None)
    assert asked == [("ResNet18_Weights.IMAGENET1K_V1", True)]

    def unreachable(self, **_):
        raise OSError("no route to host")

    monkeypatch.setattr(weights, "get_state_dict", unreachable)
    with pytest.raises(IfttnError, match=r"cannot be downloaded \(no route to host\): get https://.*resnet18.*--image"):
        from_imagenet(spatial, "resnet18", None)


def test_a_mismatch_is_refused_before_anything_is_loaded(theirs, spatial):
    stream = spatial.streams["rgb"]
    before = {key: tensor.clone() for key, tensor in stream.state_dict().items()}

    def refused(weights, match):
        with pytest.raises(IfttnError, match=match):
            load(stream, weights, name="streams.rgb", source="a file", leaves=("fc.",))
        assert all(torch.equal(tensor, before[key]) for key, tensor in stream.state_dict().items())

    refused({k: v for k, v in theirs.items() if k != "bn1.bias"}, r"which lacks bn1.bias \(1 of 120 tensors\)")
    refused({**theirs, "bn1.bias": torch.zeros(3)}, "has in other shapes bn1.bias")
    refused({**theirs, "conv1.weight": torch.zeros(3)}, "has in other shapes conv1.weight")
    refused({**theirs, "layer5.weight": torch.zeros(3)}, "also has layer5.weight")
    refused({f"module.{k}": v for k, v in theirs.items()}, r"which lacks conv1.weight, bn1.weight, bn1.bias \.\.\.")


def test_old_files_that_count_no_batches_are_taken(theirs, spatial):
    old = {key: tensor for key, tensor in theirs.items() if not key.endswith("num_batches_tracked")}
    assert load(spatial.streams["rgb"], old, name="s", source="f", leaves=("fc.",)).taken == 120


def test_ttn_takes_levels_3_to_5_of_the_spatial_stream_and_says_so(embedded, tmp_path):
    work = embedded.work(tmp_path)
    for recipe in ("spatial", "temporal"):
        training.train(work, recipe)
    network = Network(network_settings(RECIPES["if-ttn"], PRESETS["smallest"], 16))
    loaded = {each.part: each for each in training.initialise(network, work, "if-ttn")}
    ttn = loaded["temporal.ttn"]
    assert ttn.source == "streams.rgb of spatial"
    assert {key.split(".")[0] for key in ttn.left} == {"conv1", "bn1", "layer1"}
    assert not loaded["streams.flow"].left
    stem = json.loads((work.run("temporal").folder / "loaded.json").read_text())[0]
    assert stem["averaged"]
    assert "the first convolution as its channels' mean" in str(
        initialisation.Loaded(**{**stem, "left": tuple(stem["left"])})
    )
