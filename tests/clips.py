"""Small clips for the tests, made with PyAV; their colours are computed here, apart from the code under test."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from sa_upscale import media, video

BT601, BT709, BT2020 = 6, 1, 9  # AVColorSpace
WEIGHTS = {BT601: (0.299, 0.114), BT709: (0.2126, 0.0722), BT2020: (0.2627, 0.0593)}
RATE = 24


@dataclass
class Clip:
    """What to put into a file; `colours` is one flat RGB colour for each frame, `pts` counts in `time_base`."""

    colours: Sequence[tuple[int, int, int]] = field(default_factory=lambda: [(30 + 20 * i, 120, 90) for i in range(8)])
    width: int = 64
    height: int = 48
    pts: Sequence[int] | None = None
    time_base: Fraction = Fraction(1, 12288)
    pixel_format: str = "yuv420p"
    codec: str = "libx264"
    options: dict[str, str] = field(default_factory=lambda: {"crf": "4", "bf": "2"})
    matrix: int | None = BT709
    full_range: bool = False
    rotation: float | None = None
    sample_aspect: Fraction | None = None
    audio: int = 0  # tracks
    audio_delay: Fraction = Fraction(0)
    audio_seconds: float = 0.4
    subtitles: bool = False
    metadata: dict[str, str] = field(default_factory=dict)
    chapters: list[dict] = field(default_factory=list)

    def times(self) -> list[int]:
        """The frames' timestamps in `time_base`."""
        step = round(1 / (RATE * self.time_base))
        return list(self.pts) if self.pts is not None else [i * step for i in range(len(self.colours))]


def make(path: Path, clip: Clip | None = None) -> Path:
    """Write the clip; streams in the order video, audio tracks, subtitles."""
    clip = clip or Clip()
    # The edit list's clock; by default it holds the first time only to the millisecond.
    clock = {"movie_timescale": str(clip.time_base.denominator)} if path.suffix in (".mp4", ".mov") else {}
    with av.open(str(path), "w", container_options=clock) as container:
        container.metadata.update(clip.metadata)
        container.set_chapters(clip.chapters)
        stream = container.add_stream(
            clip.codec,
            rate=RATE,
            options=clip.options,
            width=clip.width,
            height=clip.height,
            time_base=clip.time_base,
        )
        stream.time_base = clip.time_base
        stream.pix_fmt = clip.pixel_format
        if clip.matrix is not None:
            stream.codec_context.colorspace = clip.matrix
            stream.codec_context.color_range = 2 if clip.full_range else 1
        if clip.sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = clip.sample_aspect
        if clip.rotation is not None:
            stream.set_display_rotation(clip.rotation)
        tracks = [_add_audio(container, index) for index in range(clip.audio)]
        texts = _add_subtitles(container) if clip.subtitles else None
        container.start_encoding()
        for index, track in enumerate(tracks):
            _write_audio(container, track, 330 * (index + 1), clip)
        if texts is not None:
            _write_subtitles(container, texts)
        times = clip.times()
        gaps = [after - before for before, after in itertools.pairwise(times)]
        durations = dict(zip(times, [*gaps, gaps[-1] if gaps else 512], strict=True))
        for pts, colour in zip(times, clip.colours, strict=True):
            frame = flat_frame(clip, colour)
            frame.pts, frame.time_base = pts, clip.time_base
            _mux(container, stream.encode(frame), durations)
        _mux(container, stream.encode(None), durations)
    return path


def flat_frame(clip: Clip, colour: tuple[int, int, int]) -> av.VideoFrame:
    """A frame of one colour, from the definition of Y'CbCr (ITU-R BT.709 and BT.601, digital representation)."""
    frame = av.VideoFrame(clip.width, clip.height, clip.pixel_format)
    bits = frame.format.components[0].bits
    for plane, sample in zip(frame.planes, ycbcr(colour, clip.matrix or BT601, clip.full_range, bits), strict=True):
        kind = np.uint8 if bits == 8 else np.uint16
        plane.update(np.full(plane.buffer_size // kind().itemsize, round(sample), kind).tobytes())
    return frame


def ycbcr(colour: tuple[int, int, int], matrix: int, full_range: bool, bits: int) -> tuple[float, float, float]:
    """Y', Cb and Cr codes of an 8-bit RGB colour."""
    red, green, blue = (value / 255 for value in colour)
    of_red, of_blue = WEIGHTS[matrix]
    luma = of_red * red + (1 - of_red - of_blue) * green + of_blue * blue
    cb, cr = (blue - luma) / (2 - 2 * of_blue), (red - luma) / (2 - 2 * of_red)
    unit, middle = 1 << (bits - 8), 1 << (bits - 1)
    if full_range:
        white = (1 << bits) - 1
        return white * luma, middle + white * cb, middle + white * cr
    return unit * (16 + 219 * luma), middle + unit * 224 * cb, middle + unit * 224 * cr


def shown(path: Path, index: int = 0) -> np.ndarray:
    """The mean colour of a decoded frame as RGB in 0…255, computed from its samples by what its tags say."""
    with av.open(str(path)) as container:
        frame = next(frame for at, frame in enumerate(container.decode(video=0)) if at == index)
    bits = frame.format.components[0].bits
    kind = np.uint8 if bits == 8 else np.uint16
    codes = []
    for plane in frame.planes:
        rows = np.frombuffer(plane, kind).reshape(plane.height, -1)
        codes.append(rows[:, : plane.width].mean())
    matrix = BT601 if frame.colorspace == 5 else int(frame.colorspace)
    full_range = frame.color_range == 2
    black = np.array(ycbcr((0, 0, 0), matrix, full_range, bits))
    basis = np.column_stack([ycbcr(c, matrix, full_range, bits) for c in ((255, 0, 0), (0, 255, 0), (0, 0, 255))])
    return 255 * np.linalg.solve(basis - black[:, None], np.array(codes) - black)


def _add_audio(container: av.container.OutputContainer, index: int) -> av.audio.stream.AudioStream:
    codec = "libopus" if container.format.name == "webm" else "aac"
    track = container.add_stream(codec, rate=48000)
    track.codec_context.layout = "mono"
    track.metadata["language"] = ("eng", "fra")[index]
    track.disposition = av.stream.Disposition.default if index == 0 else av.stream.Disposition.forced
    return track


def _write_audio(container: av.container.OutputContainer, track: av.audio.stream.AudioStream, pitch: int, clip: Clip):
    size = track.codec_context.frame_size
    start = round(clip.audio_delay * 48000)
    for begin in range(0, round(clip.audio_seconds * 48000), size):
        wave = 0.3 * np.sin(2 * np.pi * pitch * np.arange(begin, begin + size) / 48000)
        form = track.codec_context.format.name
        samples = wave.astype(np.float32) if form.startswith("flt") else (32767 * wave).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], format=form, layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start + begin, Fraction(1, 48000)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))


def _add_subtitles(container: av.container.OutputContainer) -> av.stream.Stream:
    texts = container.add_mux_stream("subrip")
    texts.metadata["language"] = "eng"
    return texts


def _write_subtitles(container: av.container.OutputContainer, texts: av.stream.Stream) -> None:
    for begin, line in ((50, b"first line"), (180, b"second line")):
        packet = av.Packet(line)
        packet.stream, packet.time_base = texts, Fraction(1, 1000)
        packet.pts = packet.dts = begin
        packet.duration = 100
        container.mux(packet)


def _mux(container: av.container.OutputContainer, packets: list[av.Packet], durations: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = durations[packet.pts]
        container.mux(packet)


def times(path: Path) -> list[Fraction]:
    """Presentation times (s) of the video's decoded frames."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def payload(path: Path, kind: str, index: int = 0) -> list[tuple[Fraction, bytes]]:
    """Time (s) and bytes of every packet of one stream of a kind ("audio", "subtitle")."""
    with av.open(str(path)) as container:
        stream = [s for s in container.streams if s.type == kind][index]
        return [(p.pts * p.time_base, bytes(p)) for p in container.demux(stream) if p.size]


class Nearest:
    """Stands in for the engine: repeats pixels, and keeps what it was asked to do."""

    fingerprint = "nearest"

    def __init__(self, scale: int = 2, window: int = 1):
        self.scale = scale
        self.window = window
        self.prepared = 0
        self.windows: list[list[int]] = []

    def prepare(self, frame: np.ndarray) -> tuple[int, np.ndarray]:
        self.prepared += 1
        return self.prepared - 1, frame

    def lanes(self, size: int) -> int:
        return 1

    def frames_at_once(self, frame: np.ndarray) -> int:
        return 1

    def run_prepared(self, frames: list[tuple[int, np.ndarray]]) -> np.ndarray:
        self.windows.append([number for number, _ in frames])
        return self.run(frames[len(frames) // 2][1])

    def run(self, frame: np.ndarray) -> np.ndarray:
        return frame.repeat(self.scale, axis=0).repeat(self.scale, axis=1)


def upscale(source: Path, target: Path, engine: Nearest | None = None, scale: float = 2, **wishes):
    """`video.upscale_file` with the stand-in engine and a fast encoder; `wishes` are fields of any of its options."""
    callbacks = {name: wishes.pop(name) for name in ("on_progress", "on_notice", "size") if name in wishes}
    part = media.Part(**{name: wishes.pop(name) for name in ("start", "end", "duration") if name in wishes})
    fields = {field.name for field in dataclasses.fields(media.Wishes)}
    encode = {name: wishes.pop(name) for name in list(wishes) if name in fields}
    if target is not None and target.suffix in (".mp4", ".mov", ".mkv") and "codec" not in encode:
        encode.setdefault("preset", "ultrafast")
    options = video.Options(part=part, encode=media.Wishes(**encode), **wishes)
    return video.upscale_file(source, target, engine or Nearest(), scale=scale, options=options, **callbacks)
