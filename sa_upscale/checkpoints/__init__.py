"""Checkpoints by name: found or fetched, checked against their sha256, read into a network, and written.

A name is looked for among the bundled files, in the local weights folders, in the Hub's cache and on the Hub, in this
order; nothing is used whose sha256 is not the one in `weights.toml`.  Importing this room, and everything but `load`,
`save`, `adopt` and `canonical`, is free of torch.
"""

from sa_upscale.checkpoints.adopting import adopt
from sa_upscale.checkpoints.files import FORMAT_VERSION, header, sha256_of
from sa_upscale.checkpoints.finding import fetch, path
from sa_upscale.checkpoints.foreign import canonical
from sa_upscale.checkpoints.hub import ANSWER_SECONDS
from sa_upscale.checkpoints.inventory import HERE, Info, Row, Verdict, info, listing, verify
from sa_upscale.checkpoints.loading import Checkpoint, load
from sa_upscale.checkpoints.registry import Entry, entries, select, user_folder
from sa_upscale.checkpoints.saving import save

__all__ = [
    "ANSWER_SECONDS",
    "FORMAT_VERSION",
    "HERE",
    "Checkpoint",
    "Entry",
    "Info",
    "Row",
    "Verdict",
    "adopt",
    "canonical",
    "entries",
    "fetch",
    "header",
    "info",
    "listing",
    "load",
    "path",
    "save",
    "select",
    "sha256_of",
    "user_folder",
    "verify",
]
