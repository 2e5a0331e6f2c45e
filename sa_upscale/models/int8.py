"""Chains of convolutions in 8-bit integers, for processors that multiply bytes fastest (VNNI).

Each convolution's kernel is rounded once, and the rows it is given as far as these reach: nothing has to be known of
the pictures to come, and a lone glyph does not coarsen the sky below it.  Sums are exact, biases and activations
float32.

References: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, section 2; M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019, section 4.1.  Deviations: maps are rounded as they come, not by a range known before; channels are equalised by
what they reach on noise, half as far as would make them equal; biases are left alone.  Measured, each gave more.
"""

import copy
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.models.active import activated
from sa_upscale.models.bands import Conv, Layer, Residual, kept

LEVELS = 255
LEAST_CHANNELS = 16  # a convolution of fewer is no faster in integers, and takes the picture itself
EQUALISED = 0.5  # 1 would make all channels of a map equally large, and the kernels behind them very unequal
NOISE = 128  # side of the picture that channels are compared on, in pixels of the network's feature maps


def able() -> bool:
    """Whether this processor multiplies bytes faster than floating-point numbers, and this torch can tell it to."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")
    return bool(fast) and all(hasattr(torch.ops.onednn, name) for name in ("qconv2d_pointwise", "qconv_prepack"))


def converted(network: nn.Module) -> nn.Module:
    """A copy of the `network`, one with `layers` on the CPU, whose convolutions of many channels run in integers."""
    network = copy.deepcopy(network).float()
    with torch.inference_mode():
        network.in_place_of_layers, _ = _chain(network.layers(), network.stacked(_noise(network)))
    return network


@dataclass(frozen=True)
class Codes:
    """Numbers as bytes: `scale * (byte - zero)`."""

    scale: float
    zero: int

    @classmethod
    def reaching(cls, *maps: torch.Tensor) -> "Codes":
        """The finest that hold all numbers of the maps `(N, C, h, w)`, and 0; infinite where one is not finite."""
        # As they lie in memory.  Two passes: `aminmax` takes longer than both.
        laid = [values.permute(0, 2, 3, 1) for values in maps]
        bounds = [float(bound) for values in laid for bound in (values.amin(), values.amax())]
        if not all(map(math.isfinite, bounds)):
            return cls(math.inf, 0)
        low, high = min(0.0, *bounds), max(1e-6, *bounds)
        scale = (high - low) / LEVELS
        return cls(scale, round(-low / scale))

    def of(self, values: torch.Tensor) -> torch.Tensor:
        """float32 `values` as bytes, laid in memory as they are."""
        if (quantise := _quantising()) is None:
            return (values / self.scale).round_().add_(self.zero).clamp_(0, LEVELS).to(torch.uint8)
        made = quantise(values, self.scale, self.zero, torch.quint8)
        # Its memory itself: `int_repr` would copy it, in a quarter of a convolution's time.
        return torch.empty(0, dtype=torch.uint8).set_(made.untyped_storage(), 0, made.shape, made.stride())


class Int8Conv:
    """A `Conv` of the float32 rows it is fed, which it rounds to bytes and multiplies as such; gives float32."""

    def __init__(self, kernel: "Kernel", bias: torch.Tensor, slope: float | None):
        self._kernel, self._bias, self._slope = kernel, bias, slope
        self._above: torch.Tensor | None = None

    def feed(self, rows: torch.Tensor, last: bool) -> torch.Tensor:
        maps = [rows] if self._above is None else [self._above, rows]
        codes = Codes.reaching(*maps)
        # Rounded first and joined as bytes: a fourth of the memory moved.
        parts = [codes.of(values) for values in maps]
        edge = parts[0].new_full((*rows.shape[:2], 1, rows.shape[3]), codes.zero)
        parts = [edge] * (self._above is None) + parts + [edge] * last
        self._above = kept(rows[:, :, -2:], self._above)
        made = self._kernel.convolve(torch.cat(parts, dim=2), codes, self._bias, relu=self._slope == 0)
        if math.isinf(codes.scale):
            made.fill_(math.nan)  # as in floating-point numbers; the engine tells the user
        return activated(made, self._slope) if self._slope else made

    def begun(self) -> "Int8Conv":
        return Int8Conv(self._kernel, self._bias, self._slope)


class Kernel:
    """A convolution's weights `(out, in, 3, 3)`, each output channel in steps of 1/127 of its largest."""

    _FORM = ([1, 1], [0, 1], [1, 1], 1)  # stride, padding (above and below is fed), dilation, groups

    def __init__(self, weight: torch.Tensor):
        self._scales = weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        steps = (weight / self._scales[:, None, None, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qconv_prepack(steps, self._scales, 1.0, 0, *self._FORM)

    def convolve(self, codes: torch.Tensor, of: Codes, bias: torch.Tensor, *, relu: bool) -> torch.Tensor:
        """The float32 result for bytes `(N, in, rows + 2, w)`."""
        source = (codes, of.scale, of.zero)
        made = (1.0, 0, torch.float32)
        after = ("relu" if relu else "none", [], "")
        weights = (self._packed, self._scales, self._zeros)
        return torch.ops.onednn.qconv2d_pointwise(*source, *weights, bias, *self._FORM, *made, *after)


def _chain(layers: Sequence[Layer], x: torch.Tensor) -> tuple[list[Layer], torch.Tensor]:
    """The layers in integers, and what they make of `x` in float32."""
    made: list[Layer] = []
    divisor: torch.Tensor | None = None  # of the channels of `x`
    for layer, following in itertools.zip_longest(layers, layers[1:]):
        if isinstance(layer, Residual):
            inner, added = _chain(layer.layers, x)
            made.append(Residual(*inner))
            x = x + added
            continue
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if divisor is not None:
            weight, divisor = weight * divisor[:, None, None], None
        x = activated(F.conv2d(x, weight, bias, padding=1, groups=layer.groups), layer.slope)
        if isinstance(following, Conv):
            # (Leaky) ReLU of a multiple is the multiple of it: what one convolution divides by, the next multiplies.
            reach = (x.amax((0, 2, 3)) - x.amin((0, 2, 3))).clamp_min(1e-4)
            # Rounded, so that it does not change with the last digits of these sums, nor with the number of threads.
            divisor = torch.exp2((8 * EQUALISED * (reach / reach.mean()).log2()).round() / 8)
            weight, bias, x = weight / divisor[:, None, None, None], bias / divisor, x / divisor[:, None, None]
        if weight.shape[1] < LEAST_CHANNELS:
            weight = weight.contiguous(memory_format=torch.channels_last)
            made.append(Conv(weight, bias, layer.slope, groups=layer.groups))
        else:
            made.append(Int8Conv(Kernel(weight), bias, layer.slope))
    return made, x


def _noise(network: nn.Module) -> torch.Tensor:
    """A picture of noise that falls off with frequency as photos do, as the network takes it; for frames it moves."""
    side = NOISE // (network.scale if hasattr(network, "prepare") else 1)
    draws = torch.randn(network.channels, side, side, generator=torch.Generator().manual_seed(0))
    frequency = torch.hypot(torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None]).clamp_min(1 / side)
    noise = torch.fft.irfft2(torch.fft.rfft2(draws) / frequency, s=(side, side))
    picture = (0.5 + 0.2 * (noise - noise.mean()) / noise.std()).clamp(0, 1)[None]
    if network.window == 1:
        return picture
    return torch.stack([picture.roll(number, dims=-1) for number in range(network.window)], dim=1)


@functools.cache
def _quantising() -> Callable[..., torch.Tensor] | None:
    """torch's own rounding to bytes, one pass over memory; None where a later torch has left it out."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will be left out; said once
            torch.quantize_per_tensor(torch.zeros(1), 1.0, 0, torch.quint8)
    except (AttributeError, RuntimeError):
        return None
    return torch.quantize_per_tensor
