"""SwinIR: self-attention in windows that shift from block to block, and the reading of the public files of it."""

import itertools
import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.errors import near
from sa_upscale.models.empty import empty

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
UPSAMPLERS = ("pixelshuffle", "pixelshuffledirect")
STAGES = {2: (2,), 3: (3,), 4: (2, 2), 8: (2, 2, 2)}  # the sub-pixel steps that make up each scale
# The authors' own program lets tiles share 32 pixels; here each gives 32.
SHARED_BY_TILES = 32
# Follow from the sizes alone; public files hold them all the same, for the size that they were trained at.
DERIVED = ("relative_position_index", "attn_mask")


class SwinIR(nn.Module):
    """Groups of window-attention blocks at LR size between two convolutions, then sub-pixel upscaling.

    Takes `(N, channels, h, w)` in [0, 1] and returns float32 `(N, channels, h * scale, w * scale)`, unclamped.  Sides
    that are no multiples of `window_size` are mirrored up to one and the result is cut back.

    `depths` and `heads`: blocks of each group and attention heads of its blocks.  `upsampler`: "pixelshuffle", or
    "pixelshuffledirect" for the lightweight network, which is
    `SwinIR(embed_dim=60, depths=(6,) * 4, heads=(6,) * 4, upsampler="pixelshuffledirect")`.  `drop_path`: with what
    probability the last block leaves out its residual branches while training, the blocks before it ever less.

    Names are those of the public files, which load with `strict=True`; what these hold beside weights is left out.
    Raises `ValueError` for a scale other than 2, 3, 4 or 8 and for sizes that do not fit each other.

    Reference: J. Liang et al., "SwinIR: Image Restoration Using Swin Transformer", 2021: the classical network (the
    defaults) and the lightweight one.
    """

    window = 1

    def __init__(
        self,
        scale: int = 4,
        embed_dim: int = 180,
        depths: Sequence[int] = (6, 6, 6, 6, 6, 6),
        heads: Sequence[int] = (6, 6, 6, 6, 6, 6),
        window_size: int = 8,
        mlp_ratio: float = 2.0,
        features: int = 64,
        channels: int = 3,
        upsampler: str = "pixelshuffle",
        drop_path: float = 0.1,
    ):
        super().__init__()
        _check(scale, embed_dim, depths, heads, window_size, upsampler)
        self.scale, self.channels, self.multiple = scale, channels, window_size
        direct = upsampler == "pixelshuffledirect"
        # Each block sees to the end of a window.  Of the convolutions, the first, one a group and the one after them
        # reach a pixel each; the upsampler's one, or one at LR size and less than two in all at larger ones.
        self.context = sum(depths) * (window_size - 1) + len(depths) + 2 + (1 if direct else 3)
        self.overlap = min(self.context, SHARED_BY_TILES)
        self.parameters_dict = {
            "scale": scale,
            "embed_dim": embed_dim,
            "depths": list(depths),
            "heads": list(heads),
            "window_size": window_size,
            "mlp_ratio": mlp_ratio,
            "features": features,
            "channels": channels,
            "upsampler": upsampler,
            "drop_path": drop_path,
        }
        self.mean = DIV2K_MEAN if channels == 3 else (0.0,) * channels
        self.conv_first = _conv(channels, embed_dim)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(embed_dim)})
        drops = iter([drop_path * block / max(1, sum(depths) - 1) for block in range(sum(depths))])
        self.layers = nn.ModuleList(
            Group(embed_dim, count, window_size, round(embed_dim * mlp_ratio), list(itertools.islice(drops, depth)))
            for depth, count in zip(depths, heads, strict=True)
        )
        self.norm = nn.LayerNorm(embed_dim)
        self.conv_after_body = _conv(embed_dim, embed_dim)
        if direct:
            self.upsample = nn.Sequential(_conv(embed_dim, channels * scale**2), nn.PixelShuffle(scale))
        else:
            self.conv_before_upsample = nn.Sequential(_conv(embed_dim, features), nn.LeakyReLU(inplace=True))
            stages = [(_conv(features, features * step**2), nn.PixelShuffle(step)) for step in STAGES[scale]]
            self.upsample = nn.Sequential(*(module for stage in stages for module in stage))
            self.conv_last = _conv(features, channels)
        self.exact_in_bf16 = () if direct else ("conv_last",)

    def forward(self, lr: torch.Tensor) -> torch.Tensor:
        height, width = lr.shape[-2:]
        mean = torch.tensor(self.mean, device=lr.device).view(-1, 1, 1)
        x = self._whole_windows(lr.float() - mean)
        # Tokens are then a view of the convolutions' memory, not a copy.
        x = x.to(self.conv_first.weight.dtype).contiguous(memory_format=torch.channels_last)
        x = self._upsampled(self._features(x))
        return x[..., : height * self.scale, : width * self.scale].float() + mean

    def _whole_windows(self, x: torch.Tensor) -> torch.Tensor:
        more = [-side % self.multiple for side in x.shape[-2:]]
        if not any(more):
            return x
        if min(x.shape[-2:]) <= max(more):
            raise ValueError(f"{tuple(x.shape[-2:])} pixels are too few to be mirrored to windows of {self.multiple}")
        return F.pad(x, (0, more[1], 0, more[0]), mode="reflect")

    def _features(self, x: torch.Tensor) -> torch.Tensor:
        first = self.conv_first(x)
        tokens = self.patch_embed["norm"](first.permute(0, 2, 3, 1))
        for layer in self.layers:
            tokens = layer(tokens)
        return first + self.conv_after_body(self.norm(tokens).permute(0, 3, 1, 2))

    def _upsampled(self, x: torch.Tensor) -> torch.Tensor:
        if self.parameters_dict["upsampler"] == "pixelshuffledirect":
            return self.upsample(x)
        x = self.upsample(self.conv_before_upsample(x))
        return self.conv_last(x.to(self.conv_last.weight.dtype))


class Group(nn.Module):
    """Blocks whose windows lie on the grid and half a window beside it in turn, and a convolution, with a skip."""

    def __init__(self, dim: int, heads: int, window_size: int, hidden: int, drops: Sequence[float]):
        super().__init__()
        shifts = [window_size // 2 * (number % 2) for number in range(len(drops))]
        blocks = [
            Block(dim, heads, window_size, shift, hidden, drop) for shift, drop in zip(shifts, drops, strict=True)
        ]
        self.residual_group = nn.ModuleDict({"blocks": nn.ModuleList(blocks)})
        self.conv = _conv(dim, dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = tokens
        for block in self.residual_group["blocks"]:
            x = block(x)
        return tokens + self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Block(nn.Module):
    """Attention in windows moved by `shift` pixels, then a two-layer perceptron, each normalised and with a skip.

    Takes and returns tokens `(N, h, w, dim)`, `h` and `w` multiples of `window_size`.
    """

    def __init__(self, dim: int, heads: int, window_size: int, shift: int, hidden: int, drop: float):
        super().__init__()
        self.window_size, self.shift, self.drop = window_size, shift, drop
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window_size)
        self.norm2 = nn.LayerNorm(dim)
        layers = {"fc1": _linear(dim, hidden), "act": nn.GELU(), "fc2": _linear(hidden, dim)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        if shift:
            self.register_buffer("strangers", _strangers(window_size, shift), persistent=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self._dropped(self._attended(self.norm1(tokens)))
        return tokens + self._dropped(self.mlp(self.norm2(tokens)))

    def _attended(self, tokens: torch.Tensor) -> torch.Tensor:
        height, width = tokens.shape[1:3]
        if not self.shift:
            return _joined(self.attn(_windows(tokens, self.window_size)), height, width)
        windows = _windows(tokens.roll((-self.shift, -self.shift), dims=(1, 2)), self.window_size)
        apart = self._apart(height // self.window_size, width // self.window_size)
        return _joined(self.attn(windows, apart), height, width).roll((self.shift, self.shift), dims=(1, 2))

    def _apart(self, rows: int, columns: int) -> torch.Tensor:
        """Which pairs of tokens each of `rows * columns` windows keeps apart, bool `(windows, tokens, tokens)`.

        Only the last row and the last column of windows hold pixels from both ends of the picture.
        """
        last_row = torch.arange(rows, device=self.strangers.device) == rows - 1
        last_column = torch.arange(columns, device=self.strangers.device) == columns - 1
        return self.strangers[(2 * last_row[:, None] + last_column).flatten()]

    def _dropped(self, branch: torch.Tensor) -> torch.Tensor:
        """The residual branch, in training left out for some samples and stronger for the others to make up for it."""
        if not (self.training and self.drop):
            return branch
        keep = 1 - self.drop
        return branch * branch.new_empty(len(branch), 1, 1, 1).bernoulli_(keep).div_(keep)

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        _forget(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class WindowAttention(nn.Module):
    """Every token of a window attends to all of it, with a learnt bias for each distance in rows and columns."""

    def __init__(self, dim: int, heads: int, window_size: int):
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window_size - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", _relative_positions(window_size), persistent=False)
        self.qkv = _linear(dim, 3 * dim)
        self.proj = _linear(dim, dim)

    def forward(self, windows: torch.Tensor, apart: torch.Tensor | None = None) -> torch.Tensor:
        """Attended windows, of the same shape `(N, windows, tokens, dim)`.

        `apart`: bool `(windows, tokens, tokens)`, true where a token must not see another.
        """
        samples, count, tokens, dim = windows.shape
        # Four dimensions, and a mask of four: with three PyTorch 2.13 falls back to a slower way on a CPU.
        split = self.qkv(windows).view(samples * count, tokens, 3, self.heads, dim // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None].to(query.dtype)
        if apart is not None:
            bias = bias.masked_fill(apart[:, None], -math.inf)
            bias = bias.expand(samples, -1, -1, -1, -1).flatten(0, 1)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.proj(attended.transpose(1, 2).reshape(windows.shape))

    def _load_from_state_dict(self, state_dict, prefix, *rest):
        _forget(state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def canonical_swinir(state_dict: dict[str, torch.Tensor]) -> tuple[dict, dict[str, torch.Tensor]] | None:
    """Constructor keywords and state dict for any file of a classical or lightweight SwinIR, else None.

    All but the training's `drop_path` is read from names and shapes, and the result is only returned when every key
    and shape is the network's: relatives for denoising, those that upscale otherwise ("nearest+conv") and the large
    one with three convolutions a group are not this network.
    """
    clean = {key: value for key, value in state_dict.items() if key.rpartition(".")[2] not in DERIVED}
    try:
        parameters = _parameters({key: tuple(value.shape) for key, value in clean.items()})
        with empty("meta"):
            wanted = SwinIR(**parameters).state_dict()
    except (LookupError, ValueError, AttributeError, ArithmeticError):
        return None  # a key that is not there, or numbers that make no network
    if {key: value.shape for key, value in wanted.items()} != {key: value.shape for key, value in clean.items()}:
        return None
    return parameters, clean


def _parameters(shapes: dict[str, tuple[int, ...]]) -> dict:
    """Constructor keywords from the shapes of the weights; `LookupError` or `ValueError` when they are another's."""
    embed_dim, channels, *_ = shapes["conv_first.weight"]
    groups = {key.split(".")[1] for key in shapes if key.startswith("layers.")}
    depths, tables = [], []
    for group in range(len(groups)):
        prefix = f"layers.{group}.residual_group.blocks."
        depths.append(len({key.split(".")[4] for key in shapes if key.startswith(prefix)}))
        tables.append(shapes[f"{prefix}0.attn.relative_position_bias_table"])
    hidden = shapes["layers.0.residual_group.blocks.0.mlp.fc1.weight"][0]
    parameters = {
        "embed_dim": embed_dim,
        "depths": depths,
        "heads": [heads for _, heads in tables],
        "window_size": (math.isqrt(tables[0][0]) + 1) // 2,
        "mlp_ratio": hidden / embed_dim,
        "channels": channels,
    }
    outputs, inputs, *_ = shapes["upsample.0.weight"]
    if "conv_last.weight" not in shapes:
        return parameters | {"scale": math.isqrt(outputs // channels), "upsampler": "pixelshuffledirect"}
    steps = tuple(
        math.isqrt(shape[0] // inputs)
        for key, shape in sorted(shapes.items())
        if key.startswith("upsample.") and key.endswith(".weight")
    )
    scale = {steps: scale for scale, steps in STAGES.items()}[steps]
    return parameters | {"scale": scale, "features": inputs, "upsampler": "pixelshuffle"}


def _check(
    scale: int, embed_dim: int, depths: Sequence[int], heads: Sequence[int], window_size: int, upsampler: str
) -> None:
    if scale not in STAGES:
        raise ValueError(f"SwinIR upscales by 2, 3, 4 or 8, not {scale}")
    if upsampler not in UPSAMPLERS:
        raise ValueError(f"unknown upsampler {upsampler!r}; {near(upsampler, UPSAMPLERS)}")
    if not depths or min(depths) < 1 or len(depths) != len(heads):
        raise ValueError(f"depths {list(depths)} and heads {list(heads)} must each have a number of 1 or more a group")
    if any(count < 1 or embed_dim % count for count in heads):
        raise ValueError(f"embed_dim {embed_dim} cannot be split among {list(heads)} heads")
    if window_size < 2:
        raise ValueError(f"a window of {window_size} pixels cannot be shifted; give 2 or more")


def _windows(tokens: torch.Tensor, size: int) -> torch.Tensor:
    """Tokens `(N, h, w, dim)` cut into windows `(N, h / size * w / size, size * size, dim)`, row by row."""
    cut = tokens.unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _joined(windows: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The reverse of `_windows`: tokens `(N, height, width, dim)`."""
    size = math.isqrt(windows.shape[2])
    cut = windows.unflatten(2, (size, size)).unflatten(1, (height // size, width // size))
    return cut.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _relative_positions(size: int) -> torch.Tensor:
    """For each pair of tokens of a window the row of the bias table, int64 `(tokens, tokens)`."""
    token = torch.arange(size * size)
    rows, columns = token // size, token % size
    down = rows[:, None] - rows + size - 1
    right = columns[:, None] - columns + size - 1
    return down * (2 * size - 1) + right


def _strangers(size: int, shift: int) -> torch.Tensor:
    """Which pairs of tokens lie at opposite ends of the picture, bool `(4, tokens, tokens)`.

    In a window in the middle, in the last column, in the last row, and in the corner of both.
    """
    token = torch.arange(size * size)
    wrapped_rows, wrapped_columns = token // size >= size - shift, token % size >= size - shift
    rows = wrapped_rows[:, None] != wrapped_rows
    columns = wrapped_columns[:, None] != wrapped_columns
    return torch.stack((torch.zeros_like(rows), columns, rows, rows | columns))


def _forget(state_dict: dict, prefix: str) -> None:
    """Take what follows from the sizes alone out of the weights of one module."""
    for name in DERIVED:
        state_dict.pop(prefix + name, None)


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.trunc_normal_(layer.weight, std=0.02)
    nn.init.zeros_(layer.bias)
    return layer
