"""Deciding how a result is encoded: container, encoder, its options, pixel format and size."""

import dataclasses
import io
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av

from sa_upscale.errors import UpscaleError, near
from sa_upscale.media.colour import Colour, is_rgb
from sa_upscale.media.info import Mastering, VideoInfo
from sa_upscale.media.source import is_pattern

# Containers written, by the suffix of the file.  AVI is read only: it has no presentation timestamps to write.
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
PICTURES = {".png": "png", ".tif": "tiff", ".tiff": "tiff"}  # encoders of numbered pictures
SEQUENCE, PIPE = "image2", "yuv4mpegpipe"  # containers, in libav's names

# Names people type for what the encoders call themselves.
ALIASES = {
    "h264": "libx264",
    "x264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "x265": "libx265",
    "av1": "libsvtav1",
    "svtav1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
DEFAULT_OPTIONS = {
    # Quicker presets than the encoders' own: where the network shares the processor, each minute of theirs is its
    # minute.  A frame of 640×360 takes x264 2.7 ms, and 5.7 with "faster" at CRF 17, whose files are 8 to 10 % smaller
    # and 0.1 to 0.3 dB nearer to the pictures.
    "libx264": {"crf": "16", "preset": "veryfast"},
    # x265 otherwise reports its whole configuration on stderr.
    "libx265": {"crf": "18", "preset": "fast", "x265-params": "log-level=error"},
    "libsvtav1": {"crf": "20", "preset": "6"},
    "libvpx-vp9": {"crf": "20", "cpu-used": "3", "row-mt": "1"},
    "prores_ks": {"profile": "3"},
    "h264_nvenc": {"preset": "p5", "rc": "vbr", "cq": "19"},
    "hevc_nvenc": {"preset": "p5", "rc": "vbr", "cq": "20"},
    "av1_nvenc": {"preset": "p5", "rc": "vbr", "cq": "24"},
    "h264_qsv": {"global_quality": "19"},
    "hevc_qsv": {"global_quality": "20"},
    "h264_amf": {"rc": "cqp", "qp_i": "18", "qp_p": "20"},
    "hevc_amf": {"rc": "cqp", "qp_i": "18", "qp_p": "20"},
}
# What `--crf` is called where it is not crf.
QUALITY = {"nvenc": "cq", "qsv": "global_quality"}
# Encoders in graphics hardware, the first that works here for `--codec auto`; H.264 has no 10 bits there.
HARDWARE = ("nvenc", "videotoolbox", "qsv", "amf")
HIGHEST_CRF = {"libx264": 51, "libx265": 51, "libsvtav1": 63, "libvpx-vp9": 63}
X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
# Codecs whose container can hold the mastering display's data beside the stream (`mastering`).
BESIDE = ("h264", "hevc", "av1", "vp9", "prores")
LARGEST = 8192  # pixels a side; beyond the levels of H.264, HEVC and AV1 that any player knows
UNLIMITED = ("ffv1", "prores_ks", "png", "tiff", "rawvideo")


@dataclass(frozen=True)
class Wishes:
    """How the user wants the result encoded; None leaves it to the source and the container."""

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    pixel_format: str | None = None
    depth: int | None = None  # bits
    container: str | None = None


@dataclass(frozen=True)
class Encoding:
    """How the result is encoded; `width` and `height` are what the pixel format allows, `notices` what was changed."""

    container: str
    codec: str
    options: dict[str, str]
    pixel_format: str
    width: int
    height: int
    colour: Colour
    notices: tuple[str, ...] = ()


def plan(info: VideoInfo, target: Path | None, size: tuple[int, int], wishes: Wishes | None = None) -> Encoding:
    """Decide encoder, options, pixel format and size of the upscaled video; a target of None is a pipe.

    `size` is (width, height) in pixels, as near to which as the pixel format allows the result comes.  10-bit sources
    stay 10-bit where the encoder can.  Raises UpscaleError for an unknown container or codec, an option that the codec
    does not have, and a size that nobody could play.
    """
    wishes = wishes or Wishes()
    container = _container(target, wishes)
    depth = wishes.depth or info.depth
    encoder = _encoder(wishes.codec or _default_codec(container, target, depth), depth)
    if container not in (SEQUENCE, PIPE) and encoder.name not in _muxer_codecs(container):
        hint = "choose another --codec" if container == "matroska" else "choose another --codec or write an .mkv"
        raise UpscaleError(f"{target}: a {target.suffix} file cannot hold {encoder.name}; {hint}")
    notices = []
    pixel_format = _pixel_format(encoder, depth, wishes.pixel_format)
    kept = max(part.bits for part in av.VideoFormat(pixel_format).components)
    if kept < min(info.depth, 10) and not (wishes.depth or wishes.pixel_format):
        notices.append(f"{encoder.name} encodes 8 bits; the source's {info.depth} are reduced")
    width, height = even_size(*size, pixel_format)
    if (width, height) != size:
        notices.append(f"{size[0]}x{size[1]} made {width}x{height}: {pixel_format} needs even numbers of pixels")
    if max(width, height) > LARGEST and encoder.name not in UNLIMITED:
        raise UpscaleError(
            f"{width}x{height}: no player takes more than {LARGEST} pixels a side; choose a smaller scale, or --codec"
            " ffv1 or prores"
        )
    options = _options(encoder, wishes)
    # Other encoders' streams may have it beside them.
    kept = encoder.canonical_name in BESIDE and container not in (SEQUENCE, PIPE)
    if info.mastering is not None and not _add_mastering(options, encoder.name, info.mastering) and not kept:
        notices.append(f"the HDR colours and tags are kept; the mastering display's data is not, for {encoder.name}")
    return Encoding(
        container=container,
        codec=encoder.name,
        options=options,
        pixel_format=pixel_format,
        width=width,
        height=height,
        colour=_target_colour(info, pixel_format),
        notices=tuple(notices),
    )


def even_size(width: int, height: int, pixel_format: str) -> tuple[int, int]:
    """The largest size up to this one whose sides the pixel format's chroma samples divide evenly."""
    form = av.VideoFormat(pixel_format, 8, 8)
    step_x, step_y = 8 // form.chroma_width(8), 8 // form.chroma_height(8)
    return max(step_x, width // step_x * step_x), max(step_y, height // step_y * step_y)


def _container(target: Path | None, wishes: Wishes) -> str:
    if target is None:
        return PIPE
    if is_pattern(target):
        if target.suffix.lower() not in PICTURES:
            raise UpscaleError(f"{target}: cannot write this kind of picture; use {', '.join(PICTURES)}")
        return SEQUENCE
    if wishes.container is not None:
        known = {suffix.removeprefix("."): name for suffix, name in CONTAINERS.items()} | {"matroska": "matroska"}
        if wishes.container not in known:
            raise UpscaleError(f"--container {wishes.container}: {near(wishes.container, known)}")
        return known[wishes.container]
    container = CONTAINERS.get(target.suffix.lower())
    if container is None:
        raise UpscaleError(f"{target}: cannot write this kind of file; use {', '.join(CONTAINERS)}")
    return container


def _default_codec(container: str, target: Path | None, depth: int) -> str:
    if container == SEQUENCE:
        return PICTURES[target.suffix.lower()]
    if container == PIPE:
        return "rawvideo"
    if container == "webm":
        return "libvpx-vp9"
    return "libx264" if depth <= 8 else "libx265"  # players decode 10 bits in hardware as HEVC, never as H.264


def _muxer_codecs(container: str) -> set[str]:
    return av.open(io.BytesIO(), "w", format=container).supported_codecs


def _encoder(name: str, depth: int) -> av.Codec:
    """The video encoder of this name or alias; UpscaleError, with near names, when there is none."""
    if name == "auto":
        family, fallback = ("h264", "libx264") if depth <= 8 else ("hevc", "libx265")
        there = (f"{family}_{maker}" for maker in HARDWARE)
        name = next((encoder for encoder in there if _works(encoder)), fallback)
    with suppress(av.codec.codec.UnknownCodecError):
        encoder = av.Codec(ALIASES.get(name, name), "w")
        if encoder.type == "video":
            return encoder
    raise UpscaleError(f"--codec {name}: no such video encoder; {near(name, [*DEFAULT_OPTIONS, *ALIASES, 'ffv1'])}")


def encoders() -> dict[str, bool]:
    """The video encoders this package has settings for, and whether each works here; hardware is tried."""
    hardware = [f"{family}_{maker}" for maker in HARDWARE for family in ("h264", "hevc", "av1")]
    software = [name for name in (*DEFAULT_OPTIONS, "ffv1") if name not in hardware]
    return {name: name in av.codecs_available for name in software} | {name: _works(name) for name in hardware}


def _works(name: str) -> bool:
    """Whether this encoder is in the build and finds its hardware."""
    try:
        context = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
        context.time_base = Fraction(1, 25)
        context.open()
    except (av.FFmpegError, av.codec.codec.UnknownCodecError, ValueError):
        return False
    return True


def _options(encoder: av.Codec, wishes: Wishes) -> dict[str, str]:
    """The encoder's options, the user's in front of the defaults, checked as far as they are known."""
    name, crf, preset = encoder.name, wishes.crf, wishes.preset
    options = dict(DEFAULT_OPTIONS.get(name, {}))
    offered = encoder.create("video").supported_options
    private = {option.name for option in offered.private}
    quality = QUALITY.get(name.rpartition("_")[2], "crf")
    for option, key, value in (("--crf", quality, crf), ("--preset", "preset", preset)):
        if value is None:
            continue
        if key not in private:
            raise UpscaleError(f"{option}: {name} has no such setting; leave it out")
        options[key] = str(value)
    highest = HIGHEST_CRF.get(name)
    if crf is not None and highest is not None and not 0 <= crf <= highest:
        raise UpscaleError(f"--crf {crf}: {name} takes 0 (best) to {highest}")
    if preset is not None and name in ("libx264", "libx265") and preset not in X26X_PRESETS:
        raise UpscaleError(f"--preset {preset}: {name} takes {', '.join(X26X_PRESETS)}")
    known = private | {option.name for option in offered.generic}
    for key, value in wishes.options.items():
        if key not in known:
            raise UpscaleError(f"--encoder-option {key}: {name} has no such option; {near(key, sorted(private))}")
        options[key] = _joined(options, key, value) if key.endswith("-params") else value
    return options


def _joined(options: dict[str, str], key: str, value: str) -> str:
    return f"{options[key]}:{value}" if key in options else value


def _pixel_format(encoder: av.Codec, depth: int, wish: str | None) -> str:
    """The one wished for; else 4:2:0 with 8 bits, or 10 for deeper sources, or what of the encoder's loses least."""
    offered = None if encoder.video_formats is None else [form.name for form in encoder.video_formats]
    if wish is not None:
        if offered is not None and wish not in offered:
            raise UpscaleError(f"--pix-fmt {wish}: {encoder.name} does not take it; {near(wish, offered)}")
        return _known_format(wish)
    if encoder.name in PICTURES.values():
        return "rgb24" if depth <= 8 else next(name for name in ("rgb48be", "rgb48le") if name in offered)
    wanted = "yuv420p" if depth <= 8 else "yuv420p10le"
    if offered is None:
        return wanted
    names = [name for name in offered if not is_rgb(av.VideoFormat(name))]
    if not names:
        raise UpscaleError(f"--codec {encoder.name}: it is for RGB pictures, not for video; try libx264")
    best, _ = av.codec.find_best_pix_fmt_of_list(names, wanted)
    return names[0] if best is None else best.name


def _known_format(name: str) -> str:
    try:
        return av.VideoFormat(name).name
    except ValueError:
        raise UpscaleError(f"--pix-fmt {name}: no such pixel format; try yuv420p, yuv422p10le or yuv444p") from None


def _target_colour(info: VideoInfo, pixel_format: str) -> Colour:
    """The source's colour, tagged in full: left open, players would judge the larger picture by another rule."""
    if is_rgb(av.VideoFormat(pixel_format)):
        return dataclasses.replace(info.colour, full_range=True)
    if is_rgb(av.VideoFormat(info.pixel_format)) or info.pixel_format.startswith("gray"):
        # The source had no Y'CbCr range to keep, and limited is what every player takes right.
        return dataclasses.replace(info.colour, full_range=False)
    return info.colour


def _add_mastering(options: dict[str, str], codec: str, mastering: Mastering) -> bool:
    """Have the encoder write the mastering display's data into its stream; False where it cannot.

    Reference: the options of x265 and x264 count in SMPTE ST 2086's units, 0.00002 and 0.0001 cd/m²; SVT-AV1's in ones.
    """
    names = {
        "libx265": ("x265-params", "master-display", "max-cll"),
        "libx264": ("x264-params", "mastering-display", "cll"),
    }
    names |= {"libsvtav1": ("svtav1-params", "mastering-display", "content-light")}
    if codec not in names:
        return False
    key, display, light = names[codec]
    parts = []
    if mastering.primaries and mastering.luminance:
        parts.append(f"{display}={_display(mastering, exact=codec == 'libsvtav1')}")
    if mastering.light:
        parts.append(f"{light}={mastering.light[0]},{mastering.light[1]}")
    if parts:
        options[key] = _joined(options, key, ":".join(parts))
    return True


def _display(mastering: Mastering, exact: bool) -> str:
    def shown(value: Fraction, unit: int) -> str:
        return f"{float(value):.6g}" if exact else str(round(value * unit))

    red, green, blue, white = (
        ",".join(shown(value, 50_000) for value in mastering.primaries[at : at + 2]) for at in (0, 2, 4, 6)
    )
    darkest, brightest = (shown(value, 10_000) for value in mastering.luminance)
    return f"G({green})B({blue})R({red})WP({white})L({brightest},{darkest})"
