"""Files that are not read, told by their first bytes, so that the refusal can name what the file is."""

# (first bytes, where they stand, what it is)
_KNOWN = (
    (b"ftypcrx", 4, "a camera's raw file"),
    (b"ftyp", 4, "a video"),
    (b"\x1aE\xdf\xa3", 0, "a video"),
    (b"\0\0\x01\xba", 0, "a video"),
    (b"\0\0\x01\xb3", 0, "a video"),
    (b"\xff\x0a", 0, "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL", 0, "a JPEG XL picture"),
    (b"%PDF", 0, "a PDF"),
    (b"%!PS", 0, "a PostScript drawing"),
    (b"<svg", 0, "an SVG drawing"),
)


def is_known(head: bytes) -> bool:
    """Whether a file with these first bytes is certainly none that is read."""
    return _found(head) is not None


def reason(head: bytes) -> str:
    """Why a file with these first bytes is not read; goes on from the file's name."""
    if what := _found(head):
        return f"is {what}, which is not read yet; convert it first"
    try:
        head[:256].decode("utf-8")
    except UnicodeDecodeError:
        return "is no picture of a known format"
    return "is a text file, not a picture"


def _found(head: bytes) -> str | None:
    return next((what for begins, at, what in _KNOWN if head[at : at + len(begins)] == begins), None)
