"""What the command line and the tasks have to agree on; imports nothing, so that `--help` can show it at once."""

AUTO = "auto"
"""Instead of a checkpoint: for each picture the one that suits what is wrong with it."""

DEFAULTS = {"image": AUTO, "video": "compact-fidelity"}
"""What is taken where no checkpoint is named."""

CLEAN, SAVED, DAMAGED = "compact", "compact-photo", "compact-real"
"""The families that `AUTO` chooses from: for pictures as they were taken, slight noise or compression, and strong."""

SCALES = (1, 8)
"""How many times as large results can be, least and most."""
