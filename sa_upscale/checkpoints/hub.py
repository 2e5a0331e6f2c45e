"""Checkpoints on the Hub and in its client's cache on this machine."""

import contextlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from sa_upscale.checkpoints.files import sha256_of
from sa_upscale.checkpoints.registry import Entry, instead_of
from sa_upscale.errors import UpscaleError, first_line

ANSWER_SECONDS = 5

_SHA256 = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int, int | None], None]


def cached_file(entry: Entry) -> Path | None:
    """Where the file lies in the cache of the Hub's client, if it does; unverified."""
    if not entry.repo:
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(entry.repo, entry.file, revision=entry.revision or "main")
    return Path(found) if isinstance(found, str) else None


def download(entry: Entry, on_progress: Progress | None) -> Path:
    """Fetch the file into the Hub's cache and verify it; what does not verify is deleted.

    A file in the cache that did not verify is deleted only once the Hub has answered that it can give another.
    """
    with _quiet("huggingface_hub"):
        promised = _promised_sha256(entry)
        if promised is not None and promised != entry.sha256:
            raise UpscaleError(_other_file(entry, "it was not fetched"))
        _discard(cached_file(entry))
        fetched = _transfer(entry, on_progress)
    if sha256_of(fetched) != entry.sha256:
        _discard(fetched)
        raise UpscaleError(_other_file(entry, "it was deleted"))
    return fetched


def _promised_sha256(entry: Entry) -> str | None:
    """Ask the Hub, once and without retries, for the file; the sha256 it names, None when it names another kind of tag.

    Left to itself the client asks a Hub out of reach again for some 25 seconds.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        raise _unfetched(entry, "HF_HUB_OFFLINE is set")
    url = hub.hf_hub_url(entry.repo, entry.file, revision=entry.revision or "main")
    try:
        served = hub.get_hf_file_metadata(url, timeout=_answer_seconds())
    except errors.HfHubHTTPError as error:
        code = error.response.status_code
        hint = " (a private or gated repository needs HF_TOKEN)" if code in (401, 403) else ""
        wanted = f"{entry.repo}/{entry.file} at {entry.revision or 'main'}"
        raise _unfetched(entry, f"the Hub answered {code} for {wanted}{hint}") from None
    # The base of the HTTP client's own errors, whichever client this version of huggingface_hub is built on.
    except (errors.HTTPError, OSError) as error:
        raise _unfetched(entry, f"{constants.ENDPOINT} cannot be reached ({first_line(error)})") from None
    if served.commit_hash is None or served.etag is None:
        raise _unfetched(entry, f"{constants.ENDPOINT} does not answer as a Hub")
    return served.etag if _SHA256.fullmatch(served.etag) else None


def _transfer(entry: Entry, on_progress: Progress | None) -> Path:
    import huggingface_hub as hub
    from huggingface_hub import constants, errors

    try:
        return Path(
            hub.hf_hub_download(
                entry.repo,
                entry.file,
                revision=entry.revision or "main",
                etag_timeout=_answer_seconds(),
                tqdm_class=_counter(on_progress),
            )
        )
    # The Xet transport reports what goes wrong as OSError or RuntimeError.
    except (errors.HTTPError, OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise _unfetched(entry, f"{error.strerror}: {error.filename or constants.HF_HUB_CACHE}") from None
        raise _unfetched(entry, f"the download broke off ({first_line(error)})") from None


def _answer_seconds() -> float:
    """How long the Hub may take to answer before it counts as out of reach."""
    from huggingface_hub import constants

    return constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else ANSWER_SECONDS


def _unfetched(entry: Entry, reason: str) -> UpscaleError:
    return UpscaleError(f"cannot fetch {entry.name}: {reason}; {instead_of(entry)}")


def _other_file(entry: Entry, consequence: str) -> str:
    return (
        f"what the Hub has as {entry.repo}/{entry.file} is not the {entry.name} of weights.toml (another sha256), so "
        f"{consequence}; {instead_of(entry)}"
    )


def _discard(file: Path | None) -> None:
    """Delete a file of the Hub's cache and every link on the way to its bytes, as far as they lie in that cache."""
    if file is None:
        return
    from huggingface_hub import constants

    cache = Path(os.path.abspath(constants.HF_HUB_CACHE))
    file = Path(os.path.abspath(file))
    while file.is_relative_to(cache):
        target = Path(os.path.abspath(file.parent / os.readlink(file))) if file.is_symlink() else None
        file.unlink(missing_ok=True)
        if target is None:
            return
        file = target


def _counter(on_progress: Progress | None) -> type:
    """A progress bar in the shape the Hub's client wants that draws nothing and hands the byte counts on."""
    from huggingface_hub.utils import tqdm

    class Counter(tqdm):
        def __init__(self, *_, total: int | None = None, initial: int = 0, **__):
            super().__init__(disable=True, total=total)
            self.done, self.expected = initial, total

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            if on_progress:
                on_progress(self.done, self.expected)

        # With this one, Xet uses a single bar and not a second one for the same bytes on the wire.
        def update_transfer(self, n: float) -> None:
            pass

        def set_transfer_postfix_str(self, text: str, refresh: bool = True) -> None:
            pass

    return Counter


@contextlib.contextmanager
def _quiet(logger_name: str) -> Iterator[None]:
    """Keep a library's warnings off the terminal: what they say ends up in our one line."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
