"""What the command line and the tasks have to agree on; imports nothing, so that `--help` can show it at once."""

DEFAULTS = {"image": "compact", "video": "compact-fidelity"}
"""The checkpoints that are taken where none is named."""

SCALES = (1, 8)
"""How many times as large results can be, least and most."""
