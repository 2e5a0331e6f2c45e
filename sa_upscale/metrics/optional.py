"""What some metrics need beyond the package: libraries of its extras, and trained backbones."""

import importlib
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch

from sa_upscale.errors import UpscaleError


def load_library(metric: str, module: str, extra: str = "metrics") -> ModuleType:
    """Import `module` for `metric`; raises `UpscaleError` naming the `extra` to install when that fails."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        what = error.name or module
        raise UpscaleError(f"{metric} needs {what}, which is not here; pip install 'sa-upscale[{extra}]'") from None
    except RuntimeError as error:
        # "operator torchvision::nms does not exist": a torchvision that was built for another torch.
        if "torchvision" not in str(error):
            raise
        raise UpscaleError(
            f"{metric} cannot be measured: the installed torchvision was built for another torch than "
            f"{torch.__version__}; install both from the same place, or remove torchvision"
        ) from None


def find_backbone(metric: str, url: str, hub: Path | None = None) -> Path:
    """The file of a trained backbone in torch's hub folder `hub` (by default its own), downloaded if it is not there.

    The name ends in the first digits of the file's sha256, which a download must match.  Raises `UpscaleError` when
    there is no such file and it cannot be downloaded, and for a file that is damaged.
    """
    file = Path(hub or torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not file.is_file():
        _download(metric, url, file)
    try:
        # The libraries unpickle with everything allowed: what would run code is refused here, before they see it.
        torch.load(file, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, OSError):
        raise UpscaleError(f"{file} is damaged or holds no weights; put a whole one in its place") from None
    return file


@contextmanager
def hub_folder(hub: Path | None) -> Iterator[None]:
    """Let torch.hub, and with it torchvision, find its files in `hub` for a while; None leaves it as it is."""
    if hub is None:
        yield
        return
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(hub))
    try:
        yield
    finally:
        torch.hub.set_dir(before)


def _download(metric: str, url: str, file: Path) -> None:
    digits = file.stem.rpartition("-")[2]
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=digits, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: the file has another sha256
        reason = " ".join(str(error).split())
        raise UpscaleError(
            f"{metric} needs {url}, which cannot be downloaded ({reason}); put the file at {file}, or into "
            "DIR/checkpoints and name --backbones DIR"
        ) from None
