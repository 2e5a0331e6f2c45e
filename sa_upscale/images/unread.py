"""Files that are not read, told by their first bytes, so that the refusal can name what the file is."""

# (first bytes, where they stand, what it is)
_KNOWN = (
    (b"GIF8", 0, "a GIF"),
    (b"ftypavif", 4, "an AVIF picture"),
    (b"ftypheic", 4, "a HEIC picture"),
    (b"ftypmif1", 4, "a HEIF picture"),
    (b"ftypcrx", 4, "a camera's raw file"),
    (b"ftyp", 4, "a video"),
    (b"\x1aE\xdf\xa3", 0, "a video"),
    (b"\0\0\0\x0cjP", 0, "a JPEG 2000 picture"),
    (b"\xff\x0a", 0, "a JPEG XL picture"),
    (b"\0\0\0\x0cJXL", 0, "a JPEG XL picture"),
    (b"8BPS", 0, "a Photoshop document"),
    (b"%PDF", 0, "a PDF"),
    (b"<svg", 0, "an SVG drawing"),
    (b"v/1\x01", 0, "an OpenEXR picture"),
)


def reason(head: bytes) -> str:
    """Why a file with these first bytes is not read; goes on from the file's name."""
    for begins, at, what in _KNOWN:
        if head[at : at + len(begins)] == begins:
            return f"is {what}, which is not read yet; convert it first"
    try:
        head[:256].decode("utf-8")
    except UnicodeDecodeError:
        return "is no picture of a known format"
    return "is a text file, not a picture"
