"""OpenCV's readers and writers: for depths that Pillow reduces, and for files that it refuses."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import BinaryIO

import cv2
import numpy as np

from sa_upscale.images.picture import Picture
from sa_upscale.images.source import Arrays, Damaged, library


def samples(data: bytes) -> np.ndarray:
    """The first picture `(H, W, S)` with S in the order red, green, blue, alpha; OpenCV turns TIFFs by itself."""
    with library():
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if array is None:
        raise Damaged("its pixels cannot be decoded")
    array = np.atleast_3d(array)
    return array[..., [2, 1, 0, 3][: array.shape[2]]] if array.shape[2] > 1 else array


def arrays(data: bytes, *depths: str, bits: int = 16) -> Arrays:
    """The first picture in colours and alpha; `Damaged` where its samples are of none of the `depths`.

    Deep samples that use only so many `bits` are brought to 16.
    """
    array = samples(data)
    if array.dtype.name not in depths or array.shape[2] not in (1, 3, 4):
        raise Damaged("its pixels cannot be decoded")
    if array.dtype == np.uint16 and bits < 16:
        array = rescaled(array, 65535 / (2**bits - 1))
    return array[..., :3], array[..., 3] if array.shape[2] == 4 else None


def rescaled(array: np.ndarray, factor: float) -> np.ndarray:
    """16-bit samples times `factor`, rounded and within 16 bits."""
    return np.rint(np.minimum(array * np.float32(factor), 65535)).astype(np.uint16)


def coloured(picture: Picture) -> np.ndarray:
    """`(H, W, 3 or 4)` in OpenCV's order, grey spread over all three colours."""
    colours = np.broadcast_to(picture.pixels[..., ::-1], (picture.height, picture.width, 3))
    return np.ascontiguousarray(colours) if picture.alpha is None else np.dstack((colours, picture.alpha))


def save(
    file: BinaryIO,
    array: np.ndarray,
    ending: str,
    settings: Sequence[int] = (),
    blocks: Mapping[int, bytes | None] = MappingProxyType({}),
) -> None:
    """Encode `array` as the format of `ending`, with the metadata `blocks` by OpenCV's numbers for them."""
    carried = {kind: np.frombuffer(block, np.uint8) for kind, block in blocks.items() if block}
    done, encoded = cv2.imencodeWithMetadata(ending, array, list(carried), list(carried.values()), settings)
    if not done:
        raise OSError("OpenCV could not encode it")
    file.write(encoded)
