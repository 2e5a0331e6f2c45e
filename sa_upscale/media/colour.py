"""Between the samples of a video and RGB arrays, by matrices made from the standards.

Left to itself the library converts every RGB frame with BT.601, whatever the stream's tag says, rounds full-range
chroma down, and puts chroma samples where no decoder looks for them.
"""

from dataclasses import dataclass

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation

# Shares of red and blue in luma, by AVColorSpace; a matrix that is not here cannot be converted.
# Reference: ITU-T H.273, table 4 (MatrixCoefficients).
LUMA_SHARES = {
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
FULL_QUALITY = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


@dataclass(frozen=True)
class Colour:
    """How samples encode colour, in FFmpeg's numbers: AVColorSpace, AVColorPrimaries, AVColorTransferCharacteristic."""

    matrix: int
    primaries: int
    transfer: int
    full_range: bool


def to_rgb(frame: av.VideoFrame, width: int, height: int, depth: int, colour: Colour) -> np.ndarray:
    """The frame as (height, width, 3) RGB in full range: uint8, or uint16 where `depth`, the source's bits, is above 8.

    A stream that changes its size in the middle is so brought back to its first one.
    """
    deep = depth > 8
    if is_rgb(frame.format):
        form = "rgb48le" if deep else "rgb24"
        picture = frame.reformat(width, height, form, interpolation=FULL_QUALITY)
        return np.ascontiguousarray(picture.to_ndarray())
    form = "yuv444p16le" if deep else "yuv444p"
    samples = cv2.merge(_planes(_reformat(frame, form, colour, width, height)))
    # The 16-bit format holds deeper samples shifted up to its top bits.
    unit, white = (1 << (16 - depth), 65535) if deep else (1, 255)
    matrix, offset = _encoding_matrix(colour, depth if deep else 8)
    inverse = np.linalg.inv(matrix * unit) * white
    return cv2.transform(samples, np.column_stack([inverse, -inverse @ (offset * unit)]))


def from_rgb(pixels: np.ndarray, pixel_format: str, colour: Colour) -> av.VideoFrame:
    """A frame of `pixel_format` with matrix and range as `colour` says, from (H, W, 3) RGB uint8 or uint16.

    Where chroma is subsampled, its samples sit on every second column and between two rows: the place that MPEG-2,
    H.264 and HEVC give them unless they say otherwise.
    """
    height, width = pixels.shape[:2]
    form = av.VideoFormat(pixel_format, 8, 8)
    if is_rgb(form):
        return av.VideoFrame.from_ndarray(pixels, "rgb24" if pixels.dtype == np.uint8 else "rgb48le").reformat(
            format=pixel_format
        )
    layout = {(2, 2): "420", (2, 1): "422"}.get((8 // form.chroma_width(8), 8 // form.chroma_height(8)), "444")
    bits = 8 if form.components[0].bits == 8 else 10
    matrix, offset = _encoding_matrix(colour, bits)
    matrix /= 255 if pixels.dtype == np.uint8 else 65535
    if bits > 8:
        pixels = pixels.astype(np.uint16, copy=False)
    # Three channels at once, and whole pictures where one would do: only these have quick code in OpenCV.
    samples = cv2.transform(pixels, np.column_stack([matrix, offset]))
    if samples.dtype != np.uint8:
        np.minimum(samples, (1 << bits) - 1, out=samples)  # a pure blue rounds up past the end
    frame = av.VideoFrame(width, height, f"yuv{layout}p" + ("10le" if bits > 8 else ""))
    luma, *chroma = _planes(frame)
    luma[:] = samples[..., 0]
    if layout == "420":
        samples = cv2.addWeighted(samples[::2], 0.5, samples[1::2], 0.5, 0)
    if layout != "444":
        samples = cv2.filter2D(samples, -1, np.array([[0.25, 0.5, 0.25]]))[:, ::2]
    for number, plane in enumerate(chroma, start=1):
        plane[:] = samples[..., number]
    frame = _reformat(frame, pixel_format, colour, width, height)
    frame.colorspace = colour.matrix
    frame.color_range = range_of(colour)
    frame.color_primaries = colour.primaries
    frame.color_trc = colour.transfer
    return frame


def _encoding_matrix(colour: Colour, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Matrix (3, 3) and offset (3,) from RGB in [0, 1] to Y'CbCr codes of `bits` bits.

    Reference: ITU-T H.273, equations 20 to 47 (limited and full range, Y'CbCr from R'G'B').
    """
    red, blue = LUMA_SHARES[colour.matrix]
    luma = np.array([red, 1 - red - blue, blue])
    matrix = np.stack([luma, (np.eye(3)[2] - luma) / (2 - 2 * blue), (np.eye(3)[0] - luma) / (2 - 2 * red)])
    unit, middle, white = 1 << (bits - 8), 1 << (bits - 1), (1 << bits) - 1
    spans = [white] * 3 if colour.full_range else [219 * unit, 224 * unit, 224 * unit]
    black = 0 if colour.full_range else 16 * unit
    return matrix * np.array(spans, float)[:, None], np.array([black, middle, middle], float)


def _reformat(frame: av.VideoFrame, form: str, colour: Colour, width: int, height: int) -> av.VideoFrame:
    """Another layout or size of the same Y'CbCr samples; naming one range on both sides keeps them as they are."""
    return frame.reformat(
        width=width,
        height=height,
        format=form,
        src_color_range=range_of(colour),
        dst_color_range=range_of(colour),
        interpolation=FULL_QUALITY,
    )


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """The planes of a planar frame as arrays that share its memory."""
    kind = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
    arrays = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind().itemsize)
        arrays.append(rows[:, : plane.width])
    return arrays


def range_of(colour: Colour) -> ColorRange:
    """The library's name for the range of the samples."""
    return ColorRange.JPEG if colour.full_range else ColorRange.MPEG


def is_rgb(form: av.VideoFormat) -> bool:
    """Whether pictures of this format hold red, green and blue, by themselves or as a palette."""
    return form.is_rgb or form.has_palette
