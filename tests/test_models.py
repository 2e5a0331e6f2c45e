"""RRDBNet, SRResNet and VSRResNet: values at tiny size, reach, and the reading of public ESRGAN files."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.functional.resize import resize
from sa_upscale.models import GENERATORS, bands, build, build_empty, typed
from sa_upscale.models.active import ActiveConv
from sa_upscale.models.compact import Compact
from sa_upscale.models.compact_video import CompactVideo
from sa_upscale.models.rrdbnet import RRDBNet, canonical_rrdbnet
from sa_upscale.models.srresnet import SRResNet
from sa_upscale.models.swinir import SwinIR
from sa_upscale.models.vsrresnet import VSRResNet

TINY = {
    "rrdbnet-x4": lambda: RRDBNet(4, blocks=1, features=8, growth=4),
    "rrdbnet-x2": lambda: RRDBNet(2, blocks=1, features=8, growth=4),
    "rrdbnet-x1": lambda: RRDBNet(1, blocks=1, features=8, growth=4),
    "srresnet-x4": lambda: SRResNet(4, blocks=2, features=8),
    "srresnet-x2": lambda: SRResNet(2, blocks=2, features=8),
    "vsrresnet-x4": lambda: VSRResNet(4, blocks=2, features=8),
    "vsrresnet-x3": lambda: VSRResNet(3, blocks=1, features=8, global_skip=True),
    "vsrresnet-x2": lambda: VSRResNet(2, blocks=2, features=8),
}


@pytest.fixture(params=TINY)
def network(request):
    torch.manual_seed(0)
    return TINY[request.param]()


def frames(network, height, width):
    window = (network.window,) if network.window > 1 else ()
    return torch.rand(1, *window, network.channels, height, width)


def test_output_has_the_declared_scale_and_is_float32_in_half_precision_too(network):
    lr = frames(network, 8, 12)
    assert network(lr).shape == (1, 3, 8 * network.scale, 12 * network.scale)
    half = network.to(torch.bfloat16)(lr)
    assert half.dtype == torch.float32
    assert half.isfinite().all()


def test_parameters_rebuild_the_network(network):
    name = next(name for name, kind in GENERATORS.items() if type(network) is kind)
    again = build(name, **network.parameters_dict)
    again.load_state_dict(network.state_dict())
    lr = frames(network, 8, 8)
    torch.testing.assert_close(again(lr), network(lr))


def test_context_covers_what_an_output_pixel_depends_on(network):
    """The gradient of one output pixel is zero beyond `context`, and reaches nearly that far."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):  # positive everywhere: nothing cancels, no activation switches off
            nn.init.constant_(module.weight, 0.05)
            nn.init.constant_(module.bias, 0.05)
    side = 2 * network.context + 4 * network.multiple
    side += -side % network.multiple
    lr = frames(network, side, side).double().requires_grad_()
    network.double()
    middle = side // 2
    for offset in (0, network.scale * network.multiple - 1):
        (gradient,) = torch.autograd.grad(network(lr)[..., middle * network.scale + offset, :].sum(), lr)
        rows = gradient.abs().sum(dim=-1).flatten(0, -2).sum(dim=0).nonzero()
        position = middle + offset // network.scale
        reach = max(position - rows.min().item(), rows.max().item() - position)
        assert reach <= network.context
        assert reach >= network.context - 3 * network.multiple


@pytest.mark.parametrize(("kind", "scale"), [(RRDBNet, 3), (SRResNet, 3), (VSRResNet, 0), (VSRResNet, 1.5)])
def test_impossible_scales_are_refused(kind, scale):
    with pytest.raises(ValueError, match="upscales by"):
        kind(scale)


def test_every_weight_gets_a_gradient(network):
    network(frames(network, 8, 8)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_dense_block_is_the_published_formula():
    """Written out with its concatenations, scale 0.2 and slope 0.2."""
    torch.manual_seed(1)
    block = RRDBNet(4, blocks=1, features=8, growth=4).body[0].rdb1
    x = torch.randn(1, 8, 5, 6)

    def layer(conv, *parts):
        return F.conv2d(torch.cat(parts, 1), conv.weight, conv.bias, padding=1)

    act = nn.LeakyReLU(0.2)
    x1 = act(layer(block.conv1, x))
    x2 = act(layer(block.conv2, x, x1))
    x3 = act(layer(block.conv3, x, x1, x2))
    x4 = act(layer(block.conv4, x, x1, x2, x3))
    expected = layer(block.conv5, x, x1, x2, x3, x4) * 0.2 + x
    torch.testing.assert_close(block(x), expected)


def test_rrdbnet_has_the_public_size_and_names():
    """16.70 M parameters and the keys of the published RealESRGAN_x4plus."""
    with torch.device("meta"):
        state = RRDBNet().state_dict()
    assert sum(value.numel() for value in state.values()) == 16_697_987
    assert len(state) == 702
    shapes = {
        "conv_first.weight": (64, 3, 3, 3),
        "body.22.rdb3.conv5.weight": (64, 192, 3, 3),
        "body.0.rdb1.conv1.bias": (32,),
        "conv_body.weight": (64, 64, 3, 3),
        "conv_up1.weight": (64, 64, 3, 3),
        "conv_up2.bias": (64,),
        "conv_hr.weight": (64, 64, 3, 3),
        "conv_last.weight": (3, 64, 3, 3),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


def release_names(state):
    """The keys of the ESRGAN release's RRDB_ESRGAN_x4.pth."""
    pairs = [("conv_body", "trunk_conv"), ("conv_up", "upconv"), ("conv_hr", "HRconv")]
    pairs += [("body.", "RRDB_trunk."), (".rdb", ".RDB")]
    renamed = {}
    for key, value in state.items():
        for today, then in pairs:
            key = key.replace(today, then)  # noqa: PLW2901
        renamed[key] = value
    return renamed


def training_names(state, blocks, positions=("3", "6", "8", "10")):
    """The keys of RRDB_ESRGAN_x4_old_arch.pth."""
    up1, up2, hr, last = positions
    fixed = {"conv_first": "0", "conv_body": f"1.sub.{blocks}", "conv_up1": up1, "conv_up2": up2}
    fixed |= {"conv_hr": hr, "conv_last": last}
    renamed = {}
    for key, value in state.items():
        head, *middle, kind = key.split(".")
        if head == "body":
            block, dense, conv = middle
            renamed[f"model.1.sub.{block}.{dense.upper()}.{conv}.0.{kind}"] = value
        else:
            renamed[f"model.{fixed[head]}.{kind}"] = value
    return renamed


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("style", ["today", "release", "training"])
def test_public_key_styles_are_recognised(scale, style):
    torch.manual_seed(0)
    network = RRDBNet(scale, blocks=3, features=12, growth=6)
    state = network.state_dict()
    file = {"today": state, "release": release_names(state), "training": training_names(state, 3)}[style]
    parameters, clean = canonical_rrdbnet(file)
    assert parameters == {"scale": scale, "blocks": 3, "features": 12, "growth": 6, "channels": 3}
    again = RRDBNet(**parameters)
    again.load_state_dict(clean)
    lr = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(again(lr), network(lr))


def test_the_old_names_are_the_published_ones():
    """Spelled out, so that the helpers above cannot agree with the code on a wrong name."""
    state = RRDBNet(4, blocks=23, features=8, growth=4).state_dict()
    old = training_names(state, 23)
    published = {"model.0.weight", "model.1.sub.0.RDB1.conv1.0.weight", "model.1.sub.22.RDB3.conv5.0.bias"}
    published |= {"model.1.sub.23.weight", "model.3.weight", "model.6.weight", "model.8.weight", "model.10.bias"}
    assert published <= set(old)
    assert canonical_rrdbnet(old)[0]["blocks"] == 23
    release = {"RRDB_trunk.0.RDB1.conv1.weight", "trunk_conv.bias", "upconv1.weight", "upconv2.weight", "HRconv.bias"}
    assert release <= set(release_names(state))


def relatives():
    state = RRDBNet(4, blocks=2, features=8, growth=4).state_dict()
    old = training_names(state, 2)
    once = training_names({k: v for k, v in state.items() if not k.startswith("conv_up2")}, 2, ("3", "", "5", "7"))
    thrice = training_names(state, 2, ("3", "6", "11", "13")) | {"model.9.weight": state["conv_up1.weight"]}
    return {
        "old ×2": once,
        "old ×8": thrice,
        "no upsampling": {key: value for key, value in state.items() if "conv_up" not in key},
        "an extra layer": state | {"body.0.rdb1.conv1x1.weight": torch.zeros(4, 8, 1, 1)},
        "a key twice": state | {"model.0.weight": old["model.0.weight"]},
        "a block missing": {key: value for key, value in state.items() if not key.startswith("body.0.rdb2")},
        "nine input channels": state | {"conv_first.weight": torch.zeros(8, 9, 3, 3)},
        "another network": SRResNet(4, blocks=1, features=8).state_dict(),
        "values that are no tensors": dict.fromkeys(state, 1.0),
        "empty": {},
    }


@pytest.mark.parametrize("name", relatives())
def test_what_is_not_this_network_is_none(name):
    assert canonical_rrdbnet(relatives()[name]) is None


def test_srresnet_is_plain_and_starts_small():
    network = SRResNet()
    kinds = {type(module) for module in network.modules() if not list(module.children())}
    assert kinds == {nn.Conv2d, ActiveConv}
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 2 * 16 + 5
    weight = network.body[3].conv1.weight
    expected = 0.1 * (2 / (1 + 0.2**2) / (64 * 9)) ** 0.5  # MSRA for slope 0.2
    assert weight.std().item() == pytest.approx(expected, rel=0.02)


def test_vsrresnet_has_34_convolutions():
    network = VSRResNet()
    assert sum(isinstance(module, nn.Conv2d) for module in network.modules()) == 34
    assert network.fuse.in_channels == 5 * 64


def test_vsrresnet_from_prepared_is_forward():
    torch.manual_seed(0)
    network = VSRResNet(4, blocks=1, features=8, global_skip=True)
    lr = torch.rand(2, 5, 3, 6, 7)
    prepared = torch.stack([network.prepare(frame) for frame in lr.unbind(1)], dim=1)
    torch.testing.assert_close(network.from_prepared(prepared), network(lr))
    torch.testing.assert_close(prepared[1, 3], resize(lr[1, 3], (24, 28)))


def test_global_skip_adds_the_middle_bicubic_frame():
    network = VSRResNet(4, blocks=1, features=8, global_skip=True)
    nn.init.zeros_(network.conv_last.weight)
    lr = torch.rand(1, 5, 3, 6, 7)
    torch.testing.assert_close(network(lr), resize(lr[:, 2], (24, 28)))
    network.global_skip = False
    assert network(lr).abs().max() == 0


def test_vsrresnet_tells_the_frames_apart():
    torch.manual_seed(0)
    network = VSRResNet(2, blocks=1, features=8)
    lr = torch.rand(1, 5, 3, 6, 6)
    assert (network(lr) - network(lr.flip(1))).abs().max() > 1e-4


@pytest.mark.parametrize("shape", [(1, 3, 3, 8, 8), (1, 3, 8, 8)])
def test_vsrresnet_refuses_other_windows(shape):
    with pytest.raises(ValueError, match=r"takes \(N, 5, C, H, W\)"):
        VSRResNet(2, blocks=1, features=8)(torch.rand(shape))


@pytest.mark.parametrize("name", GENERATORS)
def test_a_network_without_weights_takes_those_of_another(name):
    wanted = build(name).eval()
    got = build_empty(name, **wanted.parameters_dict).eval()
    got.load_state_dict(wanted.state_dict())
    shape = (1, *((wanted.window,) if wanted.window > 1 else ()), 3, 16, 16)
    lr = torch.rand(shape)
    with torch.inference_mode():
        assert torch.equal(got(lr), wanted(lr))


def test_a_network_on_no_device_does_not_import_the_compiler():
    script = (
        "import sys; from sa_upscale import models\n"
        # SwinIR's attention mask is computed, and no bundled checkpoint waits for that.
        "for name in models.GENERATORS.keys() - {'swinir'}: models.build_empty(name, device='meta')\n"
        "assert not {'torch._dynamo', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "build",
    [
        lambda: RRDBNet(4, blocks=1, features=8, growth=4),
        lambda: RRDBNet(2, blocks=1, features=8, growth=4),
        lambda: SRResNet(4, blocks=1, features=8),
        lambda: SRResNet(2, blocks=1, features=8),
    ],
)
def test_a_last_stage_in_bands_gives_the_same_picture(build, monkeypatch):
    torch.manual_seed(0)
    network = build().eval()
    lr = torch.rand(2, 3, 100, 12)
    heights = []
    whole = network._enlarge
    monkeypatch.setattr(network, "_enlarge", lambda x: heights.append(x.shape[2]) or whole(x))
    monkeypatch.setattr(bands, "BYTES", 1)
    with torch.no_grad():
        banded = network(lr)
    assert len(heights) >= 3
    assert max(heights) < 30
    heights.clear()
    plain = network(lr)  # with gradients it is made at once
    assert len(heights) == 1
    torch.testing.assert_close(banded, plain.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("height", [8, 15, 40, 41])
@pytest.mark.parametrize(
    ("build", "shape"),
    [
        (lambda: Compact(3, features=8, convs=5), (2, 3)),
        (lambda: CompactVideo(2, features=8, convs=5), (2, 5, 3)),
        (lambda: VSRResNet(2, blocks=2, features=8), (2, 5, 3)),
        (lambda: VSRResNet(2, blocks=2, features=8, global_skip=True), (1, 5, 3)),
    ],
)
def test_a_chain_of_convolutions_in_bands_gives_the_same_picture(build, shape, height, dtype, monkeypatch):
    torch.manual_seed(0)
    network = build().eval()
    with torch.no_grad():
        for parameter in network.parameters():  # biases show where a band would take zeros for rows of the picture
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    network.to(dtype)
    lr = torch.rand(*shape, height, 12)
    fed = []
    feed = bands.Conv.feed
    monkeypatch.setattr(
        bands.Conv, "feed", lambda self, rows, last: fed.append(rows.shape[2]) or feed(self, rows, last)
    )
    with torch.no_grad():
        plain = network(lr)
        assert not fed
        monkeypatch.setattr(bands, "BYTES", 1)
        banded = network(lr)
    lowest = 1 + sum(isinstance(module, nn.Conv2d) for module in network.modules())
    worked_at = height * network.scale if isinstance(network, VSRResNet) else height
    assert bool(fed) == (worked_at > lowest)
    assert max(fed, default=0) <= 2 * lowest
    torch.testing.assert_close(banded, plain, rtol=1e-5, atol=1e-5)
    fed.clear()
    network(lr)  # with gradients it is made at once
    assert not fed


@pytest.mark.parametrize(
    "build", [lambda: Compact(3, features=8, convs=5), lambda: CompactVideo(2, features=8, convs=5)]
)
def test_a_picture_is_finished_a_few_rows_at_a_time(build, monkeypatch):
    torch.manual_seed(0)
    network = build().eval()
    lr = torch.rand(2, *([5] if network.window == 5 else []), 3, 10, 12)
    with torch.no_grad():
        (whole,) = network.rows(lr)
        monkeypatch.setattr(bands, "PICTURE_BYTES", 4 * 2 * 3 * network.scale**2 * 12 * 4)  # four rows of the input
        parts = list(network.rows(lr))
    assert [part.shape[2] for part in parts] == [4 * network.scale, 4 * network.scale, 2 * network.scale]
    assert torch.equal(torch.cat(parts, dim=2), whole)
    assert torch.equal(bands.joined(parts, 10 * network.scale), whole)
    assert len(list(network.rows(lr))) == 1  # with gradients it is made at once


WHOLE_PICTURES = {
    "rrdbnet": TINY["rrdbnet-x4"],
    "srresnet": TINY["srresnet-x4"],
    "swinir": lambda: SwinIR(2, embed_dim=8, depths=(2,), heads=(2,), features=8),
}


@pytest.mark.parametrize("name", WHOLE_PICTURES)
@torch.inference_mode()
def test_in_bf16_the_picture_itself_is_made_in_float32(name):
    torch.manual_seed(0)
    network = WHOLE_PICTURES[name]().eval()
    network.conv_last.weight.zero_()
    network.conv_last.bias.fill_(0.501)  # bfloat16 has nothing between 0.5 and 0.50390625
    x = torch.rand(1, 3, 16, 16)
    expected = network(x)
    made = typed(network, torch.bfloat16)
    assert made.conv_first.weight.dtype == torch.bfloat16
    assert made(x).dtype == torch.float32
    torch.testing.assert_close(made(x), expected, rtol=0, atol=1e-6)
    assert (expected - expected.bfloat16().float()).abs().max() > 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_types_are_for_all_of_a_network(dtype):
    network = typed(TINY["rrdbnet-x4"](), dtype)
    assert {weight.dtype for weight in network.parameters()} == {dtype}


def test_a_network_that_adds_to_a_picture_is_all_in_bf16():
    assert {weight.dtype for weight in typed(Compact(4, 8, 1), torch.bfloat16).parameters()} == {torch.bfloat16}
    light = SwinIR(2, embed_dim=8, depths=(2,), heads=(2,), upsampler="pixelshuffledirect")
    assert {weight.dtype for weight in typed(light, torch.bfloat16).parameters()} == {torch.bfloat16}
