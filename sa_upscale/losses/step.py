"""What the losses of one training step share."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import torch
from torch import nn
from torch.nn import functional as F

from sa_upscale.functional.filters import unsharp
from sa_upscale.functional.vgg import VGG
from sa_upscale.losses.edges import EdgeMap

Shown = torch.Tensor | dict[str, torch.Tensor]


class Step:
    """One batch and what the losses ask of it, each computed on first use and once.

    `lr` is as the generator took it; `hr` and `sr` are `(N, 3, H, W)`, `hr` in [0, 1] and `sr` not clamped.  No
    gradient flows into `hr` or anything made of it.  The losses may further need

    - `ema`: the averaged generator, a function from `lr` to its output;
    - `discriminator`: a module from images, or from the VGG's outputs of its `vgg_layers`, to its logits and a list of
      its feature maps.  It must not be wrapped for distributed training: this step is the generator's and has no
      gradients of the discriminator's to exchange;
    - `vgg`, and as `vgg_layers` all the layers that the losses will ask for, so that one pass computes them.

    VGG and the discriminator see the pictures `moved` by `shift`, rows and columns.

    Asking for what was not given raises `ValueError`.
    """

    def __init__(
        self,
        lr: torch.Tensor,
        hr: torch.Tensor,
        sr: torch.Tensor,
        *,
        ema: Callable[[torch.Tensor], torch.Tensor] | None = None,
        discriminator: nn.Module | None = None,
        vgg: VGG | None = None,
        vgg_layers: Iterable[str] = (),
        shift: tuple[int, int] = (0, 0),
    ):
        self.lr, self.hr, self.sr = lr, hr.detach().float(), sr.float()
        self._ema, self._discriminator, self._vgg = ema, discriminator, vgg
        self._judged = tuple(getattr(discriminator, "vgg_layers", ()))
        self._vgg_layers = frozenset([*vgg_layers, *self._judged])
        self._shift = shift
        self._edges: dict[EdgeMap, torch.Tensor] = {}
        self._features: dict[tuple[str | EdgeMap, bool], dict[str, torch.Tensor]] = {}

    @cached_property
    def sharpened(self) -> torch.Tensor:
        """`hr` sharpened, the target of Real-ESRGAN's fidelity and perceptual terms."""
        return unsharp(self.hr)

    @cached_property
    def sr_ema(self) -> torch.Tensor:
        """The averaged generator's output, like `sr` but without gradient."""
        with torch.no_grad():
            return _given(self._ema, "the averaged generator", "ema")(self.lr).float()

    @property
    def fake_logits(self) -> torch.Tensor:
        """The discriminator's verdict on `sr`; its gradient reaches the generator and not the discriminator."""
        return self._fake[0]

    @property
    def fake_features(self) -> list[torch.Tensor]:
        """The discriminator's feature maps of `sr`, with the gradient of `fake_logits`."""
        return self._fake[1]

    @property
    def real_logits(self) -> torch.Tensor:
        """The discriminator's verdict on `hr`, without gradient."""
        return self._real[0]

    @property
    def real_features(self) -> list[torch.Tensor]:
        """The discriminator's feature maps of `hr`, without gradient."""
        return self._real[1]

    def shown(self, of: str) -> Shown:
        """What the discriminator is shown of `"sr"` or `"hr"`: the pictures, or the features that it judges."""
        if self._judged:
            return self.vgg_features(of, self._judged, activated=False)
        return moved(getattr(self, of), self._shift)

    def edges(self, edge_map: EdgeMap) -> torch.Tensor:
        """W of `hr`, `(N, 1 or 3, H, W)`, without gradient."""
        if edge_map not in self._edges:
            self._edges[edge_map] = edge_map(self.hr)
        return self._edges[edge_map]

    def vgg_features(
        self, of: str | EdgeMap, layers: Iterable[str], *, activated: bool, normalised: bool = True
    ) -> dict[str, torch.Tensor]:
        """Float32 VGG features of `"sr"`, `"hr"`, `"sharpened"` or an edge map, after their ReLU if `activated`.

        `normalised` brings the input to ImageNet's statistics first.  Only those of `sr` carry a gradient.
        """
        layers = list(layers)
        known = self._features.setdefault((of, normalised), {})
        if any(layer not in known for layer in layers):
            vgg = _given(self._vgg, "the VGG", "vgg")
            image = getattr(self, of) if isinstance(of, str) else self.edges(of)
            # Edge maps go to one loss alone, and only as deep as that asks.
            wanted = set(layers) | (self._vgg_layers if isinstance(of, str) else set())
            found = vgg(moved(image, self._shift), wanted - known.keys(), normalised=normalised)
            known |= {layer: x.float() for layer, x in found.items()}
        return {layer: F.relu(known[layer]) if activated else known[layer] for layer in layers}

    @cached_property
    def _fake(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with _frozen(_given(self._discriminator, "the discriminator", "discriminator")) as discriminator:
            return discriminator(self.shown("sr"))

    @cached_property
    def _real(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        with torch.no_grad():
            return _given(self._discriminator, "the discriminator", "discriminator")(self.shown("hr"))


def moved(images: torch.Tensor, shift: tuple[int, int]) -> torch.Tensor:
    """`(N, C, H, W)` without its first `shift` rows and columns; as many, mirrored, follow its last ones.

    The pools of VGG and the strides of a discriminator fall on every fourth pixel, and so do the seams of a pixel
    shuffle ×4.  Judged always at the same one, its 16 positions learn to differ: a lattice on flat areas.
    """
    rows, columns = shift
    if not rows and not columns:
        return images
    return F.pad(images[..., rows:, columns:], (0, columns, 0, rows), mode="reflect")


def _given(value, what: str, keyword: str):
    if value is None:
        raise ValueError(f"a loss asks for {what}: give Step {keyword}=…")
    return value


@contextlib.contextmanager
def _frozen(module: nn.Module) -> Iterator[nn.Module]:
    """What is computed within leaves no gradient in the parameters, whenever it is differentiated."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield module
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
