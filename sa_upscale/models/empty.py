"""Networks without weights of their own, for those who have the right ones."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWS = {init.kaiming_normal_, init.kaiming_uniform_, init.normal_, init.uniform_}
_DRAW_NAMES = {"normal_", "uniform_"}
_ARITHMETIC_NAMES = {"add_", "mul_", "__iadd__", "__imul__"}


@contextmanager
def empty(device: str) -> Iterator[None]:
    """In networks constructed in here what is drawn by chance is zero; on "meta" they take no memory.

    To draw it takes a second for a large network, and on the meta device it imports torch's compiler first.
    """
    with torch.device(device), _NoDraws():
        yield


class _NoDraws(TorchFunctionMode):
    """Gives zeros for random numbers; on the meta device leaves out what changes numbers in place, too."""

    def __torch_function__(
        self, func: Callable, types: Any, arguments: tuple = (), keywords: dict[str, Any] | None = None
    ) -> Any:
        keywords = keywords or {}
        name = getattr(func, "__name__", "")
        if func in _DRAWS or name in _DRAW_NAMES:
            tensor = arguments[0] if arguments else keywords["tensor"]
            return tensor if tensor.is_meta else tensor.detach().zero_()
        if name in _ARITHMETIC_NAMES and arguments[0].is_meta:
            return arguments[0]
        return func(*arguments, **keywords)
