"""Streams beside the video on their way into another file: copied, or put into a form that its container can hold."""

import re
from fractions import Fraction

import av
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import SubtitleSet

# What a container takes in place of the sound or the text that it cannot hold.
AUDIO = {"webm": "libopus", "mp4": "aac", "mov": "aac", "matroska": "flac"}
SUBTITLES = {"webm": "webvtt", "mp4": "mov_text", "mov": "mov_text", "matroska": "subrip"}
BIT_RATE = 96_000  # a channel; transparent for either codec
OPUS_RATE = 48_000  # Hz; the only one libopus takes of those that are common

# Reference: RFC 7845, 5.1.1.2.
OPUS_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}

# An ASS header of one style: what libav's text encoders want to be told of the text they get.
ASS_HEADER = b"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,Arial,16,&Hffffff,&Hffffff,&H0,&H0,0,0,0,0,100,100,0,0,1,1,0,2,10,10,10,1
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""
TAGS = re.compile(rb"\{[^}]*\}")


class Copy:
    """Packets of one stream, unchanged but for their time base; `start` is when the first one is shown or heard (s)."""

    form = "the same"

    def __init__(self, stream: av.stream.Stream):
        self.stream = stream
        self.start: Fraction | None = None
        self._last: int | None = None

    def take(self, packet: av.Packet) -> list[av.Packet]:
        """What becomes of a packet of the source's."""
        self._note(packet)
        if packet.dts is not None:
            if self._last is not None and packet.dts <= self._last:
                # Muxers refuse a step back in time, which broken recorders write; one tick is not heard.
                packet.dts = self._last + 1
                packet.pts = None if packet.pts is None else max(packet.pts, packet.dts)
            self._last = packet.dts
        packet.stream = self.stream
        return [packet]

    def finish(self) -> list[av.Packet]:
        """What was held back."""
        return []

    def _note(self, data: av.Packet | av.AudioFrame) -> None:
        if self.start is None and data.pts is not None:
            self.start = data.pts * data.time_base


class Attached(Copy):
    """A cover picture as the file that Matroska attaches, in place of a stream."""

    def __init__(self, container: av.container.OutputContainer, stream: av.video.stream.VideoStream, picture: bytes):
        kind = {"mjpeg": ("jpg", "image/jpeg")}.get(stream.codec_context.name, ("png", "image/png"))
        name = stream.metadata.get("filename", f"cover.{kind[0]}")
        super().__init__(container.add_attachment(name, stream.metadata.get("mimetype", kind[1]), picture))

    def take(self, packet: av.Packet) -> list[av.Packet]:
        """Nothing: the picture is in the file's header."""
        return []


class AudioRecoder(Copy):
    """Sound decoded and encoded anew."""

    def __init__(self, stream: av.audio.stream.AudioStream, source: av.audio.stream.AudioStream):
        super().__init__(stream)
        self.form = stream.codec_context.name
        self._source = source

    def take(self, packet: av.Packet) -> list[av.Packet]:
        try:
            frames = self._source.decode(packet)
        except av.FFmpegError:
            return []  # a damaged packet is as long a silence
        for frame in frames:
            self._note(frame)
        return [coded for frame in frames for coded in self.stream.encode(frame)]

    def finish(self) -> list[av.Packet]:
        last = [coded for frame in self._source.decode(None) for coded in self.stream.encode(frame)]
        # FLAC's last packet is empty: it brings a checksum for a header that has been written.
        return [coded for coded in (*last, *self.stream.encode(None)) if coded.size]


class SubtitleRecoder(Copy):
    """Text put into another form, without its styles."""

    def __init__(self, stream: SubtitleStream, source: SubtitleStream):
        super().__init__(stream)
        self.form = stream.codec_context.name
        self._source = source

    def take(self, packet: av.Packet) -> list[av.Packet]:
        lines = [rect for rect in self._source.decode(packet) if rect.type in (b"ass", b"text")]
        text = rb"\N".join(TAGS.sub(b"", line.dialogue) for line in lines).strip()
        if not text:
            return []
        shown = SubtitleSet.create(b"0,0,Default,,0,0,0,," + text, 0, packet.duration, 0)
        coded = self.stream.codec_context.encode_subtitle(shown)
        coded.stream, coded.time_base = self.stream, packet.time_base
        coded.pts = coded.dts = packet.pts
        coded.duration = packet.duration
        return [coded]


def audio_recoder(container: av.container.OutputContainer, source: av.audio.stream.AudioStream) -> AudioRecoder | None:
    """A recoder into what the container takes; None where there is no decoder for the source's sound."""
    if source.codec_context is None or not (
        source.codec_context.sample_rate and source.codec_context.layout.nb_channels
    ):
        return None  # of a track that ends before its first sound, nothing is known
    codec = AUDIO[container.format.name]
    rate = OPUS_RATE if codec == "libopus" else source.codec_context.sample_rate
    stream = container.add_stream(codec, rate=rate)
    channels = source.codec_context.layout.nb_channels
    # Opus knows one arrangement for each number of channels; where the surround speakers stand is not said.
    stream.codec_context.layout = (
        OPUS_LAYOUTS.get(channels, "stereo") if codec == "libopus" else source.codec_context.layout
    )
    stream.codec_context.bit_rate = BIT_RATE * channels
    return AudioRecoder(stream, source)


def subtitle_recoder(container: av.container.OutputContainer, source: SubtitleStream) -> SubtitleRecoder | None:
    """A recoder into what the container takes; None for subtitles that are pictures."""
    if source.codec_context is None or source.codec_context.name not in (
        "subrip",
        "srt",
        "ass",
        "ssa",
        "webvtt",
        "mov_text",
    ):
        return None
    stream = container.add_stream(SUBTITLES[container.format.name])
    stream.codec_context.subtitle_header = ASS_HEADER
    return SubtitleRecoder(stream, source)
