"""Convolutions in 8-bit integers, for processors that multiply bytes fastest (VNNI): chains, and dense blocks.

Each convolution's kernel is rounded once, and the maps it is given as far as these reach, in a chain those of a band of
rows: nothing has to be known of the pictures to come, and a lone glyph does not coarsen the sky below it.  Sums are
exact, biases and activations float32, as is what a dense block is added to.

References: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
Inference", 2018, section 2; M. Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction",
2019, section 4.1.  Deviations: maps are rounded as they come, not by a range known before; channels of chains are
equalised by what they reach on noise, half as far as would make them equal; biases are left alone.  Measured, each gave
more.  A chain of kernels that bytes hold (`tools.round_kernels`) is taken as it is.
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

from sa_upscale.models.active import activated, convolved
from sa_upscale.models.bands import Conv, Layer, Residual, kept
from sa_upscale.models.rrdbnet import RESIDUAL_SCALE, SLOPE, DenseBlock, RRDBNet

LEVELS = 255  # of a map, from the lowest to the highest
MOST = 127  # steps of a kernel's weight, up and down
OFF_GRID = 0.2  # of a step, which a weight in half precision may be off: 127 steps in 11 bits, and the step likewise
LEAST_CHANNELS = 16  # a convolution of fewer is no faster in integers, and takes the picture itself
EQUALISED = 0.5  # 1 would make all channels of a map equally large, and the kernels behind them very unequal
NOISE = 128  # side of the picture that channels are compared on, in pixels of the network's feature maps


def able() -> bool:
    """Whether this processor multiplies bytes faster than floating-point numbers, and this torch can tell it to."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    fast = capabilities.get("avx512_vnni") or capabilities.get("avx_vnni")
    return bool(fast) and all(hasattr(torch.ops.onednn, name) for name in ("qconv2d_pointwise", "qconv_prepack"))


def suits(network: nn.Module) -> bool:
    """Whether a network is one of those that `converted` takes."""
    return hasattr(network, "layers") or isinstance(network, RRDBNet)


def converted(network: nn.Module, tail: torch.dtype = torch.float32) -> nn.Module:
    """A copy of the `network`, on the CPU, that multiplies integers.

    Of a chain, a network with `layers`, that is what all convolutions of many channels do; where kernels are `rounded`
    it is those, and the others are in the type `tail`.  Of RRDBNet it is what those of its dense blocks do.  Those at
    the size of the result, whose rounding would be seen, are in the type `tail`, and the last, which would shift the
    brightness of all of the picture, is in float32.
    """
    network = copy.deepcopy(network).float()
    if isinstance(network, RRDBNet):
        for block in network.body:
            block.rdb1, block.rdb2, block.rdb3 = map(Int8Dense, (block.rdb1, block.rdb2, block.rdb3))
        for conv, dtype in apart(network, tail).items():
            conv.to(dtype)
    else:
        layers = network.layers()
        if integers := rounded(layers):
            network.in_place_of_layers = _rounded_chain(layers, integers, tail)
        else:
            with torch.inference_mode():
                network.in_place_of_layers, _, _ = _chain(layers, network.stacked(_noise(network)), False)
    return network


def rounded(layers: Sequence[Layer]) -> list[Conv]:
    """The convolutions of a plain chain whose kernels bytes hold, and which multiply integers; none of other networks.

    Half of what rounded maps cost is of the first convolutions and the last: these are best left as they are.
    """
    if any(isinstance(layer, Residual) for layer in layers):
        return []
    return [layer for layer in layers if multiplies(layer) and on_grid(layer.weight.detach().float())]


def on_grid(weight: torch.Tensor) -> bool:
    """Whether rounding changes nothing about a kernel `(out, in, 3, 3)`, but for what half precision has changed."""
    codes = weight / steps(weight)[:, None, None, None]
    return bool(((codes - codes.round()).abs() < OFF_GRID).all())


def steps(weight: torch.Tensor) -> torch.Tensor:
    """The steps `(out,)` that a kernel `(out, in, 3, 3)` is rounded to: 127 to its largest weight."""
    return weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / MOST


def multiplies(layer: Conv | nn.Conv2d) -> bool:
    """Whether a convolution takes enough channels to be faster in integers."""
    return layer.weight.shape[1] >= LEAST_CHANNELS


def apart(network: nn.Module, tail: torch.dtype) -> dict[nn.Conv2d, torch.dtype]:
    """The convolutions of many channels that are not made integers, and the types they are in."""
    if isinstance(network, RRDBNet):
        exact = dict.fromkeys((network.conv_first, network.conv_body, network.conv_last), torch.float32)
        return exact | dict.fromkeys((network.conv_up1, network.conv_up2, network.conv_hr), tail)
    integers = {id(layer.weight) for layer in rounded(network.layers())}
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d)] if integers else []
    return {conv: tail for conv in convs if id(conv.weight) not in integers}


@dataclass(frozen=True)
class Codes:
    """Numbers as bytes: `scale * (byte - zero)`."""

    scale: float
    zero: int

    @classmethod
    def reaching(cls, *maps: torch.Tensor, positive: bool = False) -> "Codes":
        """The finest that hold all numbers of the maps `(N, C, h, w)`, and 0; infinite where one is not finite.

        Of maps without numbers below 0 only the largest is looked for.
        """
        return cls.between([bound for values in maps for bound in reach(values, positive)])

    @classmethod
    def between(cls, bounds: Sequence[float]) -> "Codes":
        """The finest that hold all of `bounds`, and 0; infinite where one is not finite."""
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


def reach(values: torch.Tensor, positive: bool = False) -> tuple[float, float]:
    """The smallest, or 0, and the largest number of a map `(N, C, h, w)`; not finite where one is not."""
    laid = values.permute(0, 2, 3, 1)  # as they lie in memory
    # Two passes: `aminmax` takes longer than both.
    return 0.0 if positive else float(laid.amin()), float(laid.amax())


class Int8Conv:
    """A `Conv` of the rows it is fed, in float32, which it rounds to bytes and multiplies as such; gives float32.

    `positive`: none of their numbers is below 0.
    """

    def __init__(self, kernel: "Kernel", bias: torch.Tensor, slope: float | None, *, positive: bool = False):
        self._kernel, self._bias, self._slope, self._positive = kernel, bias, slope, positive
        self._above: torch.Tensor | None = None

    def feed(self, rows: torch.Tensor, last: bool) -> torch.Tensor:
        rows = rows.float()
        maps = [rows] if self._above is None else [self._above, rows]
        codes = Codes.reaching(*maps, positive=self._positive)
        # Rounded first and joined as bytes: a fourth of the memory moved.
        parts = [codes.of(values) for values in maps]
        # A row laid otherwise would have all that it is joined to laid anew, there and before the convolution.
        edge = torch.full_like(rows[:, :, :1], codes.zero, dtype=torch.uint8, memory_format=torch.channels_last)
        parts = [edge] * (self._above is None) + parts + [edge] * last
        self._above = kept(rows[:, :, -2:], self._above)
        made = self._kernel.convolve(torch.cat(parts, dim=2), codes, self._bias, relu=self._slope == 0)
        if math.isinf(codes.scale):
            made.fill_(math.nan)  # as in floating-point numbers; the engine tells the user
        return activated(made, self._slope) if self._slope else made

    def begun(self) -> "Int8Conv":
        return Int8Conv(self._kernel, self._bias, self._slope, positive=self._positive)


class Int8Dense(nn.Module):
    """A `DenseBlock` of float32 features, whose maps are rounded to bytes as they come and multiplied as such.

    The features themselves are not rounded: what the block adds to them is a fifth of what it makes, and with that of
    what its rounding costs.
    """

    def __init__(self, block: DenseBlock):
        super().__init__()
        *growing, last = ((Kernel(conv.weight.detach()), conv.bias.detach()) for conv in block.children())
        self._growing, self._last = growing, last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps, bounds = [x], list(reach(x))
        codes = Codes.between(bounds)
        parts = [codes.of(x)]
        for kernel, bias in self._growing:
            made = activated(kernel.convolve(_beside(parts), codes, bias, padding=(1, 1)), SLOPE)
            maps.append(made)
            bounds += reach(made)
            if (wider := Codes.between(bounds)) == codes:
                parts.append(codes.of(made))
            else:
                codes = wider
                parts = [codes.of(values) for values in maps]
            if math.isinf(codes.scale):
                return torch.full_like(x, math.nan)  # as in floating-point numbers; the engine tells the user
        kernel, bias = self._last
        return torch.add(x, kernel.convolve(_beside(parts), codes, bias, padding=(1, 1)), alpha=RESIDUAL_SCALE)


def _beside(parts: list[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class Kernel:
    """A convolution's weights `(out, in, 3, 3)`, each output channel in steps of 1/127 of its largest."""

    def __init__(self, weight: torch.Tensor):
        self._scales = steps(weight)
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        codes = (weight / self._scales[:, None, None, None]).round().to(torch.int8)
        self._packed = torch.ops.onednn.qconv_prepack(codes, self._scales, 1.0, 0, *_form((0, 1)))

    def convolve(
        self,
        codes: torch.Tensor,
        of: Codes,
        bias: torch.Tensor,
        *,
        relu: bool = False,
        padding: tuple[int, int] = (0, 1),
    ) -> torch.Tensor:
        """The float32 result for bytes `(N, in, h, w)`, with zeros around them: by default only left and right."""
        source = (codes, of.scale, of.zero)
        made = (1.0, 0, torch.float32)
        after = ("relu" if relu else "none", [], "")
        weights = (self._packed, self._scales, self._zeros)
        return torch.ops.onednn.qconv2d_pointwise(*source, *weights, bias, *_form(padding), *made, *after)


def _form(padding: tuple[int, int]) -> tuple[list[int], list[int], list[int], int]:
    """Stride, padding, dilation and groups, as oneDNN's operations take them."""
    return [1, 1], list(padding), [1, 1], 1


def _rounded_chain(layers: Sequence[Conv], integers: Sequence[Conv], tail: torch.dtype) -> list[Layer]:
    made: list[Layer] = []
    before = None
    for layer in layers:
        weight, bias = layer.weight.detach(), layer.bias.detach()
        made.append(_one(layer, weight, bias, tail=None if layer in integers else tail, positive=before == 0))
        before = layer.slope
    return made


def _chain(layers: Sequence[Layer], x: torch.Tensor, positive: bool) -> tuple[list[Layer], torch.Tensor, bool]:
    """The layers in integers, what they make of `x` in float32, and whether none of that can be below 0.

    `positive`: whether none of `x` can.
    """
    made: list[Layer] = []
    divisor: torch.Tensor | None = None  # of the channels of `x`
    for layer, following in itertools.zip_longest(layers, layers[1:]):
        if isinstance(layer, Residual):
            inner, added, adds = _chain(layer.layers, x, positive)
            made.append(Residual(*inner))
            x, positive = x + added, positive and adds
            continue
        weight, bias = layer.weight.detach(), layer.bias.detach()
        if divisor is not None:
            weight, divisor = weight * divisor[:, None, None], None
        x = convolved(x, weight, bias, layer.slope, groups=layer.groups)
        if isinstance(following, Conv):
            # (Leaky) ReLU of a multiple is the multiple of it: what one convolution divides by, the next multiplies.
            spread = (x.amax((0, 2, 3)) - x.amin((0, 2, 3))).clamp_min(1e-4)
            # Rounded, so that it does not change with the last digits of these sums, nor with the number of threads.
            divisor = torch.exp2((8 * EQUALISED * (spread / spread.mean()).log2()).round() / 8)
            weight, bias, x = weight / divisor[:, None, None, None], bias / divisor, x / divisor[:, None, None]
        made.append(_one(layer, weight, bias, tail=None if multiplies(layer) else torch.float32, positive=positive))
        positive = layer.slope == 0
    return made, x, positive


def _one(
    layer: Conv, weight: torch.Tensor, bias: torch.Tensor, *, tail: torch.dtype | None, positive: bool
) -> Int8Conv | Conv:
    """The layer with that kernel and bias: in integers, or in the type `tail`."""
    if tail is None:
        return Int8Conv(Kernel(weight), bias, layer.slope, positive=positive)
    weight = weight.to(tail).contiguous(memory_format=torch.channels_last)
    return Conv(weight, bias.to(tail), layer.slope, groups=layer.groups)


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
