"""The discriminators of the four papers, of Real-ESRGAN, and one of VGG's features.

Each takes pictures `(N, 3, H, W)` in [0, 1] and returns `(logits, features)`: logits in float32, and the feature maps
of its convolutions in order, after batch normalisation where there is one and before the activation.  One with
`vgg_layers` takes VGG's outputs of those in place of the pictures.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.functional import vgg
from sa_upscale.models.swinir import DIV2K_MEAN

SLOPE = 0.2

Judgement = tuple[torch.Tensor, list[torch.Tensor]]


class ESRGANDiscriminator(nn.Module):
    """Five pairs of a 3×3 convolution and a 4×4 one of stride 2, then two dense layers: logits `(N, 1)`.

    `size`: the side of the pictures it judges, a multiple of 32; others raise `ValueError`.

    Reference: X. Wang et al., "ESRGAN", 2018: the VGG-style one for 128×128, with the names of its public files.
    """

    def __init__(self, size: int = 128, features: int = 64, hidden: int = 100, channels: int = 3):
        super().__init__()
        _check_built_for(size, 32)
        self.size = size
        self.parameters_dict = {"size": size, "features": features, "hidden": hidden, "channels": channels}
        widths = [features * factor for factor in (1, 2, 4, 8, 8)]
        for stage, (inputs, outputs) in enumerate(zip([channels, *widths], widths, strict=False)):
            first = stage == 0  # nothing normalises what comes straight from the picture
            self.add_module(f"conv{stage}_0", nn.Conv2d(inputs, outputs, 3, padding=1, bias=first))
            self.add_module(f"bn{stage}_0", nn.Identity() if first else nn.BatchNorm2d(outputs))
            self.add_module(f"conv{stage}_1", nn.Conv2d(outputs, outputs, 4, stride=2, padding=1, bias=False))
            self.add_module(f"bn{stage}_1", nn.BatchNorm2d(outputs))
        self.linear1 = nn.Linear(widths[-1] * (size // 32) ** 2, hidden)
        self.linear2 = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> Judgement:
        _check_shown(x, self.size)
        names = [f"{stage}_{half}" for stage in range(5) for half in range(2)]
        layers = [(self.get_submodule(f"conv{name}"), self.get_submodule(f"bn{name}")) for name in names]
        x, features = _through(x, layers)
        return self.linear2(_activate(self.linear1(x.flatten(1)))).float(), features


class AFMDiscriminator(nn.Module):
    """Eight convolutions, 3×3 and 4×4 of stride 2 in turn, each normalised, then two dense layers: logits `(N, 1)`.

    `size`: the side of the pictures it judges, a multiple of 16; others raise `ValueError`.  `mean`: of each channel
    over the training set, in [0, 1], taken off the pictures first; it is saved with the weights.

    Reference: "Enhancing Perceptual Loss with Adversarial Feature Matching for Super-Resolution".  It does not give the
    width of the hidden dense layer, which is ESRGAN's here.
    """

    def __init__(
        self,
        size: int = 96,
        features: int = 64,
        hidden: int = 100,
        channels: int = 3,
        mean: Sequence[float] = DIV2K_MEAN,
    ):
        super().__init__()
        _check_built_for(size, 16)
        if len(mean) != channels:
            raise ValueError(f"a mean of {channels} channels has as many numbers, not {len(mean)}")
        self.size = size
        self.parameters_dict = {"size": size, "features": features, "hidden": hidden, "channels": channels}
        self.parameters_dict["mean"] = list(mean)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, channels, 1, 1))
        widths = [features * factor for factor in (1, 1, 2, 2, 4, 4, 8, 8)]
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for number, (inputs, outputs) in enumerate(zip([channels, *widths], widths, strict=False)):
            kernel, stride = ((3, 1), (4, 2))[number % 2]
            self.convs.append(nn.Conv2d(inputs, outputs, kernel, stride, padding=1, bias=False))
            self.norms.append(nn.BatchNorm2d(outputs))
        self.linear1 = nn.Linear(widths[-1] * (size // 16) ** 2, hidden)
        self.linear2 = nn.Linear(hidden, 1)

    def forward(self, x: torch.Tensor) -> Judgement:
        _check_shown(x, self.size)
        x, features = _through(x - self.mean, zip(self.convs, self.norms, strict=True))
        return self.linear2(_activate(self.linear1(x.flatten(1)))).float(), features


class VSRResFeatGANDiscriminator(nn.Module):
    """Three normalised 3×3 convolutions of stride 2 and one dense layer: logits `(N, 1)`.

    `size`: the side of the pictures it judges, 8 or more; others raise `ValueError`.

    Reference: "Spatially adaptive losses for image and video super-resolution with GANs" trains it on 36×36.  It gives
    neither widths nor kernels nor strides; the widths double from `features` on here.
    """

    def __init__(self, size: int = 36, features: int = 64, channels: int = 3):
        super().__init__()
        if size < 8:
            raise ValueError(f"this discriminator is built for a size of 8 or more, not {size}")
        self.size = size
        self.parameters_dict = {"size": size, "features": features, "channels": channels}
        widths = [features, 2 * features, 4 * features]
        self.convs = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
            for inputs, outputs in zip([channels, *widths], widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(outputs) for outputs in widths)
        self.linear = nn.Linear(widths[-1] * math.ceil(size / 8) ** 2, 1)

    def forward(self, x: torch.Tensor) -> Judgement:
        _check_shown(x, self.size)
        x, features = _through(x, zip(self.convs, self.norms, strict=True))
        return self.linear(x.flatten(1)).float(), features


class UNetDiscriminator(nn.Module):
    """A U-Net with spectral normalisation that judges every pixel: logits `(N, 1, H, W)`.

    Takes pictures of any size whose sides are multiples of 8; others raise `ValueError`.  `size` is the side that it
    will be shown in training, only checked, so that a wrong one is refused before training starts.

    Reference: X. Wang et al., "Real-ESRGAN", 2021, with the names of its public files.
    """

    multiple = 8

    def __init__(self, size: int = 256, features: int = 64, channels: int = 3):
        super().__init__()
        _check_built_for(size, self.multiple)
        self.size = size
        self.parameters_dict = {"size": size, "features": features, "channels": channels}
        self.conv0 = nn.Conv2d(channels, features, 3, padding=1)
        self.conv1 = SpectralConv(features, 2 * features, 4, stride=2)
        self.conv2 = SpectralConv(2 * features, 4 * features, 4, stride=2)
        self.conv3 = SpectralConv(4 * features, 8 * features, 4, stride=2)
        self.conv4 = SpectralConv(8 * features, 4 * features, 3)
        self.conv5 = SpectralConv(4 * features, 2 * features, 3)
        self.conv6 = SpectralConv(2 * features, features, 3)
        self.conv7 = SpectralConv(features, features, 3)
        self.conv8 = SpectralConv(features, features, 3)
        self.conv9 = nn.Conv2d(features, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> Judgement:
        if any(side % self.multiple for side in x.shape[-2:]):
            raise ValueError(f"{_sides(x)} pixels: this discriminator takes sides that are multiples of 8")
        features = [self.conv0(x)]
        for conv in (self.conv1, self.conv2, self.conv3):
            features.append(conv(_activate(features[-1])))
        skips = [_activate(feature) for feature in features]
        x = skips.pop()
        for conv in (self.conv4, self.conv5, self.conv6):
            features.append(conv(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)))
            x = _activate(features[-1]) + skips.pop()
        for conv in (self.conv7, self.conv8):
            features.append(conv(x))
            x = _activate(features[-1])
        return self.conv9(x).float(), features


class VGGFeatureDiscriminator(nn.Module):
    """A few convolutions on each of some layers of a frozen VGG19, which judge every square of the deepest one's
    stride: logits `(N, layers, h, w)`.

    Called with VGG's outputs by name, `{layer: (N, channels, h, w)}` before their activation.  Each goes by 4×4
    convolutions of stride 2 to the size of the deepest and through a 3×3 one, all normalised over the picture, so that
    the scale of VGG's outputs does not matter.
    What VGG has learnt it need not learn, so that it is of use after a hundred steps; what it judges is local, so that
    a pattern which no photograph has is found wherever it stands.

    `size` is the side of the pictures, a multiple of the deepest layer's stride (4 for conv3); others, and layers that
    VGG19 has not, raise `ValueError`.

    Reference: S.-J. Park et al., "SRFeat: Single Image Super-Resolution with Feature Discrimination", 2018, for the
    idea.  Several layers at once, judged locally, are our own.
    """

    def __init__(self, size: int = 128, features: int = 64, layers: Sequence[str] = ("conv1_2", "conv2_2", "conv3_4")):
        super().__init__()
        if not layers:
            raise ValueError("this discriminator judges at least one layer of VGG19")
        deepest = max(map(vgg.halvings, layers))
        _check_built_for(size, 2**deepest)
        self.vgg_layers = tuple(layers)
        self.parameters_dict = {"size": size, "features": features, "layers": list(layers)}
        self.heads = nn.ModuleDict()
        for layer in layers:
            inputs = [vgg.channels(layer), *[features] * (deepest - vgg.halvings(layer))]
            convs = [nn.Conv2d(count, features, 4, stride=2, padding=1, bias=False) for count in inputs[:-1]]
            convs.append(nn.Conv2d(inputs[-1], features, 3, padding=1, bias=False))
            pairs = [nn.ModuleList([conv, nn.GroupNorm(1, features)]) for conv in convs]
            self.heads[layer] = nn.ModuleList([*pairs, nn.Conv2d(features, 1, 3, padding=1)])

    def forward(self, x: Mapping[str, torch.Tensor]) -> Judgement:
        logits, features = [], []
        for layer, (*pairs, last) in self.heads.items():
            out, seen = _through(x[layer], pairs)
            logits.append(last(out))
            features += seen
        return torch.cat(logits, dim=1).float(), features


class SpectralConv(nn.Module):
    """A convolution without bias whose weight, a matrix with a row for each output, has the largest singular value 1.

    One step of the power iteration at each training call keeps the divisor up to date.  PyTorch's own spectral norm
    would do the same, but its deprecated form, whose names the public files have, leaves a network that has been run
    uncopyable.

    Reference: T. Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.weight_orig = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        nn.init.kaiming_uniform_(self.weight_orig, a=math.sqrt(5))
        self.register_buffer("weight_u", F.normalize(torch.randn(outputs), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(inputs * kernel * kernel), dim=0))

    def weight(self) -> torch.Tensor:
        """The normalised weight `(outputs, inputs, kernel, kernel)`; in training after one step of the iteration."""
        matrix = self.weight_orig.flatten(1)
        if self.training:
            with torch.no_grad():
                self.weight_v.copy_(F.normalize(matrix.T @ self.weight_u, dim=0))
                self.weight_u.copy_(F.normalize(matrix @ self.weight_v, dim=0))
        # Copies: a second call before the backward pass, on the real pictures after the made ones, changes both.
        u, v = self.weight_u.clone(), self.weight_v.clone()
        return self.weight_orig / (u @ (matrix @ v))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight()
        return F.conv2d(x, weight, stride=self.stride, padding=1)


def _through(x: torch.Tensor, layers: Iterable[tuple[nn.Module, nn.Module]]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """What comes out of the last activation, and what went into each."""
    features = []
    for conv, norm in layers:
        features.append(norm(conv(x)))
        x = _activate(features[-1])
    return x, features


def _activate(x: torch.Tensor) -> torch.Tensor:
    # Not in place: what goes in is returned to the losses.
    return F.leaky_relu(x, SLOPE)


def _check_built_for(size: int, multiple: int) -> None:
    if size < multiple or size % multiple:
        raise ValueError(f"this discriminator is built for a size that is a multiple of {multiple}, not {size}")


def _check_shown(x: torch.Tensor, size: int) -> None:
    if x.shape[-2:] != (size, size):
        raise ValueError(f"{_sides(x)} pixels: this discriminator is built for {size}×{size}; give it the right size")


def _sides(x: torch.Tensor) -> str:
    return f"{x.shape[-1]}×{x.shape[-2]}"
