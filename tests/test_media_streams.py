"""Files as broadcasters, phones and cameras leave them: their clocks, covers, keys and colours."""

import errno
import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from sa_upscale import media, video
from sa_upscale.errors import UpscaleError
from sa_upscale.journal import alone
from sa_upscale.media.clock import SteadyClock
from sa_upscale.media.recode import Copy

from .clips import Clip, Nearest, make, payload, times, upscale

DISPLAY = (0.265, 0.69, 0.15, 0.06, 0.68, 0.32, 0.3127, 0.329)  # green, blue, red, white
HDR = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"


def broadcast(path, start, frames=8):
    """A transport stream whose clock shows `start` (s) at its first sound; pictures begin 40 ms later."""
    return make(
        path,
        Clip(
            audio=1,
            pts=[int(90000 * start) + 3600 * (i + 1) for i in range(frames)],
            time_base=Fraction(1, 90000),
            audio_delay=Fraction(start),
            options={"bf": "2"},
        ),
    )


def remux(source, target, options, metadata=None):
    """The video of one file in another."""
    with av.open(str(source)) as before, av.open(str(target), "w", container_options=options) as after:
        stream = after.add_stream_from_template(before.streams.video[0])
        after.metadata.update(metadata or {})
        for packet in before.demux(video=0):
            if packet.size:
                packet.stream = stream
                after.mux(packet)


def jpeg():
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 40, 30)).save(file, "JPEG")
    return file.getvalue()


# --- clocks --------------------------------------------------------------------------------------------------------


def test_a_broadcast_begins_at_zero_with_its_sound_where_it_was(tmp_path):
    source = broadcast(tmp_path / "clip.ts", 5000)
    result = upscale(source, tmp_path / "out.mp4")
    sound, pictures = payload(source, "audio"), times(source)
    begin = min(sound[0][0], pictures[0])
    assert begin > 4999
    assert times(result.target) == pytest.approx([at - begin for at in pictures], abs=1e-4)
    assert [float(at) for at, _ in payload(result.target, "audio")] == pytest.approx(
        [float(at - begin) for at, _ in sound], abs=1e-4
    )


@pytest.mark.parametrize("second", [100, 9000], ids=["back", "ahead"])
def test_joined_broadcasts_go_on_without_a_hole(tmp_path, second):
    parts = [broadcast(tmp_path / f"{start}.ts", start).read_bytes() for start in (5000, second)]
    source = tmp_path / "joined.ts"
    source.write_bytes(b"".join(parts))
    result = upscale(source, tmp_path / "out.mkv")
    assert (result.frames_out, result.complete) == (16, True)
    steps = np.diff([float(at) for at in times(result.target)])
    assert steps.min() > 0
    assert steps.max() < 0.5
    ends = [float(payload(result.target, "audio")[-1][0]), float(times(result.target)[-1])]
    assert abs(ends[0] - ends[1]) < 0.3, "sound and pictures drifted apart"


def test_a_pause_is_no_jump(tmp_path):
    clip = Clip([(90, 90, 90)] * 4, pts=[0, 3750, 90000 * 20, 90000 * 20 + 3750], time_base=Fraction(1, 90000))
    source = make(tmp_path / "clip.ts", clip)
    result = upscale(source, tmp_path / "out.mp4")
    assert times(result.target) == [at - times(source)[0] for at in times(source)]


def test_other_files_keep_their_clock(tmp_path):
    with media.probe(make(tmp_path / "clip.mp4")).source.open() as container:
        info = media.probe(tmp_path / "clip.mp4")
        packets = list(container.demux(video=0))
        before = [packet.pts for packet in packets]
        assert [SteadyClock(info).place(packet).pts for packet in packets] == before


# --- covers, keys and the mark of the tool ---------------------------------------------------------------------------


def covered(path):
    """A film with a cover picture, as MP4 has it or as Matroska does."""
    picture = jpeg()
    with av.open(str(make(path.with_name("plain.mkv")))) as plain, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(plain.streams.video[0])
        if path.suffix == ".mkv":
            container.add_attachment("front.jpg", "image/jpeg", picture)
        else:
            cover = container.add_mux_stream("mjpeg", width=32, height=32)
            cover.disposition = av.stream.Disposition.attached_pic
        for packet in plain.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
        if path.suffix != ".mkv":
            packet = av.Packet(picture)
            packet.stream, packet.pts, packet.dts = cover, 0, 0
            container.mux(packet)
    return path, picture


@pytest.mark.parametrize("suffixes", [(".mkv", ".mkv"), (".mp4", ".mkv"), (".mp4", ".mp4")], ids="→".join)
def test_the_cover_stays_a_cover(tmp_path, suffixes):
    source, picture = covered(tmp_path / f"film{suffixes[0]}")
    result = upscale(source, tmp_path / f"out{suffixes[1]}")
    assert result.streams_copied == 1
    with av.open(str(result.target)) as container:
        film, cover = container.streams.video
        assert [bool(s.disposition & av.stream.Disposition.attached_pic) for s in (film, cover)] == [False, True]
        assert next(bytes(packet) for packet in container.demux(cover) if packet.size) == picture


def test_what_a_phone_says_of_itself_is_kept(tmp_path):
    source = tmp_path / "clip.mov"
    said = {"com.apple.quicktime.model": "Phone 5", "title": "Hello"}
    remux(make(tmp_path / "plain.mp4"), source, {"movflags": "use_metadata_tags"}, said)
    result = upscale(source, tmp_path / "out.mov", tag="sa-upscale 1")
    with av.open(str(result.target)) as container:
        kept = container.metadata
    assert (kept["com.apple.quicktime.model"], kept["title"]) == ("Phone 5", "Hello")
    assert kept["upscaled_with"] == "sa-upscale 1"


@pytest.mark.parametrize(
    ("suffix", "key"), [(".mp4", "encoder"), (".mov", "comment"), (".mkv", "UPSCALED_WITH"), (".webm", "UPSCALED_WITH")]
)
def test_the_file_says_what_made_it_unless_it_is_not_to(tmp_path, suffix, key):
    source = make(tmp_path / "clip.mkv")
    for tag in ("sa-upscale 9.9, compact-x4, x2", None):
        result = upscale(source, tmp_path / f"out{suffix}", tag=tag)
        with av.open(str(result.target)) as container:
            assert (container.metadata.get(key) == tag) if tag else ("sa-upscale" not in str(container.metadata))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_the_users_comment_is_never_written_over(tmp_path, suffix):
    source = make(tmp_path / f"clip{suffix}", Clip(metadata={"comment": "mine", "title": "Film"}))
    result = upscale(source, tmp_path / f"out{suffix}", tag="sa-upscale 9.9")
    with av.open(str(result.target)) as container:
        kept = {key.lower(): value for key, value in container.metadata.items()}
    assert (kept["comment"], kept["title"]) == ("mine", "Film")


# --- colour --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_the_mastering_display_is_said_beside_the_stream_too(tmp_path, suffix):
    clip = Clip(
        pixel_format="yuv420p10le",
        codec="libx265",
        matrix=9,
        options={"preset": "ultrafast", "x265-params": f"log-level=none:hdr10=1:{HDR}"},
    )
    source = make(tmp_path / "clip.mp4", clip)
    result = upscale(source, tmp_path / f"out{suffix}")
    data = result.target.read_bytes()
    if suffix == ".mp4":
        points = [round(50_000 * value) for value in DISPLAY]
        assert b"mdcv" + struct.pack(">8H2I", *points, 10_000_000, 50) in data
        assert b"clli" + struct.pack(">2H", 1000, 400) in data
    else:
        begin = data.index(b"\x55\xd0")  # Matroska's MasteringMetadata
        assert struct.pack(">d", 1000) in data[begin : begin + 200]
    assert times(result.target) == pytest.approx(times(source), abs=0.0006)


def test_chroma_is_taken_from_where_the_stream_says_it_is(tmp_path):
    """A ramp of red difference: samples said to be half a pixel further left show the same colour earlier."""
    shown = {}
    for place, name in enumerate(("left", "center")):
        path = tmp_path / f"{name}.mkv"
        with av.open(str(path), "w") as container:
            options = {"crf": "0", "x264-params": f"chromaloc={place}"}
            stream = container.add_stream("libx264", rate=24, width=64, height=16, options=options)
            stream.pix_fmt = "yuv420p"
            frame = av.VideoFrame(64, 16, "yuv420p")
            ramp = np.tile(np.arange(64, 192, 4, dtype=np.uint8), (8, 1))
            for plane, values in zip(
                frame.planes, (np.full((16, 64), 128, np.uint8), ramp * 0 + 128, ramp), strict=True
            ):
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
                rows[:, : plane.width] = values
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        with media.Reader(media.probe(path)) as reader:
            shown[name] = next(reader.events()).pixels[8, 16:48, 0].astype(float)
    # The ramp rises by two codes of Cr a pixel: half a pixel is one of Cr, times 1.6 of red.
    assert (shown["left"] - shown["center"]).mean() == pytest.approx(1.6, abs=0.4)


def test_frames_as_graphics_hardware_gives_them_are_read_the_same():
    planar = av.VideoFrame(32, 16, "yuv420p10le")
    rng = np.random.default_rng(0)
    for plane in planar.planes:
        plane.update(rng.integers(64, 940, plane.buffer_size // 2).astype(np.uint16).tobytes())
    colour = media.Colour(9, 9, 16, False)
    direct, downloaded = (
        media.to_rgb(frame, 32, 16, 10, colour) for frame in (planar, planar.reformat(format="p010le"))
    )
    assert np.array_equal(direct, downloaded)


def test_transparency_beside_the_pictures_is_said_to_be_lost(tmp_path):
    path = tmp_path / "clip.webm"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=24, width=32, height=32, options={"auto-alt-ref": "0"})
        stream.pix_fmt = "yuva420p"
        picture = np.full((32, 32, 4), 128, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgba").reformat(format="yuva420p")))
        container.mux(stream.encode(None))
    assert media.probe(path).notices == ("the video's transparency is not kept",)


# --- what cannot be ------------------------------------------------------------------------------------------------


def test_an_encrypted_film_is_named_so(tmp_path):
    path = tmp_path / "clip.mp4"
    key = "76a6c65c5ea762046bd749a2e632ccbb"
    options = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": key}
    remux(make(tmp_path / "plain.mp4"), path, options)
    with pytest.raises(UpscaleError, match="encrypted"):
        media.probe(path)


def test_hardware_that_is_not_there_is_said_and_done_without(tmp_path, monkeypatch):
    monkeypatch.setattr(media.source, "hwdevices_available", list)
    said = []
    result = upscale(make(tmp_path / "clip.mp4"), tmp_path / "out.mp4", hardware="cuda", on_notice=said.append)
    assert result.frames_out == 8
    assert said == ["h264 is decoded on the processor: cuda does not do it here"]


def test_a_second_run_on_one_target_is_refused(tmp_path):
    source, target = make(tmp_path / "clip.mp4"), tmp_path / "out.mp4"
    refused = []

    class Meanwhile(Nearest):
        def run(self, frame):
            if not refused:
                with pytest.raises(UpscaleError) as caught:
                    upscale(source, target)
                refused.append(str(caught.value))
            return super().run(frame)

    result = upscale(source, target, Meanwhile())
    assert refused == [f"{target}: another run is making it; wait for that, or choose another output"]
    assert result.frames_out == 8
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4"]


def test_a_folder_is_free_again_after_a_run(tmp_path):
    for _ in range(2):
        with alone(tmp_path / "work", "x"):
            pass


def test_phone_clips_become_mp4(tmp_path):
    for name in ("clip.3gp", "clip.f4v"):
        assert video.target_for(media.Source(tmp_path / name), None, 2).name == "clip_x2.mp4"


@pytest.mark.parametrize("suffix", [".ts", ".h264", ".mkv"])
def test_a_cut_is_exact_whatever_the_file_knows_of_its_key_frames(tmp_path, suffix):
    colours = [(20 + 3 * at, 120, 90) for at in range(72)]
    clip = Clip(colours, time_base=Fraction(1, 90000), options={"g": "30", "bf": "2", "x264-params": "scenecut=0"})
    info = media.probe(make(tmp_path / f"clip{suffix}", clip))
    with media.Reader(info) as reader:
        whole = [(frame.pts * info.time_base, frame.pixels.tobytes()) for frame in reader.events()]
    with media.Reader(info, media.Part(start=1.5, duration=0.5)) as reader:
        cut = [frame.pixels.tobytes() for frame in reader.events()]
        begin = 1.5 if suffix == ".ts" else reader.begin
    assert cut == [pixels for at, pixels in whole if begin <= at < begin + Fraction(1, 2)]
    assert len(cut) == 12


def test_surround_sound_goes_into_webm(tmp_path):
    source = tmp_path / "clip.mkv"
    with av.open(str(source), "w") as container:
        video_stream = container.add_stream("libx264", rate=24, width=64, height=48)
        video_stream.pix_fmt = "yuv420p"
        sound = container.add_stream("ac3", rate=48000)
        sound.codec_context.layout = "5.1(side)"
        for at in range(4):
            container.mux(video_stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 40 * at, np.uint8))))
        for at in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((6, 1536), np.float32), format="fltp", layout="5.1(side)")
            frame.sample_rate, frame.pts, frame.time_base = 48000, at * 1536, Fraction(1, 48000)
            container.mux(sound.encode(frame))
        container.mux(video_stream.encode(None))
        container.mux(sound.encode(None))
    result = upscale(source, tmp_path / "out.webm", options={"cpu-used": "8", "deadline": "realtime"})
    with av.open(str(result.target)) as container:
        assert container.streams.audio[0].codec_context.layout.nb_channels == 6


def test_a_damaged_packet_of_sound_costs_no_more_than_itself(tmp_path, monkeypatch):
    real, calls = Copy.take, []

    def take(self, packet):
        calls.append(packet)
        if len(calls) == 5:
            raise av.InvalidDataError(errno.EINVAL, "invalid data")
        return real(self, packet)

    monkeypatch.setattr(Copy, "take", take)
    source = make(tmp_path / "clip.mp4", Clip(audio=1))
    result = upscale(source, tmp_path / "out.mp4")
    assert (result.frames_out, result.complete) == (8, False)
    assert result.warnings[-1] == "1 damaged part(s) of sound or text could not be kept"
    assert len(payload(result.target, "audio")) == len(payload(source, "audio")) - 1
