"""Validation: whole pictures measured, crops for the loss, for stability and to look at."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sa_upscale import losses, metrics
from sa_upscale.functional.resize import resize
from sa_upscale.train.networks import Autocast, folded
from sa_upscale.train.terms import Terms

SHOWN, SHOWN_SIDE = 4, 160
Pair = tuple[torch.Tensor, torch.Tensor]


class Validation:
    """The validation pictures, `pairs` of uint8 LR `(h, w, 3)`, or `(window, h, w, 3)`, and HR `(H, W, 3)`.

    `criterion` is what the best weights are chosen by, one of `config.CRITERIA`.  Raises `UpscaleError` when it needs
    weights of a VGG19 that are not there.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[np.ndarray, np.ndarray]],
        *,
        scale: int,
        patch: int,
        criterion: str,
        vgg_weights: str | None,
        device: torch.device,
        autocast: Autocast,
    ):
        self._scale, self._device, self._autocast = scale, device, autocast
        needs = metrics.Needs(vgg_weights=vgg_weights and Path(vgg_weights), device=device)
        wanted = ["psnr-y"] + ([] if criterion == "loss" else [criterion])
        self._metrics = metrics.build(wanted, needs)
        self._criterion = criterion
        self._pairs = [_tensors(pair) for pair in pairs]
        shown = self._pairs[:: -(-len(self._pairs) // SHOWN)]
        self._shown = _stacked([_middle(pair, SHOWN_SIDE, scale) for pair in shown], scale)
        self._crops = [_middle(pair, patch, scale) for pair in self._pairs if min(pair[1].shape[-2:]) >= patch]

    @property
    def higher_is_better(self) -> bool:
        return self._criterion != "loss" and metrics.METRICS[self._criterion].higher_is_better

    def better(self, value: float, best: float | None) -> bool:
        """Whether weights of this `value` of the criterion beat the best so far."""
        return best is None or (value > best if self.higher_is_better else value < best)

    @torch.inference_mode()
    def measure(self, generator: nn.Module) -> dict[str, float]:
        """The metrics of a generator, with results rounded to 8 bits and a border of `scale` left out."""
        network = folded(generator).to(memory_format=torch.channels_last)
        sums = dict.fromkeys(self._metrics, 0.0)
        for lr, hr in self._pairs:
            sr, reference = self._upscale(network, lr), _float(hr, self._device)
            for name, metric in self._metrics.items():
                border = self._scale if metrics.METRICS[name].cropped else 0
                sums[name] += metric(sr, reference, border).item()
        return {_key(name): total / len(self._pairs) for name, total in sums.items()}

    @torch.no_grad()
    def loss(self, generator: nn.Module, terms: Terms, offered: Callable[..., losses.Step]) -> float:
        """A generator's whole loss on a crop of each picture; `offered(lr, hr, sr)` makes the losses' step."""
        total = 0.0
        for pair in self._crops:
            lr, hr = (_float(x, self._device) for x in pair)
            with self._autocast():
                total += terms.total(terms(offered(lr, hr, generator(lr)))).item()
        return total / len(self._crops)

    def chosen(self, values: dict[str, float]) -> float:
        """The criterion's among what `measure` and `loss` gave."""
        return values[_key(self._criterion)]

    @torch.inference_mode()
    def outputs(self, average: nn.Module) -> torch.Tensor:
        """What the averaged generator makes of the shown crops, `(N, 3, H, W)` on the CPU."""
        with self._autocast():
            return average(_float(self._shown[0], self._device)).float().cpu()

    def references(self) -> dict[str, np.ndarray]:
        """The shown crops enlarged by bicubic interpolation, and themselves."""
        lr, hr = (_float(x, torch.device("cpu")) for x in self._shown)
        lr = lr if lr.ndim == 4 else lr[:, lr.shape[1] // 2]
        return _pictures("bicubic", resize(lr, tuple(hr.shape[-2:]))) | _pictures("hr", hr)

    @torch.no_grad()
    def pictures(
        self, average: nn.Module, generator: nn.Module, terms: Terms, offered: Callable[..., losses.Step]
    ) -> dict[str, np.ndarray]:
        """What is made of the shown crops, and the maps that the losses weigh by, their brightest hundredth white."""
        lr, hr = (_float(x, self._device) for x in self._shown)
        with self._autocast():
            maps = terms.pictures(offered(lr, hr, generator(lr)))
        shown = _pictures("sr", self.outputs(average))
        for name, channels in maps.items():
            x = channels.float().mean(dim=1, keepdim=True)
            # An artifact map has a few points so bright that the rest would be black beside them.
            white = x.quantile(0.99) or x.amax().clamp(min=1e-12)
            shown |= _pictures(name, (x / white).cpu().expand(-1, 3, -1, -1))
        return shown

    def _upscale(self, network: nn.Module, lr: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            sr = network(_float(lr, self._device))
        return (sr.float().clamp(0, 1) * 255).round() / 255


def _key(criterion: str) -> str:
    return criterion.replace("-", "_")


def _tensors(pair: tuple[np.ndarray, np.ndarray]) -> Pair:
    lr, hr = (torch.from_numpy(np.array(x)).movedim(-1, -3)[None] for x in pair)
    return lr, hr


def _middle(pair: Pair, side: int, scale: int) -> Pair:
    """The middle of both, at most `side` HR pixels a side."""
    lr, hr = pair
    for axis in (-2, -1):
        length = min(side // scale, lr.shape[axis])
        first = (lr.shape[axis] - length) // 2
        lr, hr = lr.narrow(axis, first, length), hr.narrow(axis, first * scale, length * scale)
    return lr, hr


def _stacked(pairs: list[Pair], scale: int) -> Pair:
    """The pairs as one batch, of the size of the smallest."""
    side = min(min(hr.shape[-2:]) for _, hr in pairs)
    pairs = [_middle(pair, side, scale) for pair in pairs]
    return torch.cat([lr for lr, _ in pairs]), torch.cat([hr for _, hr in pairs])


def _float(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    return x.to(device, torch.float32).div_(255)


def _pictures(name: str, x: torch.Tensor) -> dict[str, np.ndarray]:
    pixels = (x.float().clamp(0, 1) * 255).round().byte().movedim(1, -1).numpy()
    return {f"{index}-{name}": picture for index, picture in enumerate(pixels, start=1)}
