"""A network of one's own, from the file of docs/extending.md to its row of a table."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.video import mvit_v2_s
from torchvision.models.video.mvit import MSBlockConfig, MViT

from ifttn import cli
from ifttn.data.samples import SnippetDataset
from ifttn.experiment import evaluation, results
from ifttn.experiment.own import OwnNetwork, recipe_of
from ifttn.experiment.presets import OWN_SCHEDULES, Schedule
from ifttn.experiment.processes import Machine
from ifttn.experiment.recipes import RECIPES
from ifttn.experiment.runs import Run
from ifttn.experiment.scores import READINGS
from ifttn.model.peers.own import VideoNetwork
from ifttn.model.peers.table5 import OWN
from ifttn.model.peers.trained import PeerSettings, build_network
from ifttn.vocabulary import IfttnError

EXAMPLE, MAPS, _ = re.findall(
    r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "extending.md").read_text(), re.DOTALL
)


@pytest.fixture(autouse=True)
def nothing_stays(monkeypatch):
    """What a test registers goes when it ends, and so does the folder of its file."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    for table in (RECIPES, OWN, OWN_SCHEDULES):
        monkeypatch.setitem(table, "-", None)
        monkeypatch.delitem(table, "-")
    before = [(table, {*table}) for table in (RECIPES, OWN, OWN_SCHEDULES)]
    yield
    for table, names in before:
        for name in {*table} - names:
            del table[name]


class Pooled(nn.Module):
    """A convolution over space and time, pooling, a linear layer."""

    def __init__(self, actions: int, pool: type[nn.Module] = nn.AdaptiveAvgPool3d) -> None:
        super().__init__()
        self.conv, self.pool, self.fc = nn.Conv3d(3, 4, 3, stride=2), pool(1), nn.Linear(4, actions)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        return self.fc(self.pool(self.conv(video)).flatten(1))


def test_the_file_of_the_docs_trains_is_tested_and_gets_a_row_and_maps(embedded, tmp_path, monkeypatch, capsys):
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 15
    text = EXAMPLE.replace("frames=8", "frames=2").replace("epochs=20", "epochs=1")
    file, (results_folder, runs) = tmp_path / "my_networks.py", (tmp_path / "results", tmp_path / "results" / "runs")
    file.write_text(text)
    results_folder.mkdir()
    (results_folder / "data").symlink_to(embedded.data.parent)
    (results_folder / "stores").mkdir()
    (results_folder / "stores" / "embedded-ucf-tiny").symlink_to(embedded.store)
    monkeypatch.chdir(tmp_path)
    options = ["--preset", "smallest", "--store", str(embedded.store), "--device", "cpu"]
    for verb in ("train", "test"):
        assert cli.main([verb, "my_networks.py:r2plus1d", *options]) == 0
    run = Run.of(runs, "embedded-ucf", 1, "r2plus1d")
    assert run.metrics().epoch.tolist() == [0]
    readings = run.scores().readings
    assert set(readings) == set(READINGS)
    assert (readings["one view"]["rgb"] != readings["reversed"]["rgb"]).any()  # two frames have one wrong order

    found = {cell.method: cell.accuracy for cell in results.Results(runs, embedded.data.parent).tables()[-1].measured}
    assert set(found) == {"r2plus1d"}
    assert set(found["r2plus1d"].factors) == {"scene", "speed", "binding", "order"}

    names: dict = {}
    exec(compile(MAPS.replace("segments=8", "segments=2"), "extending.md", "exec"), names)
    assert names["maps"].shape[:3] == (1, 1, 1)

    del OWN["my_networks:r2plus1d"]  # as in another process, where nobody named the file
    file.write_text("raise SystemExit('imported')")
    capsys.readouterr()
    (video, *_) = embedded.data.rglob("*.avi")
    assert cli.main(["predict", str(video), "--run", str(run.folder), "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert "my_networks.py, which is imported only if you name it" in error
    assert "imported'" not in error


def test_a_transformer_of_small_size_takes_the_size_that_it_says(monkeypatch):
    blocks = [MSBlockConfig(1, 8, 8, (3, 3, 3), (3, 3, 3), (1, 1, 1), (1, 2, 2))] * 2

    def small(actions: int) -> MViT:
        return MViT((32, 32), 4, blocks, residual_pool=True, residual_with_cls_embed=False, rel_pos_embed=True,
                    proj_after_attn=True, num_classes=actions)  # fmt: skip

    OwnNetwork(small, frames=4, schedule=Schedule(1, 1e-3), size=32).register("mvit", "mine:mvit")
    network = build_network(PeerSettings(5, ("rgb",), None, peer="mine:mvit"))
    video = torch.randint(0, 256, (2, 4, 3, 64, 64), dtype=torch.uint8)
    logits = network({"rgb": video}).logits["rgb"]
    assert logits.shape == (2, 5)
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    with pytest.raises(IfttnError, match="has no exact maps"):
        network.activation_maps(video, torch.zeros(2, 1, dtype=torch.long))


def test_torchvisions_transformer_takes_sixteen_frames_of_224_pixels():
    with torch.device("meta"), torch.no_grad():
        network = VideoNetwork(mvit_v2_s(num_classes=5)).eval()
        assert network({"rgb": torch.empty(1, 16, 3, 224, 224)}).logits["rgb"].shape == (1, 5)


def test_the_mean_of_a_map_and_the_bias_are_the_logit_or_there_is_no_map():
    torch.manual_seed(0)
    video, actions = torch.randint(0, 256, (2, 5, 3, 16, 16), dtype=torch.uint8), torch.tensor([[0, 3], [2, 2]])
    network = VideoNetwork(Pooled(4), "conv", "fc").train()
    maps = network.activation_maps(video, actions)
    assert maps.shape == (2, 2, 2, 7, 7)
    logits = network.eval()({"rgb": video}).logits["rgb"].gather(1, actions)
    bias = network.get_parameter("streams.rgb.module.fc.bias")[actions]
    torch.testing.assert_close(maps.mean((1, 3, 4)) + bias, logits)
    with pytest.raises(IfttnError, match="fc does not read the average of conv"):
        VideoNetwork(Pooled(4, nn.AdaptiveMaxPool3d), "conv", "fc").activation_maps(video, actions)
    with pytest.raises(IfttnError, match="no part 'layer4': it has conv, pool, fc"):
        VideoNetwork(Pooled(4), "layer4", "fc")


def test_weights_and_dropout_are_those_that_the_module_is_made_with():
    def made(actions: int) -> nn.Module:
        torch.manual_seed(3)
        return nn.Sequential(Pooled(actions), nn.Dropout(0.4))

    OwnNetwork(made, frames=4, schedule=Schedule(1, 1e-3)).register("mine", "file:mine")
    network = build_network(PeerSettings(5, ("rgb",), None, peer="file:mine"))
    for name, tensor in made(5).state_dict().items():
        assert torch.equal(network.state_dict()[f"streams.rgb.module.{name}"], tensor)
    assert [m.p for m in network.modules() if isinstance(m, nn.Dropout)] == [0.4]


def test_its_batch_normalisation_is_not_folded_as_its_order_is_not_known(embedded, monkeypatch):
    monkeypatch.setattr(evaluation, "folded", lambda *_: pytest.fail("folded"))
    OwnNetwork(Pooled, frames=4, schedule=Schedule(1, 1e-3)).register("mine", "file:mine")
    network, work = build_network(PeerSettings(16, ("rgb",), None, peer="file:mine")), embedded.work(embedded.store)
    dataset = SnippetDataset(work.store, work.split.test[:2], ("rgb",), segments=4, size=64, crops=1)
    scores = evaluation.evaluate(network, dataset, work.split.actions, batch=2, machine=Machine(precision="bf16"))
    assert scores.heads["rgb"].shape == (2, 16)


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        ("1 / 0", "net", r"cannot be imported: ZeroDivisionError: division by zero"),
        ("net = 3", "net", r"has no network 'net' \(`net = OwnNetwork\(\.\.\.\)`\); it has none"),
        (
            "spatial = OwnNetwork(print, 2, Schedule(1, 1e-3))",
            "spatial",
            "file:spatial cannot be a recipe of the name spatial",
        ),
        (
            "import beside\nnet = OwnNetwork(print, 2, Schedule(1, 1e-3))",
            "other",
            r"has no network 'other'.*; it has net",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path, text, name, complaint):
    head = "from ifttn.experiment.own import OwnNetwork\nfrom ifttn.experiment.presets import Schedule\n"
    (tmp_path / "file.py").write_text(head + text)
    (tmp_path / "beside.py").write_text("")
    with pytest.raises(IfttnError, match=complaint):
        recipe_of(f"{tmp_path / 'file.py'}:{name}")
