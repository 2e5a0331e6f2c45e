"""Pictures out of files: opened by their content, upright, with all they carry."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sa_upscale.errors import UpscaleError
from sa_upscale.images.exif import ORIENTATION, edited_exif, edited_xmp
from sa_upscale.images.formats import FORMATS, format_of, not_a_picture
from sa_upscale.images.picture import Picture, row_bands
from sa_upscale.images.source import Arrays, Damaged, Source, one_line
from sa_upscale.images.unread import is_known

MAX_PIXELS = 400_000_000
"""A picture with more pixels than this is refused unless told otherwise: a few kilobytes can unpack to it."""

_ROW_BYTES = 16 << 20  # of a band of `rows`
_MOST_BYTES_TO_TRY = 1 << 30  # of a file that no mark tells to be a picture


class Opened:
    """A picture file whose header has been read: what is known before anything is decoded.

    `width` and `height` are those of the upright picture; `frames` is above 1 for animations and files of several
    pages, `timed` tells the former; `loop` is how often an animation plays, 0 for ever; `quality` is the estimate of a
    JPEG.  `notes` are the changes that reading has had to make so far, for the user.
    """

    def __init__(self, name: str, key: str, source: Source):
        self._name, self._key, self._source = name, key, source
        upright = (source.width, source.height)
        self.width, self.height = upright if source.orientation < 5 else upright[::-1]
        self.frames, self.loop = source.frames, source.loop
        self.timed = key != "tiff"
        self.format = source.becomes or FORMATS[key].becomes or key
        self.quality = source.quality
        self.notes = source.notes
        self._whole: Picture | None = None

    def read(self) -> Picture:
        """The picture, the first where there are several."""
        if self._whole is not None:
            return self._whole
        with one_line(self._name, FORMATS[self._key].name):
            return self._picture(self._source.decode())

    def play(self) -> Iterator[tuple[Picture, float | None]]:
        """Each frame or page as a whole picture, and the milliseconds it is shown for.

        The time is None for a still that only programs show that know no animations.  A damaged frame ends it, which
        the `notes` say; only when it is the first does that raise.
        """
        playing = self._source.play()
        for index in range(self.frames):
            with one_line(self._name, FORMATS[self._key].name):
                try:
                    arrays, milliseconds = next(playing)
                    picture = self._picture(arrays, same_size=self.timed)
                except Damaged:
                    if not index:
                        raise
                    kind = "frames" if self.timed else "pages"
                    self.notes.append(f"only {index} of its {self.frames} {kind} could be read")
                    return
            yield picture, milliseconds

    def rows(self) -> Iterator[Arrays]:
        """The first picture in bands from top to bottom, without holding all of it where the format allows that."""
        if self._source.rows is None or self._source.orientation != 1:
            yield from self._rows_of_whole()
            return
        bands = self._source.rows()
        done = 0
        while done < self.height:
            with one_line(self._name, FORMATS[self._key].name):
                pixels, alpha = next(bands)
            done += len(pixels)
            yield pixels, alpha

    def _rows_of_whole(self) -> Iterator[Arrays]:
        if self._whole is None:
            self._whole = self.read()
            self._source.decode = None  # and with it the library's own copy
        whole = self._whole
        for rows in row_bands(whole.pixels, _ROW_BYTES):
            yield whole.pixels[rows], None if whole.alpha is None else whole.alpha[rows]

    def _picture(self, arrays: Arrays, same_size: bool = True) -> Picture:
        source, (pixels, alpha) = self._source, arrays
        if same_size and pixels.shape[:2] != (source.height, source.width):
            raise Damaged("its header and its pixels disagree about its size")
        return self.described(_upright(pixels, source.orientation), _turned(alpha, source.orientation))

    def described(self, pixels: np.ndarray, alpha: np.ndarray | None) -> Picture:
        """Upright pixels with what else the file carries."""
        source = self._source
        exif, xmp = source.exif, source.xmp
        if source.orientation != 1:
            # A thumbnail was stored the way the picture was, and turning it as well is not worth a JPEG round trip.
            exif = exif and edited_exif(exif, {ORIENTATION: 1}, keep_thumbnail=False)
            xmp = xmp and edited_xmp(xmp, {"tiff:Orientation": 1})
        return Picture(
            pixels=pixels,
            alpha=alpha,
            icc=source.icc,
            exif=exif,
            xmp=xmp,
            dpi=source.dpi if source.orientation < 5 or source.dpi is None else source.dpi[::-1],
            format=self.format,
            quality=source.quality,
            lossless=source.lossless,
            colour_chunks=source.colour_chunks,
            texts=source.texts,
            comment=source.comment,
            notes=source.notes,
        )


def opened(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Opened:
    """Read the header of a picture.

    Raises `UpscaleError` for what is missing, unreadable, of an unknown format, damaged in its header, or has more than
    `max_pixels` pixels.
    """
    name = "standard input" if isinstance(source, bytes | bytearray) else str(source)
    data = source if isinstance(source, bytes | bytearray) else _file_bytes(Path(source))
    if not data:
        raise UpscaleError(f"{name} is empty (0 bytes)")
    key = format_of(data[:32]) or "other"
    with one_line(name, FORMATS[key].name):
        found = FORMATS[key].codec.opened(data)
        if found is None:
            raise UpscaleError(not_a_picture(name, data[:512]))
        if found.width < 1 or found.height < 1:
            raise Damaged("a side of no pixels")
    if found.width * found.height > max_pixels:
        raise UpscaleError(
            f"{name} unpacks to {found.width}x{found.height} pixels, above the limit of "
            f"{max_pixels / 1e6:g} million; raise it if you trust the file"
        )
    return Opened(name, key, found)


def read(source: Path | bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Read a single picture, upright and with everything it carries.

    Palettes and bilevel pictures become grey or RGB, with their transparency; CMYK becomes sRGB through its profile.

    Raises `UpscaleError` as `opened` does, and for what is damaged, cut short, or holds several pictures.
    """
    found = opened(source, max_pixels=max_pixels)
    if found.frames > 1:
        name = "standard input" if isinstance(source, bytes | bytearray) else str(source)
        kind = "frames" if found.timed else "pages"
        raise UpscaleError(f"{name} has {found.frames} {kind}, and a single picture is needed here")
    return found.read()


def size(source: Path | bytes) -> tuple[int, int]:
    """(width, height) in pixels of a picture as `read` would give it, from its header alone; errors as `read`'s."""
    found = opened(source, max_pixels=2**62)
    return found.width, found.height


def _file_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(512)
            # A mistyped name may be a film of many gigabytes: look before loading all of it.
            unmarked = head and format_of(head[:32]) is None
            if unmarked and (is_known(head) or path.stat().st_size > _MOST_BYTES_TO_TRY):
                raise UpscaleError(not_a_picture(str(path), head))
            return head + file.read()
    except FileNotFoundError:
        raise UpscaleError(f"{path} does not exist") from None
    except IsADirectoryError:
        raise UpscaleError(f"{path} is a folder, not a picture") from None
    except PermissionError:
        raise UpscaleError(f"{path} may not be read; check its permissions") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise UpscaleError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def _turned(alpha: np.ndarray | None, orientation: int) -> np.ndarray | None:
    return None if alpha is None else _upright(alpha, orientation)


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror `(H, W, …)` as stored with EXIF `orientation` (1-8) into what is to be seen.

    Reference: Exif 2.32, tag 274.
    """
    if orientation >= 5:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)
