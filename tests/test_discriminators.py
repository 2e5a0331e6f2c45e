"""The discriminators: what their features are, public names and sizes, spectral norm, refused sizes."""

import copy
import inspect

import pytest
import torch
from torch import nn

from sa_upscale.models import DISCRIMINATORS, build_discriminator
from sa_upscale.models.discriminators import SpectralConv, UNetDiscriminator

SIZES = {"afm": 32, "esrgan": 64, "unet": 24, "vgg-features": 16, "vsrresfeatgan": 20}
SHAPES = {  # channels and side of each feature map for four features and the sizes above
    "afm": [(4, 32), (4, 16), (8, 16), (8, 8), (16, 8), (16, 4), (32, 4), (32, 2)],
    "esrgan": [(4, 64), (4, 32), (8, 32), (8, 16), (16, 16), (16, 8), (32, 8), (32, 4), (32, 4), (32, 2)],
    "unet": [(4, 24), (8, 12), (16, 6), (32, 3), (16, 6), (8, 12), (4, 24), (4, 24), (4, 24)],
    "vgg-features": [(4, 8), (4, 4), (4, 4), (4, 4), (4, 4), (4, 4)],
    "vsrresfeatgan": [(4, 10), (8, 5), (16, 3)],
}
JUDGED = {"conv1_2": (64, 1), "conv2_2": (128, 2), "conv3_4": (256, 4)}  # VGG19's channels there, and its stride


@pytest.fixture(params=DISCRIMINATORS)
def name(request):
    return request.param


@pytest.fixture
def discriminator(name):
    torch.manual_seed(0)
    return build_discriminator(name, size=SIZES[name], features=4)


def pictures(name, count=2):
    """What it judges: pictures, or what VGG makes of them."""
    side = SIZES[name]
    if name == "vgg-features":
        return {
            layer: torch.randn(count, channels, side // stride, side // stride)
            for layer, (channels, stride) in JUDGED.items()
        }
    return torch.rand(count, 3, side, side)


def tensors(x):
    return list(x.values()) if isinstance(x, dict) else [x]


def test_logits_and_features_have_their_shapes(name, discriminator):
    logits, features = discriminator(pictures(name))
    assert logits.shape == {"unet": (2, 1, 24, 24), "vgg-features": (2, 3, 4, 4)}.get(name, (2, 1))
    assert [tuple(feature.shape) for feature in features] == [(2, count, side, side) for count, side in SHAPES[name]]


def pre_activation_layers(name, discriminator):
    """The layers whose outputs the features are, in order: the norms, or convolutions that have none."""
    if name == "unet":
        return [getattr(discriminator, f"conv{number}") for number in range(9)]
    if name == "esrgan":
        norms = [getattr(discriminator, f"bn{number // 2}_{number % 2}") for number in range(1, 10)]
        return [discriminator.conv0_0, *norms]
    if name == "vgg-features":
        return [layer for layer in discriminator.modules() if isinstance(layer, nn.GroupNorm)]
    return list(discriminator.norms)


def test_features_are_what_goes_into_the_activations_and_stay_so(name, discriminator):
    seen = {}
    layers = pre_activation_layers(name, discriminator)
    for layer in layers:
        layer.register_forward_hook(lambda module, inputs, output: seen.update({module: output.clone()}))
    _, features = discriminator(pictures(name))
    assert len(features) == len(layers)
    for layer, feature in zip(layers, features, strict=True):
        assert torch.equal(feature, seen[layer])
        assert feature.min() < 0 < feature.max()
    normalised = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
    assert len(normalised) == {"afm": 8, "esrgan": 9, "unet": 0, "vgg-features": 0, "vsrresfeatgan": 3}[name]
    for layer in normalised:  # after the normalisation, before an activation of slope 0.2 would shift the mean
        torch.testing.assert_close(seen[layer].mean(dim=(0, 2, 3)), torch.zeros(layer.num_features), atol=1e-5, rtol=0)


def test_activations_have_slope_a_fifth(name, discriminator):
    """What the next layer gets is the feature, negative values times 0.2."""
    discriminator.eval()
    following = {"esrgan": "conv0_1", "unet": "conv1", "vgg-features": "heads.conv1_2.1.0"}.get(name, "convs.1")
    seen = []
    discriminator.get_submodule(following).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    _, features = discriminator(pictures(name))
    torch.testing.assert_close(seen[0], features[0].where(features[0] > 0, 0.2 * features[0]))


def test_gradients_reach_the_picture_and_every_weight(name, discriminator):
    x = pictures(name, count=3)
    for shown in tensors(x):
        shown.requires_grad_()
    logits, features = discriminator(x)
    (logits.square().mean() + sum(feature.square().mean() for feature in features)).backward()
    assert all(shown.grad.abs().sum() > 0 for shown in tensors(x))
    for key, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


def test_logits_are_float32_under_autocast(name, discriminator):
    with torch.autocast("cpu", torch.bfloat16):
        logits, features = discriminator(pictures(name))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert all(feature.isfinite().all() for feature in features)


def test_parameters_rebuild_the_discriminator(name, discriminator):
    again = build_discriminator(name, **discriminator.parameters_dict).eval()
    again.load_state_dict(discriminator.state_dict())
    x = pictures(name)
    torch.testing.assert_close(again(x)[0], discriminator.eval()(x)[0])
    assert discriminator.parameters_dict.keys() == inspect.signature(type(discriminator)).parameters.keys()


@pytest.mark.parametrize(
    ("name", "size", "needed"),
    [
        ("esrgan", 144, 32),
        ("esrgan", 0, 32),
        ("afm", 100, 16),
        ("unet", 100, 8),
        ("vgg-features", 18, 4),
        ("vsrresfeatgan", 7, 8),
    ],
)
def test_impossible_sizes_are_refused_when_built(name, size, needed):
    with pytest.raises(ValueError, match=rf"{needed}.*not {size}"):
        build_discriminator(name, size=size)


@pytest.mark.parametrize("name", ["afm", "esrgan", "vsrresfeatgan"])
@pytest.mark.parametrize("more", [(32, 0), (0, 32)])
def test_other_sizes_than_built_for_are_refused(name, more):
    height, width = (SIZES[name] + side for side in more)
    discriminator = build_discriminator(name, size=SIZES[name], features=4)
    with pytest.raises(ValueError, match=f"{width}×{height} pixels.* built for {SIZES[name]}×{SIZES[name]}"):
        discriminator(torch.rand(2, 3, height, width))


def test_unet_takes_every_multiple_of_eight_and_nothing_else():
    discriminator = UNetDiscriminator(features=4)
    assert discriminator(torch.rand(1, 3, 8, 40))[0].shape == (1, 1, 8, 40)
    with pytest.raises(ValueError, match=r"44×40 pixels.* multiples of 8"):
        discriminator(torch.rand(1, 3, 40, 44))


def test_the_one_of_features_judges_each_square_by_what_is_near_it_and_whatever_the_scale():
    torch.manual_seed(0)
    discriminator = build_discriminator("vgg-features", size=64, features=4, layers=["conv2_2", "conv3_4"])
    assert discriminator.vgg_layers == ("conv2_2", "conv3_4")
    x = {layer: torch.randn(1, *shape) for layer, shape in {"conv2_2": (128, 32, 32), "conv3_4": (256, 16, 16)}.items()}
    logits = discriminator(x)[0]
    louder = discriminator({layer: 50 * features for layer, features in x.items()})[0]
    torch.testing.assert_close(louder, logits, atol=1e-4, rtol=1e-4)
    x["conv3_4"][..., :8, :8] = torch.randn(1, 256, 8, 8)
    changed = discriminator(x)[0]
    assert torch.equal(changed[:, 0], logits[:, 0])  # of conv2_2, which is as before
    moved = (changed[0, 1] - logits[0, 1]).abs()
    assert moved[:8, :8].mean() > 5 * moved[10:, 10:].mean()  # farther off only the normalisation has changed


@pytest.mark.parametrize(("layers", "said"), [(["conv6_1"], "no layer 'conv6_1'"), ([], "at least one layer")])
def test_the_one_of_features_refuses_layers_that_vgg_has_not(layers, said):
    with pytest.raises(ValueError, match=said):
        build_discriminator("vgg-features", size=64, layers=layers)


def test_unknown_names_and_keywords_are_refused_with_near_ones():
    with pytest.raises(ValueError, match="unknown discriminator 'u-net'; did you mean unet"):
        build_discriminator("u-net")
    with pytest.raises(ValueError, match="unet takes no 'feature'; did you mean features"):
        build_discriminator("unet", feature=4)


def on_meta(name, **options):
    with torch.device("meta"):
        return build_discriminator(name, **options)


def count(discriminator):
    return sum(parameter.numel() for parameter in discriminator.parameters())


def test_esrgans_has_the_public_size_and_names():
    discriminator = on_meta("esrgan")
    state = discriminator.state_dict()
    assert count(discriminator) == 14_499_401
    shapes = {
        "conv0_0.weight": (64, 3, 3, 3),
        "conv0_0.bias": (64,),
        "conv0_1.weight": (64, 64, 4, 4),
        "bn0_1.running_mean": (64,),
        "conv1_0.weight": (128, 64, 3, 3),
        "bn1_0.weight": (128,),
        "conv3_0.weight": (512, 256, 3, 3),
        "conv4_1.weight": (512, 512, 4, 4),
        "bn4_1.num_batches_tracked": (),
        "linear1.weight": (100, 512 * 4 * 4),
        "linear2.weight": (1, 100),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes
    assert not {"conv0_1.bias", "bn0_0.weight"} & state.keys()
    assert on_meta("esrgan", size=192).linear1.in_features == 512 * 6 * 6


def test_unets_has_the_public_size_and_names():
    discriminator = on_meta("unet")
    state = discriminator.state_dict()
    assert count(discriminator) == 4_376_897
    convs = {f"conv{number}.weight_{kind}" for number in range(1, 9) for kind in ("orig", "u", "v")}
    assert state.keys() == convs | {"conv0.weight", "conv0.bias", "conv9.weight", "conv9.bias"}
    shapes = {
        "conv0.weight": (64, 3, 3, 3),
        "conv1.weight_orig": (128, 64, 4, 4),
        "conv1.weight_u": (128,),
        "conv1.weight_v": (64 * 4 * 4,),
        "conv3.weight_orig": (512, 256, 4, 4),
        "conv4.weight_orig": (256, 512, 3, 3),
        "conv6.weight_orig": (64, 128, 3, 3),
        "conv8.weight_v": (64 * 3 * 3,),
        "conv9.weight": (1, 64, 3, 3),
    }
    assert {key: tuple(state[key].shape) for key in shapes} == shapes


def test_afms_alternates_its_kernels():
    discriminator = on_meta("afm")
    found = [(conv.out_channels, conv.kernel_size[0], conv.stride[0]) for conv in discriminator.convs]
    widths = (64, 64, 128, 128, 256, 256, 512, 512)
    assert found == [(width, *((3, 1), (4, 2))[number % 2]) for number, width in enumerate(widths)]
    assert discriminator.linear1.in_features == 512 * 6 * 6


def test_afms_input_is_zero_centred_with_the_given_mean():
    mean = (0.25, 0.5, 0.75)
    discriminator = build_discriminator("afm", size=16, features=4, mean=mean)
    seen = []
    discriminator.convs[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    discriminator(torch.tensor(mean).view(1, 3, 1, 1) + torch.full((2, 3, 16, 16), 0.125))
    torch.testing.assert_close(seen[0], torch.full((2, 3, 16, 16), 0.125))
    again = build_discriminator("afm", size=16, features=4)
    again.load_state_dict(discriminator.state_dict())
    assert again.mean.flatten().tolist() == list(mean)
    with pytest.raises(ValueError, match="a mean of 3 channels"):
        build_discriminator("afm", mean=(0.5,))


def test_unet_is_the_published_formula():
    """Written out, with the weights as the network normalises them."""
    torch.manual_seed(0)
    network = UNetDiscriminator(features=4).eval()
    x = torch.rand(1, 3, 16, 24)
    act = nn.LeakyReLU(0.2)
    up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    x0 = act(network.conv0(x))
    x1 = act(network.conv1(x0))
    x2 = act(network.conv2(x1))
    x3 = act(network.conv3(x2))
    x4 = act(network.conv4(up(x3))) + x2
    x5 = act(network.conv5(up(x4))) + x1
    x6 = act(network.conv6(up(x5))) + x0
    expected = network.conv9(act(network.conv8(act(network.conv7(x6)))))
    torch.testing.assert_close(network(x)[0], expected)


def test_spectral_convolution_is_pytorchs():
    """Same names, same output, same gradient and same state as the spectral norm that made the public files."""
    torch.manual_seed(0)
    theirs = nn.utils.spectral_norm(nn.Conv2d(3, 5, 4, stride=2, padding=1, bias=False))
    ours = SpectralConv(3, 5, 4, stride=2)
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(2, 3, 8, 8)
    for _ in range(3):
        for conv in (theirs, ours):
            conv.zero_grad()
            (conv(x) + conv(x.flip(0))).square().sum().backward()
        torch.testing.assert_close(ours.weight_orig.grad, theirs.weight_orig.grad)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_spectral_norm_brings_the_largest_singular_value_to_one():
    torch.manual_seed(0)
    network = UNetDiscriminator(features=8)
    convs = [module for module in network.modules() if isinstance(module, SpectralConv)]
    assert len(convs) == 8
    with torch.no_grad():
        for conv in convs:
            conv.weight_orig.mul_(7)
        for _ in range(60):
            network(torch.rand(1, 3, 8, 8))
        for conv in network.eval().modules():
            if isinstance(conv, SpectralConv):
                assert torch.linalg.matrix_norm(conv.weight().flatten(1), ord=2).item() == pytest.approx(1, abs=0.03)


def test_spectral_norm_moves_in_training_only_and_leaves_a_network_that_can_be_copied():
    torch.manual_seed(0)
    network = UNetDiscriminator(features=4)
    x = torch.rand(1, 3, 8, 8)
    before = network.conv1.weight_u.clone()
    network.eval()(x)
    assert torch.equal(network.conv1.weight_u, before)
    network.train()(x)
    assert not torch.equal(network.conv1.weight_u, before)
    torch.testing.assert_close(copy.deepcopy(network).eval()(x)[0], network.eval()(x)[0])


def test_two_calls_before_one_backward_pass_work():
    """On the made and on the real pictures: the power iteration of the second must not spoil the first."""
    torch.manual_seed(0)
    network = UNetDiscriminator(features=4)
    fake, real = network(torch.rand(1, 3, 8, 8))[0], network(torch.rand(1, 3, 8, 8))[0]
    (fake.mean() - real.mean()).backward()
    assert network.conv4.weight_orig.grad.isfinite().all()
