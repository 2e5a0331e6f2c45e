"""The one exception for mistakes of the user's; the command line shows its text and exits."""

import difflib
from collections.abc import Iterable


class UpscaleError(Exception):
    """What is wrong and what to do about it, in one line.  Anything else that escapes is a bug."""

    exit_code = 1


def near(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown `name`: the nearest of the `known` ones, or else all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known) or 'none'}"


def first_line(error: BaseException) -> str:
    """What an exception of others says, in one line; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
