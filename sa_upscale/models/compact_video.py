"""The CPU default for video: the compact network with the four neighbouring frames beside the one it upscales."""

from collections.abc import Iterable

import torch
from torch import nn

from sa_upscale.models.compact import Compact


class CompactVideo(Compact):
    """`Compact` whose first convolution sees five frames t-2 … t+2; all work is at LR size, the result is frame t.

    Takes LR frames `(N, 5, channels, h, w)` in [0, 1] and returns float32 `(N, channels, h * scale, w * scale)`,
    unclamped.  The neighbours' part of the first kernel starts at zero, and everything else has the names and shapes of
    `Compact`: with such a network's weights (`adopt`) it is that network on frame t, until training finds a use for the
    others.

    Raises `ValueError` for another number of frames.

    Reference: J. Caballero et al., "Real-Time Video Super-Resolution with Spatio-Temporal Networks and Motion
    Compensation", 2017, early fusion.  Deviations: no motion compensation; the network of `Compact`.
    """

    window = 5

    def __init__(self, scale: int = 4, features: int = 64, convs: int = 16, channels: int = 3, branches: bool = False):
        super().__init__(scale, features, convs, channels, branches)
        self.neighbours = nn.Parameter(torch.zeros(features, (self.window - 1) * channels, 3, 3))

    def rows(self, lr: torch.Tensor) -> Iterable[torch.Tensor]:
        if lr.dim() != 5 or lr.shape[1] != self.window:
            raise ValueError(f"CompactVideo takes (N, {self.window}, C, h, w), not {tuple(lr.shape)}")
        frames = self.stacked(lr).to(self.head.weight.dtype).contiguous(memory_format=torch.channels_last)
        return self._run(frames, lr[:, self.window // 2])

    def stacked(self, lr: torch.Tensor) -> torch.Tensor:
        return lr.flatten(1, 2)

    def _first_kernel(self) -> torch.Tensor:
        # One convolution over all frames: a second one would cost more than its sums, in memory moved.
        before, after = self.neighbours.chunk(2, dim=1)
        return torch.cat((before, self.head.weight, after), dim=1)

    def adopt(self, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The state of this network that does on frame t what the `Compact` network of that state does.

        A state of this network itself is returned as it is.
        """
        return {"neighbours": torch.zeros_like(self.neighbours)} | state

    def fold(self) -> "CompactVideo":
        """The plain network that computes the same function; itself when there are no branches."""
        if "branches" not in self.parameters_dict:
            return self
        plain = CompactVideo(**{name: value for name, value in self.parameters_dict.items() if name != "branches"})
        kernels = {f"body.{index}.weight": conv.kernel().detach() for index, conv in enumerate(self.body)}
        state = self.state_dict() | kernels
        plain.load_state_dict({name: state[name] for name in plain.state_dict()})
        return plain
