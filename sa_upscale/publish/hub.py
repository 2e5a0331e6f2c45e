"""What publishing asks of the Hugging Face Hub, its failures told in one line."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, HfApi, constants, errors, get_token
from huggingface_hub.utils import disable_progress_bars

from sa_upscale import __version__, checkpoints
from sa_upscale.errors import UpscaleError, first_line


@dataclass(frozen=True)
class State:
    """The head of a repository's main branch, and its files: git's blob id, or for large ones the sha256."""

    commit: str
    files: dict[str, str]

    def has(self, path: str, content: bytes) -> bool:
        blob = b"blob %d\0%b" % (len(content), content)
        known = (hashlib.sha256(content).hexdigest(), hashlib.sha1(blob).hexdigest())
        return self.files.get(path) in known


class Hub:
    """The Hub with the user's token.  Every method raises `UpscaleError` when the Hub cannot be reached or says no."""

    def __init__(self) -> None:
        token = get_token()
        if not token:
            raise UpscaleError(
                "publishing takes a token that may write: set HF_TOKEN or run `hf auth login` "
                f"({constants.ENDPOINT}/settings/tokens)"
            )
        self._api = HfApi(token=token, library_name="sa-upscale", library_version=__version__)

    def state(self, repo: str) -> State | None:
        """What is in the repository; None when there is no such repository, or none that the token may see."""
        with _told(repo):
            try:
                # Left to itself the client waits for an answer for ever.
                known = self._api.model_info(repo, files_metadata=True, timeout=checkpoints.ANSWER_SECONDS)
            except errors.RepositoryNotFoundError:
                return None
        files = {file.rfilename: file.lfs.sha256 if file.lfs else file.blob_id for file in known.siblings or ()}
        return State(known.sha, files)

    def create(self, repo: str, private: bool) -> None:
        """Have a repository of that name; `private` does not change one that is there."""
        with _told(repo):
            # None, because an organisation may have its repositories private by default.
            self._api.create_repo(repo, private=private or None, exist_ok=True)

    def commit(self, repo: str, files: Mapping[str, bytes], message: str, parent: str | None) -> str:
        """Add or replace files in one commit and return its hash; refused when the head is no longer `parent`."""
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        disable_progress_bars()
        with _told(repo):
            return self._api.create_commit(repo, operations, commit_message=message, parent_commit=parent).oid


@contextlib.contextmanager
def _told(repo: str) -> Iterator[None]:
    """Tell in one line what went wrong; the client's warnings about a card that is valid are of no use here."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except errors.OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set"
    except errors.HfHubHTTPError as error:
        reason = _refusal(repo, error)
    except (errors.HTTPError, OSError) as error:
        reason = f"{constants.ENDPOINT} cannot be reached ({first_line(error)})"
    # What goes wrong while a large file is sent, and a name that the Hub does not allow.
    except (RuntimeError, ValueError) as error:
        reason = first_line(error.__cause__ or error)
    else:
        return
    raise UpscaleError(f"cannot publish {repo}: {reason}")


def _refusal(repo: str, error: errors.HfHubHTTPError) -> str:
    code, namespace = error.response.status_code, repo.split("/", 1)[0]
    if code == 401:
        return "the Hub does not know this token; set another HF_TOKEN or run `hf auth login`"
    if code == 403:
        return f"this token may not write to {namespace}; take a namespace of yours, or a token with that right"
    if code in (409, 412):
        return "the repository has changed meanwhile; run this again"
    return f"the Hub answered {code}" + (f" ({error.server_message.splitlines()[0]})" if error.server_message else "")
