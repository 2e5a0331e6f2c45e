import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from sa_upscale.errors import UpscaleError
from sa_upscale.functional import vgg

TORCHVISION = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]


def weights(layers=3, channels=4):
    """The first layers of a VGG19 too narrow to take time, random."""
    generator, before, state = torch.Generator().manual_seed(1), 3, {}
    for index in TORCHVISION[:layers]:
        state[f"features.{index}.weight"] = torch.randn(channels, before, 3, 3, generator=generator) / 3
        state[f"features.{index}.bias"] = torch.randn(channels, generator=generator) / 3
        before = channels
    return state


def conv(x, state, index):
    return F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1)


def test_layers_stand_where_torchvision_has_them():
    assert list(vgg.LAYERS.values()) == TORCHVISION
    assert vgg.LAYERS["conv1_1"] == 0
    assert vgg.LAYERS["conv2_2"] == 7
    assert vgg.LAYERS["conv3_4"] == 16
    assert vgg.LAYERS["conv5_4"] == 34


def test_features_are_taken_before_activation_through_relu_and_pool():
    state = weights(3)
    x = torch.rand(2, 3, 9, 8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    first = conv((x - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1), state, 0)
    second = conv(F.relu(first), state, 2)
    third = conv(F.max_pool2d(F.relu(second), 2), state, 5)
    network = vgg.VGG(state)
    assert network.layers == ("conv1_1", "conv1_2", "conv2_1")
    features = network(x, ["conv2_1", "conv1_1"])
    assert features.keys() == {"conv1_1", "conv2_1"}
    torch.testing.assert_close(features["conv1_1"], first)
    torch.testing.assert_close(features["conv2_1"], third)
    assert (features["conv1_1"] < 0).any()
    torch.testing.assert_close(network(x, ["conv1_2"])["conv1_2"], second)
    raw = network(x[:, :1], ["conv1_1"], normalised=False)
    torch.testing.assert_close(raw["conv1_1"], conv(x[:, :1].expand(-1, 3, -1, -1), state, 0))


def test_goes_no_deeper_than_asked_and_is_frozen():
    network = vgg.VGG(weights(16))
    assert network.layers == tuple(vgg.LAYERS)
    x = torch.rand(1, 3, 4, 4, requires_grad=True)
    network(x, ["conv3_4"])["conv3_4"].sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.parameters())
    with pytest.raises(ValueError, match="conv5_1 needs images of at least 16 pixels a side"):
        network(x, ["conv5_1"])


def test_a_missing_layer_is_named_with_what_there_is():
    with pytest.raises(UpscaleError, match="no conv5_4; they have conv1_1 to conv2_1"):
        vgg.VGG(weights(3))(torch.rand(1, 3, 8, 8), ["conv1_1", "conv5_4"])
    with pytest.raises(ValueError, match="no layer 'conv3_5'; did you mean conv3_"):
        vgg.check_names(["conv1_1", "conv3_5"])


def test_the_deepest_layers_stand_in_for_a_papers():
    eight = vgg.VGG(weights(8))
    choice = vgg.choose({"conv5_4": 1.0}, eight)
    assert choice.layers == {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0}
    assert "stop at conv3_4" in choice.notice
    assert "instead of the paper's conv5_4 at 1" in choice.notice
    assert vgg.choose({"conv5_4": 1.0}, eight, deepest_only=True).layers == {"conv3_4": 1.0}
    assert vgg.choose({"conv2_1": 1.0, "conv2_2": 0.5}, eight) == vgg.Choice({"conv2_1": 1.0, "conv2_2": 0.5}, None)
    assert vgg.choose({"conv5_4": 1.0}, vgg.VGG(weights(3))).layers == {"conv1_2": 0.1, "conv2_1": 1.0}
    assert vgg.choose({"conv5_4": 1.0}, vgg.VGG(weights(16))).notice is None


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_loads_both_kinds_of_files_and_leaves_the_classifier(tmp_path, suffix):
    state = weights(2) | {"classifier.0.weight": torch.zeros(2, 2)}
    file = tmp_path / f"vgg.{suffix}"
    save_file(state, file) if suffix == "safetensors" else torch.save(state, file)
    network = vgg.load(file)
    assert network.layers == ("conv1_1", "conv1_2")
    assert torch.equal(network.convs["conv1_2"].weight, state["features.2.weight"])


def without(state, key):
    return {name: value for name, value in state.items() if name != key}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "unbroken run"),
        (without(without(weights(3), "features.2.weight"), "features.2.bias"), "unbroken run"),
        (without(weights(3), "features.2.bias"), "conv1_2 is not"),
        (weights(3) | {"features.17.weight": torch.zeros(4, 4, 3, 3)}, "features.17 is no convolution"),
        (weights(3) | {"features.2.weight": torch.zeros(4, 4, 5, 5)}, "conv1_2 is not a 3×3 convolution of 4"),
        ({"layer1.weight": torch.zeros(2)}, "unbroken run"),
    ],
    ids=["empty", "gap", "no bias", "VGG16", "other kernel", "other network"],
)
def test_other_networks_are_refused(tmp_path, state, message):
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(UpscaleError, match=rf"other\.pth is not VGG19.*{message}.*--vgg-weights"):
        vgg.load(tmp_path / "other.pth")


@pytest.mark.parametrize("name", ["junk.pth", "junk.safetensors"])
def test_unreadable_files_are_one_line(tmp_path, name):
    with pytest.raises(UpscaleError, match="there is no VGG weights file"):
        vgg.load(tmp_path / name)
    (tmp_path / name).write_bytes(b"no weights at all")
    with pytest.raises(UpscaleError, match="cannot be read as weights"):
        vgg.load(tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UpscaleError, match="holds a list"):
        vgg.load(tmp_path / "list.pth")


def test_without_torchvision_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(UpscaleError, match="torchvision, which is not here; install it, or give --vgg-weights"):
        vgg.load()


def test_the_shared_file_has_the_layers_its_name_says_at_mean_activation_one(shared):
    file = shared / "data" / "vgg" / "vgg19_conv1_1-conv3_4.safetensors"
    if not file.is_file():
        pytest.skip("needs the VGG19 weights in ../shared, which are not here")
    network = vgg.load(file)
    assert network.layers == tuple(vgg.LAYERS)[:8]
    assert [conv.out_channels for conv in network.convs.values()] == [64, 64, 128, 128, 256, 256, 256, 256]
    with pytest.raises(UpscaleError, match="no conv4_4, conv5_4; they have conv1_1 to conv3_4"):
        network.require(["conv1_2", "conv4_4", "conv5_4"])
    picture = next((shared / "data" / "bench" / "Set5" / "HRx4").iterdir())
    pixels = np.array(Image.open(picture).convert("RGB"))[:192, :192]
    x = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    features = network(x, network.layers)
    # The file's layers are scaled to a mean activation of 1 over photos; a wrong order of layers is far off that.
    for layer, value in features.items():
        assert 0.4 < F.relu(value).mean() < 2.5, layer
