"""The one exception for mistakes of the user's; the command line shows its text and exits 1."""


class UpscaleError(Exception):
    """What is wrong and what to do about it, in one line.  Anything else that escapes is a bug and keeps its traceback."""
