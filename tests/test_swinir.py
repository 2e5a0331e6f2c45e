"""SwinIR: the public files' names and values, its windows and masks, sizes, reach, and its reading."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from sa_upscale import checkpoints
from sa_upscale.engine import Engine
from sa_upscale.models import build
from sa_upscale.models.rrdbnet import RRDBNet
from sa_upscale.models.swinir import DIV2K_MEAN, Block, SwinIR, canonical_swinir

SMALL = {"embed_dim": 12, "depths": [2, 3], "heads": [2, 3]}
LIGHT = {"embed_dim": 12, "depths": [2, 2], "heads": [2, 2], "upsampler": "pixelshuffledirect"}
PUBLIC_LIGHT = {"embed_dim": 60, "depths": (6,) * 4, "heads": (6,) * 4, "upsampler": "pixelshuffledirect"}
# Mean, deviation and three pixels of what the authors' public code makes of the sines below.
PUBLISHED = [0.4816106, 2.0405455, -1.0651799, 2.4437754, 1.5464939]
TINY = {
    "x2": {"scale": 2, **SMALL},
    "x3": {"scale": 3, **SMALL, "window_size": 4},
    "x4": {"scale": 4, **SMALL, "mlp_ratio": 1.5},
    "x8": {"scale": 8, **SMALL, "features": 8},
    "light-x2": {"scale": 2, **LIGHT},
    "light-x3": {"scale": 3, **LIGHT, "channels": 1},
}


@pytest.fixture(params=TINY)
def keywords(request):
    return TINY[request.param]


@pytest.fixture
def network(keywords):
    torch.manual_seed(0)
    return SwinIR(**keywords).eval()


def public_file(network, trained_on=48):
    """The weights with what public files hold beside them, for the size in LR pixels that they were trained on."""
    size = network.multiple
    windows = (trained_on // size) ** 2
    state = dict(network.state_dict())
    for name, module in network.named_modules():
        if isinstance(module, Block):
            state[f"{name}.attn.relative_position_index"] = torch.zeros(size**2, size**2, dtype=torch.int64)
            if module.shift:
                state[f"{name}.attn_mask"] = torch.zeros(windows, size**2, size**2)
    return state


@pytest.mark.parametrize(
    ("keywords", "parameters"),
    [
        ({"scale": 2}, 11_752_487),
        ({"scale": 4}, 11_900_199),
        ({"scale": 2, **PUBLIC_LIGHT}, 910_152),
        ({"scale": 4, **PUBLIC_LIGHT}, 929_628),
    ],
)
def test_the_published_networks_have_their_size(keywords, parameters):
    with torch.device("meta"):
        network = SwinIR(**keywords)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_classical_x4_has_the_public_names():
    with torch.device("meta"):
        state = SwinIR().state_dict()
    # Six ends of the network with two, one of six groups' convolution and 13 a block; the tables have no bias.
    assert len(state) == 2 * 8 + 6 * (2 + 6 * 13)
    shapes = {
        "conv_first.weight": (180, 3, 3, 3),
        "conv_first.bias": (180,),
        "patch_embed.norm.weight": (180,),
        "layers.0.residual_group.blocks.0.norm1.weight": (180,),
        "layers.0.residual_group.blocks.1.attn.relative_position_bias_table": (225, 6),
        "layers.2.residual_group.blocks.3.attn.qkv.weight": (540, 180),
        "layers.2.residual_group.blocks.3.attn.qkv.bias": (540,),
        "layers.4.residual_group.blocks.4.attn.proj.weight": (180, 180),
        "layers.5.residual_group.blocks.5.norm2.bias": (180,),
        "layers.5.residual_group.blocks.5.mlp.fc1.weight": (360, 180),
        "layers.5.residual_group.blocks.5.mlp.fc2.weight": (180, 360),
        "layers.5.conv.weight": (180, 180, 3, 3),
        "norm.bias": (180,),
        "conv_after_body.weight": (180, 180, 3, 3),
        "conv_before_upsample.0.weight": (64, 180, 3, 3),
        "upsample.0.weight": (256, 64, 3, 3),
        "upsample.2.weight": (256, 64, 3, 3),
        "conv_last.weight": (3, 64, 3, 3),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


def test_lightweight_has_the_public_names():
    with torch.device("meta"):
        state = SwinIR(3, **PUBLIC_LIGHT).state_dict()
    ends = {key for key in state if not key.startswith("layers.")}
    names = ("conv_first", "patch_embed.norm", "norm", "conv_after_body", "upsample.0")
    assert ends == {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    assert state["upsample.0.weight"].shape == (27, 60, 3, 3)


def wave(count, step, number=0):
    return torch.sin(torch.arange(count, dtype=torch.float64) * step + number).float()


def test_values_are_the_published_networks():
    """Weights and picture are sines; the numbers were computed with the authors' public code in double precision."""
    network = SwinIR(4, **SMALL).eval()
    state = network.state_dict()
    waves = [0.15 * wave(state[key].numel(), 0.7, number) for number, key in enumerate(sorted(state))]
    network.load_state_dict(
        {key: value.view(state[key].shape) for key, value in zip(sorted(state), waves, strict=True)}
    )
    lr = 0.5 + 0.5 * wave(3 * 24 * 16, 0.9).view(1, 3, 24, 16)
    sr = network(lr)
    found = [sr.mean(), sr.std(), sr[0, 0, 0, 0], sr[0, 1, 50, 33], sr[0, 2, 95, 63]]
    assert [value.item() for value in found] == pytest.approx(PUBLISHED, rel=1e-4)


@pytest.mark.parametrize("trained_on", [48, 64])
def test_public_files_load_as_they_are(network, keywords, trained_on):
    file = public_file(network, trained_on - trained_on % network.multiple)
    again = SwinIR(**keywords).eval()
    again.load_state_dict(file, strict=True)
    lr = torch.rand(1, network.channels, 16, 24)
    torch.testing.assert_close(again(lr), network(lr))


def test_what_no_public_file_holds_is_still_refused():
    network = SwinIR(2, **SMALL)
    state = public_file(network)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*blocks.0.attn.extra"):
        network.load_state_dict(state | {"layers.0.residual_group.blocks.0.attn.extra": torch.zeros(1)})
    del state["layers.1.residual_group.blocks.2.attn.qkv.bias"]
    with pytest.raises(RuntimeError, match=r"Missing key.*blocks.2.attn.qkv.bias"):
        network.load_state_dict(state)


def test_public_files_are_recognised(network, keywords):
    architecture, parameters, clean = checkpoints.canonical({"params": public_file(network)})
    assert architecture == "swinir"
    assert parameters.items() <= network.parameters_dict.items()
    assert parameters.keys() >= network.parameters_dict.keys() - {"drop_path", "features"}
    assert clean.keys() == network.state_dict().keys()
    again = build(architecture, **parameters).eval()
    again.load_state_dict(clean)
    lr = torch.rand(1, network.channels, 16, 16)
    torch.testing.assert_close(again(lr), network(lr))


def test_a_public_file_becomes_a_checkpoint_of_ours(tmp_path):
    torch.manual_seed(0)
    network = SwinIR(4, **SMALL).eval()
    torch.save({"params_ema": public_file(network)}, tmp_path / "public.pth")
    loaded = checkpoints.load(tmp_path / "public.pth").model
    ours = tmp_path / "ours.safetensors"
    checkpoints.save(ours, loaded.state_dict(), architecture="swinir", parameters=loaded.parameters_dict, metadata={})
    lr = torch.rand(1, 3, 16, 16)
    torch.testing.assert_close(checkpoints.load(ours).model(lr), network(lr))


def relatives():
    network = SwinIR(4, **SMALL)
    state = public_file(network)
    features = state["conv_last.weight"].shape[1]
    conv = torch.zeros(features, features, 3, 3)
    ends = {key: value for key, value in state.items() if not key.startswith("upsample.")}
    nearest = {f"{name}.{kind}": conv for name in ("conv_up1", "conv_up2", "conv_hr") for kind in ("weight", "bias")}
    block = "layers.1.residual_group.blocks.1."
    return {
        "nearest+conv": ends | nearest,
        "denoising": {key: value for key, value in ends.items() if not key.startswith("conv_before")},
        "a three-convolution group": state | {"layers.0.conv.0.weight": conv},
        "a block missing": {key: value for key, value in state.items() if not key.startswith(block)},
        "a group missing": {key: value for key, value in state.items() if not key.startswith("layers.0.")},
        "an unknown number of stages": state | {"upsample.6.weight": state["upsample.0.weight"]},
        "an embedding that no heads divide": state | {"conv_first.weight": torch.zeros(13, 3, 3, 3)},
        "no embedding": state | {"conv_first.weight": torch.zeros(0, 3, 3, 3)},
        "another network": RRDBNet(4, blocks=1, features=8, growth=4).state_dict(),
        "values that are no tensors": dict.fromkeys(state, 1.0),
        "empty": {},
    }


@pytest.mark.parametrize("name", relatives())
def test_what_is_not_this_network_is_none(name):
    assert canonical_swinir(relatives()[name]) is None


def cells(size, shift, height, width):
    """The number of the window of each pixel, `(height * width,)`; one that the border cuts is a window of its own."""
    rows, columns = (torch.arange(side).sub(shift).div(size, rounding_mode="floor") for side in (height, width))
    return (rows[:, None] * 1000 + columns).flatten()


@pytest.mark.parametrize("shift", [0, 4])
@pytest.mark.parametrize(("height", "width"), [(16, 24), (8, 16), (8, 8)])
def test_windows_attend_as_the_plain_formula(shift, height, width):
    """Every pixel against every other of the picture, those of other windows taken out; no rolling, no partition."""
    torch.manual_seed(0)
    size, heads, dim = 8, 2, 12
    block = Block(dim, heads, size, shift, hidden=24, drop=0.0).double()
    table = block.attn.relative_position_bias_table
    nn.init.normal_(table)
    tokens = torch.randn(2, height, width, dim, dtype=torch.float64)

    x = block.norm1(tokens).flatten(1, 2)
    query, key, value = block.attn.qkv(x).view(2, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4)
    down = torch.arange(height).repeat_interleave(width)
    right = torch.arange(width).repeat(height)
    down, right = down[:, None] - down, right[:, None] - right
    cell = cells(size, shift, height, width)
    same = cell[:, None] == cell
    rows = ((down + size - 1) * (2 * size - 1) + right + size - 1).where(same, 0)
    scores = query @ key.transpose(-1, -2) / math.sqrt(dim // heads) + table[rows].permute(2, 0, 1)
    weights = scores.masked_fill(~same, -math.inf).softmax(dim=-1)
    attended = block.attn.proj((weights @ value).transpose(1, 2).flatten(2)).view_as(tokens)
    expected = tokens + attended
    expected = expected + block.mlp(block.norm2(expected))

    torch.testing.assert_close(block(tokens), expected)


@pytest.mark.parametrize("shift", [0, 4])
def test_pixels_of_different_windows_do_not_influence_each_other(shift):
    """The gradient of one token is exactly zero outside its window, also at the far border, whence it was rolled."""
    torch.manual_seed(0)
    block = Block(12, 2, 8, shift, hidden=24, drop=0.0)
    tokens = torch.randn(1, 24, 16, 12, requires_grad=True)
    cell = cells(8, shift, 24, 16)
    out = block(tokens).flatten(1, 2)
    for pixel in (0, 3 * 16 + 5, 4 * 16 + 4, 12 * 16 + 15, 24 * 16 - 1):
        (gradient,) = torch.autograd.grad(out[0, pixel].square().sum(), tokens, retain_graph=True)
        seen = gradient.abs().sum(dim=-1).flatten() > 0
        assert torch.equal(seen, cell == cell[pixel])


def test_every_second_block_is_shifted():
    blocks = [module for module in SwinIR(2, **SMALL).modules() if isinstance(module, Block)]
    assert [block.shift for block in blocks] == [0, 4, 0, 4, 0]


def test_output_has_the_declared_scale_and_is_float32_in_half_precision_too(network):
    lr = torch.rand(2, network.channels, 16, 24)
    sr = network(lr)
    assert sr.shape == (2, network.channels, 16 * network.scale, 24 * network.scale)
    half = network.to(torch.bfloat16)(lr)
    assert half.dtype == torch.float32
    assert (half - sr).abs().max() < 0.05 * sr.std() + 0.05


def test_mean_colour_is_taken_off_and_put_back():
    """With no convolution at the end, the picture is the mean of DIV2K whatever goes in."""
    network = SwinIR(2, **SMALL).eval()
    nn.init.zeros_(network.conv_last.weight)
    nn.init.zeros_(network.conv_last.bias)
    seen = []
    network.conv_first.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    lr = torch.rand(1, 3, 8, 8)
    mean = torch.tensor(DIV2K_MEAN).view(1, 3, 1, 1)
    torch.testing.assert_close(network(lr), mean.expand(1, 3, 16, 16))
    torch.testing.assert_close(seen[0], lr - mean)


@pytest.mark.parametrize(("height", "width"), [(16, 13), (9, 8), (21, 19)])
def test_other_sizes_are_mirrored_up_and_cut_back(height, width):
    torch.manual_seed(0)
    network = SwinIR(2, **SMALL).eval()
    lr = torch.rand(1, 3, height, width)
    padded = np.pad(lr.numpy(), ((0, 0), (0, 0), (0, -height % 8), (0, -width % 8)), mode="reflect")
    expected = network(torch.from_numpy(padded))[..., : 2 * height, : 2 * width]
    torch.testing.assert_close(network(lr), expected)


def test_too_few_pixels_to_mirror_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 9\) pixels are too few"):
        SwinIR(2, **SMALL)(torch.rand(1, 3, 4, 9))


@pytest.mark.parametrize("shape", [(13, 21, 3), (3, 5, 3), (13, 21, 1), (1, 40, 3)])
def test_engine_runs_any_size(shape):
    torch.manual_seed(0)
    network = SwinIR(2, **SMALL).eval()
    image = np.random.default_rng(0).random(shape, dtype=np.float32)
    height, width = shape[:2]
    padded = np.pad(image, ((0, -height % 8), (0, -width % 8), (0, 0)), mode="reflect")
    lr = torch.from_numpy(padded).permute(2, 0, 1)[None].expand(-1, 3, -1, -1)
    with torch.inference_mode():
        sr = network(lr)[0].clamp(0, 1).permute(1, 2, 0)[: 2 * height, : 2 * width]
    expected = sr if shape[2] == 3 else sr.mean(dim=2, keepdim=True)
    result = Engine(network, device="cpu", precision="fp32").run(image)
    np.testing.assert_allclose(result, expected.numpy(), atol=1e-5)


def test_engine_tiles_give_the_whole_picture():
    """Its tiles start where windows do, so with all that it sees as overlap nothing changes."""
    torch.manual_seed(0)
    network = SwinIR(2, 12, (2,), (2,), window_size=4).eval()
    assert network.overlap == network.context < 32
    image = np.random.default_rng(0).random((70, 83, 3), dtype=np.float32)
    tiled = Engine(network, device="cpu", precision="fp32", tile=16).run(image)
    whole = Engine(network, device="cpu", precision="fp32", tile=100).run(image)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def test_context_covers_what_an_output_pixel_depends_on(network):
    """The gradient of one row of the result is zero beyond `context`, and reaches as far as half of each window."""
    side = 4 * network.multiple * -(-network.context // (2 * network.multiple))
    lr = torch.rand(1, network.channels, side, 8).requires_grad_()
    sr = network(lr)
    for row in (side // 2, side // 2 + network.multiple - 1):
        (gradient,) = torch.autograd.grad(sr[..., row * network.scale, :].sum(), lr, retain_graph=True)
        rows = gradient.abs().sum(dim=(0, 1, 3)).nonzero()
        reach = max(row - rows.min().item(), rows.max().item() - row)
        assert reach <= network.context
        assert reach >= sum(network.parameters_dict["depths"]) * network.multiple // 2


def test_parameters_rebuild_the_network(network):
    again = build("swinir", **json.loads(json.dumps(network.parameters_dict))).eval()
    again.load_state_dict(network.state_dict())
    lr = torch.rand(1, network.channels, 8, 8)
    torch.testing.assert_close(again(lr), network(lr))


def test_every_weight_gets_a_gradient(network):
    network.train()
    network(torch.rand(4, network.channels, 16, 16)).square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_drop_path_leaves_out_whole_branches_and_makes_up_for_it():
    torch.manual_seed(0)
    block = Block(12, 2, 4, 0, hidden=24, drop=0.75)
    nn.init.zeros_(block.mlp.fc2.weight)  # leaves the attention's branch alone
    tokens = torch.randn(200, 4, 4, 12)
    branch = block.eval()(tokens) - tokens
    dropped = block.train()(tokens) - tokens
    kept = dropped.abs().amax(dim=(1, 2, 3)) > 0
    assert 30 <= kept.sum() <= 70  # 50 expected; further off than three deviations would be a mistake
    torch.testing.assert_close(dropped[kept], 4 * branch[kept], atol=1e-5, rtol=1e-4)


def test_drop_path_rises_from_none_to_all_of_it():
    blocks = [module for module in SwinIR(2, **SMALL, drop_path=0.2).modules() if isinstance(module, Block)]
    assert [block.drop for block in blocks] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert not any(block.drop for block in SwinIR(2, **SMALL, drop_path=0).modules() if isinstance(block, Block))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"scale": 5}, "upscales by 2, 3, 4 or 8, not 5"),
        ({"heads": (6,) * 5}, "must each have a number"),
        ({"depths": (), "heads": ()}, "must each have a number"),
        ({"depths": (6, 0), "heads": (6, 6)}, "must each have a number"),
        ({"embed_dim": 100}, "cannot be split among"),
        ({"window_size": 1}, "cannot be shifted"),
        ({"upsampler": "pixelshufle"}, "did you mean pixelshuffle"),
    ],
)
def test_impossible_networks_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message), torch.device("meta"):
        SwinIR(**keywords)


def test_a_near_name_is_suggested():
    with pytest.raises(ValueError, match="did you mean swinir"):
        build("swinr")
    with pytest.raises(ValueError, match="swinir takes no 'window'; did you mean window_size"):
        build("swinir", window=8)
