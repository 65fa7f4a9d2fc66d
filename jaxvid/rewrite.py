"""Videos and images written frame by frame in the place of others: with their timestamps, their audio, their names."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Discard
from PIL import Image

from jaxvid.data.pipeline import DamagedClip
from jaxvid.data.video import VideoInfo, open_file
from jaxvid.files import replacing
from jaxvid.images import FPS, MP4, add_h264, even

QUALITY = 95  # of JPEG and WebP
TS_DISCONT = 0x200  # AVFMT_TS_DISCONT

Write = Callable[[int, np.ndarray], None]
"""Writes a frame, its timestamp and its pixels uint8 [h,w,3], after those before it."""


@contextmanager
def writing_images(paths: Sequence[str | Path]) -> Iterator[Write]:
    """Writes one image to each of the paths in turn, in the format of its ending: all of them, or none."""
    formats, remaining = Image.registered_extensions(), iter(paths)
    with ExitStack() as stack:

        def write(_: int, pixels: np.ndarray) -> None:
            path = Path(next(remaining))
            temporary = stack.enter_context(replacing(path))
            Image.fromarray(pixels).save(temporary, formats[path.suffix.lower()], quality=QUALITY)

        yield write


@contextmanager
def writing_video(path: str | Path, info: VideoInfo, height: int, width: int) -> Iterator[Write]:
    """Writes other frames for those of a video: MP4 with H.264, with the timestamps and the audio of the original.

    Audio is copied, or encoded as AAC, mono or stereo, where MP4 does not take its codec. Odd heights and widths grow
    by one repeated row or column. Images without times come at 8 a second. Where the clock of a format starts anywhere,
    as in MPEG-TS, times count from the beginning of the file.

    Args:
      path: the file, which appears whole or not at all.
      info: of the original, from `probe` or `probe_images`.
      height, width: of the frames that are written.

    Raises DamagedClip if FFmpeg cannot encode them, OSError if the file cannot be written.
    """
    base = info.time_base if info.timed or not info.images else Fraction(1, FPS)
    rate = Fraction(info.fps or FPS).limit_denominator(1001)
    ticks = {name: str(base.denominator) for name in ("video_track_timescale", "movie_timescale")}
    with replacing(path) as temporary, _encoding(info.path), ExitStack() as stack:
        output = stack.enter_context(av.open(str(temporary), "w", format="mp4", options=MP4 | ticks))
        stream = add_h264(output, height + height % 2, width + width % 2, rate)
        stream.codec_context.time_base = base
        source = None if info.images else stack.enter_context(open_file(info.path))
        start = _start(source) if source and info.timed else Fraction(0)
        audio = _muxing_audio(source, output, start) if source else iter(())
        due = next(audio, math.inf)

        def mux(packets: Sequence[av.Packet]) -> None:
            nonlocal due
            for packet in packets:
                while due <= (packet.dts or 0) * packet.time_base:  # audio beside the video that goes with it
                    due = next(audio, math.inf)
                output.mux(packet)

        def write(pts: int, pixels: np.ndarray) -> None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even(pixels)), format="rgb24")
            frame.pts, frame.time_base = pts - round(start / base), base
            mux(stream.encode(frame))

        yield write
        mux(stream.encode())
        for _ in audio:
            pass


@contextmanager
def _encoding(path: str) -> Iterator[None]:
    """FFmpeg's errors become DamagedClip, but for those of the file system."""
    try:
        yield
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise DamagedClip(path, f"FFmpeg cannot encode its frames ({error.strerror})") from error


def _start(source: InputContainer) -> Fraction:
    """Seconds at which a file of a format without an origin of time begins; 0 for other formats."""
    floating = source.format.flags & TS_DISCONT
    return Fraction(source.start_time or 0, av.time_base) if floating else Fraction(0)


def _muxing_audio(source: InputContainer, output: OutputContainer, start: Fraction) -> Iterator[float | Fraction]:
    """Writes all audio of a file, shifted to begin at `start`; before each packet its seconds are yielded.

    Streams are added to the output before the first. What cannot be read ends it with a warning.
    """
    for stream in source.streams:
        if stream.type != "audio":
            stream.discard = Discard.all
    targets = {stream.index: _audio_stream(output, stream) for stream in source.streams.audio if stream.codec_context}
    try:
        for packet in source.demux(source.streams.audio) if targets else ():
            target, copied = targets[packet.stream.index]
            for made in _moved(packet, target, start) if copied else _encoded(packet, target, start):
                yield (made.dts or 0) * made.time_base
                output.mux(made)
    except av.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        warnings.warn(f"{source.name}: its audio is kept only in part ({error.strerror}).", stacklevel=2)


def _audio_stream(output: OutputContainer, source: AudioStream) -> tuple[AudioStream, bool]:
    """A stream of the output for the packets of another one, and True; or one of AAC, and False."""
    try:
        return output.add_stream_from_template(source), True
    except ValueError:  # MP4 does not take the codec
        rates = av.Codec("aac", "w").audio_rates or []
        layout = "mono" if source.channels == 1 else "stereo"  # a file may not name its own
        rate = source.rate if source.rate in rates else 48000
        return output.add_stream("aac", rate=rate, layout=layout), False


def _moved(packet: av.Packet, target: AudioStream, start: Fraction) -> Iterator[av.Packet]:
    if packet.dts is not None:  # the last one of each stream holds nothing
        shift = round(start / packet.time_base)
        packet.pts, packet.dts = (time if time is None else time - shift for time in (packet.pts, packet.dts))
        packet.stream = target
        yield packet


def _encoded(packet: av.Packet, target: AudioStream, start: Fraction) -> Iterator[av.Packet]:
    for frame in cast(list[av.AudioFrame], packet.decode()):
        if frame.pts is not None and frame.time_base:
            frame.pts -= round(start / frame.time_base)
        yield from target.encode(frame)
    if not packet.size:
        yield from target.encode()
