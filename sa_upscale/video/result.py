"""Putting the result together of its segments and of what else the source holds, checking it, giving it its name."""

import dataclasses
import os
import shutil
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from sa_upscale import media
from sa_upscale.errors import UpscaleError
from sa_upscale.video.job import Job, Store, VideoResult

TICK = Fraction(1, 1000)  # s; what Matroska rounds to
AUDIO_SLACK = 0.03  # s; an encoder of sound begins with up to 1024 samples that are not heard


def rehearse(job: Job, work: Path) -> list[str]:
    """Begin the result and let go of it: what its container or encoder refuses is known before hours of work."""
    with media.Others(job.info, job.options.part) as others:
        writer = _writer(job, _part(job, work), others)
        writer.abandon()
    return writer.notices


def assemble(job: Job, work: Path, segments: Store, reader: media.Reader, notices: Sequence[str]) -> VideoResult:
    """Make the file of its segments and of the source's other streams, check it, give it its name."""
    part = _part(job, work)
    with media.Others(job.info, job.options.part) as others:
        writer = _writer(job, part, others)
        try:
            writer.assemble(segments.chunks(), segments.stamps(), others.packets(writer.copied))
            writer.close()
        except BaseException:
            writer.abandon()
            raise
    if writer.damaged:
        reader.problems.append(f"{writer.damaged} damaged part(s) of sound or text could not be kept")
    if job.encoding.container == media.SEQUENCE:
        return _settle_pictures(job, part, reader, notices)
    found = media.tally(part)
    result = result_of(job, reader, found, len(writer.copied), notices)
    shifts = [abs(after - before) for before, after in zip(writer.sounds, found.sounds, strict=False)]
    result = dataclasses.replace(result, audio_shift=float(max(shifts, default=0)))
    _check_result(result, part, max(job.info.frame_time, reader.last_duration) + TICK)
    _settle(part, job.target)
    return result


def result_of(job: Job, reader: media.Reader, found: media.Tally, streams: int, notices: Sequence[str]) -> VideoResult:
    """What came of a job whose finished file holds what `found` says."""
    encoding = job.encoding
    return VideoResult(
        source=job.info.path,
        target=job.target,
        width=encoding.width,
        height=encoding.height,
        codec=encoding.codec,
        pixel_format=encoding.pixel_format,
        frames_in=reader.frames,
        frames_out=found.frames,
        frames_resumed=0,
        duration_in=float(reader.length),
        duration_out=float(found.end - found.first),
        streams_copied=streams,
        audio_shift=0.0,
        seconds={},
        complete=not reader.problems,
        warnings=(*notices, *reader.problems),
    )


def _writer(job: Job, part: Path, others: media.Others) -> media.Writer:
    audio, tag = job.options.audio, job.options.tag
    return media.Writer(part, job.info, others, job.encoding, name=job.name, audio=audio, tag=tag)


def _part(job: Job, work: Path) -> Path:
    """Where the result grows."""
    if job.encoding.container != media.SEQUENCE:
        return work / f"result{job.target.suffix}"
    folder = work / "pictures"
    folder.mkdir(exist_ok=True)
    return folder / job.target.name


def _check_result(result: VideoResult, part: Path, slack: Fraction) -> None:
    """Hold the finished file against what went in; a file that fails is kept under a name of its own.

    Hours of work are not thrown away over a wrong count, but neither does it take the place of a good file.  `slack`
    (s) is what the lengths may differ by, one frame: Matroska does not say how long the last picture stays.
    """
    lengths_agree = abs(result.duration_out - result.duration_in) <= slack
    if result.frames_out == result.frames_in and lengths_agree and result.audio_shift <= AUDIO_SLACK:
        return
    kept = result.target.with_name(f"{result.target.stem}.unchecked{result.target.suffix}")
    os.replace(part, kept)
    shutil.rmtree(part.parent)
    raise UpscaleError(
        f"{result.target}: the result failed its check ({result.frames_in} frames in, {result.frames_out} out;"
        f" {result.duration_in:.3f} s in, {result.duration_out:.3f} s out; sound moved by {result.audio_shift:.3f} s);"
        f" it was left as {kept.name}"
    )


def _settle(part: Path, target: Path) -> None:
    """Put the file on the disk, then give it its name: after a power cut there is the old file or the whole new one."""
    with media.write_errors(str(target)):
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, target)


def _settle_pictures(job: Job, pattern: Path, reader: media.Reader, notices: Sequence[str]) -> VideoResult:
    pictures = sorted(pattern.parent.iterdir())
    if len(pictures) != reader.frames:
        raise UpscaleError(f"{job.target}: {reader.frames} frames in, {len(pictures)} pictures out; start again")
    for picture in pictures:
        _settle(picture, job.target.with_name(picture.name))
    found = media.Tally(len(pictures), Fraction(0), Fraction(0), reader.length)
    return result_of(job, reader, found, 0, notices)
