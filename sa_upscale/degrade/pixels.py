"""Second-order degradation of pixels: blur, resize, noise and JPEG, twice."""

import cv2
import numpy as np

from sa_upscale.degrade.draws import INTERPOLATIONS, Degradation, Noise, Pass, draw
from sa_upscale.degrade.kernels import Bell, Sinc
from sa_upscale.degrade.options import PUBLISHED, SecondOrder

_INTERPOLATIONS = dict(zip(INTERPOLATIONS, (cv2.INTER_AREA, cv2.INTER_LINEAR, cv2.INTER_CUBIC), strict=True))


def second_order(hr: np.ndarray, scale: int, rng: np.random.Generator, options: SecondOrder = PUBLISHED) -> np.ndarray:
    """Degrade a uint8 RGB picture `(H, W, 3)` as cameras, editors and the web do, to `(H // scale, W // scale, 3)`.

    What the result holds follows from `hr` and the state of `rng` alone.  It may be called from several threads, each
    with its own `rng`: the heavy parts run without the interpreter's lock.  What does not divide by `scale` is cropped
    at the right and bottom.

    Blurs reach past a crop's border, where they see a mirror image; a caller that can should pass a margin around the
    crop (Real-ESRGAN: 400 pixels for 256) and cut it off afterwards.  Real-ESRGAN degrades `usm_sharpen(hr)`.

    Raises `ValueError` for another type or shape, or a picture smaller than `scale`.

    Reference: Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data", 2021.
    Its code makes Poisson noise stronger the fewer distinct levels a picture has; here it depends on the light alone,
    so that crops of plain sky do not drown.  The codec is libjpeg's, with its whole qualities.
    """
    return apply(hr, scale, draw(options, rng), rng)


def apply(hr: np.ndarray, scale: int, drawn: Degradation, rng: np.random.Generator) -> np.ndarray:
    """`second_order` with parameters drawn before; `rng` gives the noise's samples."""
    if hr.dtype != np.uint8 or hr.ndim != 3 or hr.shape[2] != 3:
        raise ValueError(f"second_order takes a uint8 picture (H, W, 3), not {hr.dtype} {hr.shape}")
    height, width = (side // scale for side in hr.shape[:2])
    if height < 1 or width < 1:
        raise ValueError(f"a picture of {hr.shape[1]}x{hr.shape[0]} cannot be reduced by {scale}")
    hr = hr[: height * scale, : width * scale]
    first = _blur_resize_noise(hr, drawn.first, hr.shape[:2], rng)
    second = _blur_resize_noise(jpeg(_eight_bits(first), drawn.first.quality), drawn.second, (height, width), rng)
    if drawn.jpeg_last:
        return jpeg(_eight_bits(_finish(second, drawn, (height, width))), drawn.second.quality)
    return _eight_bits(_finish(jpeg(_eight_bits(second), drawn.second.quality), drawn, (height, width)))


def jpeg(picture: np.ndarray, quality: int, *, halved: bool = True) -> np.ndarray:
    """A uint8 RGB picture `(H, W, 3)` after compression with `quality` (1 to 100), chroma `halved` both ways or not."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    chroma = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if halved else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, chroma]
    _, encoded = cv2.imencode(".jpg", bgr, options)
    return cv2.cvtColor(cv2.imdecode(encoded, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def add_noise(x: np.ndarray, noise: Noise, rng: np.random.Generator) -> np.ndarray:
    """`x`, float32 `(H, W, 3)` in [0, 255], with `noise`; the sum is not clipped.

    The light of a pixel is its level: Poisson noise of strength s has the standard deviation s·√level, and black stays
    black.
    """
    shape = x.shape[:2] if noise.grey else x.shape
    if noise.gaussian:
        added = rng.standard_normal(shape, dtype=np.float32)
    else:
        light = np.clip(cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) if noise.grey else x, 0, 255)
        added = rng.poisson(light).astype(np.float32) - light
    added *= np.float32(noise.strength)
    return x + (cv2.merge((added, added, added)) if noise.grey else added)


def usm_sharpen(picture: np.ndarray, weight: float = 0.5, sigma: float = 8.0, threshold: float = 10.0) -> np.ndarray:
    """Sharpen a uint8 picture `(H, W, C)` by an unsharp mask where it differs from its blur by more than `threshold`.

    `weight` times the difference from the Gaussian blur of `sigma` pixels is added, by way of a mask that is blurred
    alike, so that flat parts and their noise stay as they are.  Real-ESRGAN sharpens the targets of L1 and the
    perceptual loss so, and the pictures that it degrades, but not those that its discriminator sees.

    Reference: Wang et al. 2021; the defaults are its code's (51 taps, for which 8 is OpenCV's sigma).
    """
    x = np.ascontiguousarray(picture, np.float32)
    detail = x - _soften(x, sigma)
    mask = _soften((np.abs(detail) > threshold).astype(np.float32), sigma)
    sharp = np.clip(x + np.float32(weight) * detail, 0, 255)
    return _eight_bits(x + mask * (sharp - x)).reshape(picture.shape)


def _soften(x: np.ndarray, sigma: float) -> np.ndarray:
    side = 2 * round(3.125 * sigma) + 1
    return cv2.GaussianBlur(x, (side, side), sigma, borderType=cv2.BORDER_REFLECT_101).reshape(x.shape)


def _blur_resize_noise(x: np.ndarray, drawn: Pass, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """One pass up to its JPEG; `size` is (height, width) at factor 1."""
    x = _filter(np.ascontiguousarray(x, np.float32), drawn.blur)
    x = _resize(x, tuple(max(1, int(side * drawn.factor)) for side in size), drawn.interpolation)
    return np.clip(add_noise(x, drawn.noise, rng), 0, 255)


def _finish(x: np.ndarray, drawn: Degradation, size: tuple[int, int]) -> np.ndarray:
    # Resize and sinc stay together: a JPEG between them would bend lines (found by Wang et al. 2021).
    return _filter(_resize(x.astype(np.float32), size, drawn.interpolation), drawn.sinc)


def _filter(x: np.ndarray, kernel: Bell | Sinc | None) -> np.ndarray:
    return x if kernel is None else cv2.filter2D(x, -1, kernel.weights(), borderType=cv2.BORDER_REFLECT_101)


def _resize(x: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    return cv2.resize(x, size[::-1], interpolation=_INTERPOLATIONS[interpolation])


def _eight_bits(x: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)
