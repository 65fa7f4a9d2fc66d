"""One video: its properties, and any of its frames, exactly.

A video is a file that FFmpeg decodes, an image (of one frame, or an animation, or the pages of a TIFF), or a folder of
numbered images. Of several video streams in one file the first is taken (except for cover images); alpha is dropped.
"""

import math
import os
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import av
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.reformatter import Interpolation
from av.video.stream import VideoStream

from jaxvid.data import pictures
from jaxvid.data.pipeline import DamagedClip

# PyAV 18 refuses a file whose title is not UTF-8 without this option; PyAV 19 reads it, and removed the option.
OPEN_OPTIONS: dict[str, Any] = {"metadata_errors": "ignore"} if av.__version__.startswith("18.") else {}
EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT  # otherwise swscale is up to 2 levels too dark
SKIPPING = ("h264", "hevc", "mpeg2video", "mpeg4")  # decoders that can be told for each packet what to skip


class Packet(NamedTuple):
    """What a container says of a frame before it is decoded."""

    pts: int | None  # timestamp
    is_start: bool  # whether decoding may start there
    is_shown: bool  # an edit list may hide frames that others need


@dataclass(frozen=True, eq=False)
class VideoInfo:
    """Properties of a video, known without reading its frames."""

    path: str  # the file, or the folder of images
    width: int  # pixels, after rotation
    height: int
    fps: float  # frames per second, averaged over the file's own timestamps; 0 for images without
    pts: np.ndarray  # int64 [frames], timestamps in presentation order, in units of `time_base` seconds
    time_base: Fraction
    keyframes: np.ndarray  # int64 [k], timestamps at which decoding may start; empty: only at the beginning
    timed: bool  # the timestamps are the file's own and identify its frames; otherwise their order does
    codec: str  # FFmpeg's name of the decoder, or Pillow's of the image format
    mirrored: bool = False  # decoded frames are mirrored left to right, and then rotated
    rotation: int = 0  # counterclockwise degrees (0, 90, 180, 270) by which decoded frames are rotated
    notes: tuple[str, ...] = ()  # remarks for a report
    images: tuple[str, ...] = ()  # paths of the images, in order, if the video is not one file for FFmpeg
    white: int = 0  # the value of white, if the images are of floats or 32-bit integers
    halves: bool = False  # the frames are two pictures side by side, each of which is resized by its own short side

    @property
    def times(self) -> np.ndarray:
        """Presentation times float64 [frames] in seconds."""
        return self.pts * float(self.time_base)


def probe(path: str, decode: bool = False) -> VideoInfo:
    """Properties of the video file at `path`, from its packets and one decoded frame, not from its header.

    Only a file without usable timestamps, such as raw .264, has to be decoded to count its frames. With `decode` every
    frame is decoded, and only those before the first that does not decode are counted.
    Raises DamagedClip if no frame of the file can be decoded.
    """
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise DamagedClip(path, "the file is empty (0 bytes)")
    with _opened(path) as (container, stream):
        packets, frame = _list_packets(container, stream)
        context = stream.codec_context
        # AVI stores no presentation times: FFmpeg guesses them, wrongly where frames are reordered.
        guessed = container.format.name == "avi"
        stamps_of_frames = [packet.pts for packet in packets if packet.is_shown]
        unique = None not in stamps_of_frames and len(set(stamps_of_frames)) == len(stamps_of_frames)
        timed = unique and not (guessed and context.has_b_frames)
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        declared, codec, time_base = stream.frames, context.name, stream.time_base or Fraction(1, 1000)
        aspect = stream.sample_aspect_ratio or 1
    if frame is None:
        raise DamagedClip(path, "no frame decodes")
    shown = len(stamps_of_frames)
    notes = [f"its header declares {declared} frames"] if declared not in (0, shown, len(packets)) else []
    if shown < len(packets):
        notes.append(f"its edit list hides {len(packets) - shown} of {len(packets)} frames")
    if aspect != 1:
        notes.append(f"its pixels are {aspect.numerator}:{aspect.denominator} and are taken as square")
    if frame.interlaced_frame:
        notes.append("it is interlaced, and both fields of a frame are kept")
    starts = (packet.pts for packet in packets if packet.is_start and packet.pts is not None and timed)
    keyframes = np.array(sorted(starts), np.int64)
    if decode or not (timed or guessed):
        stamps_of_frames, problem = _decode_all(path, next(iter(keyframes.tolist()), None))
        if problem:
            notes.append(f"{len(stamps_of_frames)} of {shown} frames decode, then {problem}")
    if timed:
        pts = np.array(sorted(pts for pts in stamps_of_frames if pts is not None), np.int64)
        pts = pts[pts >= keyframes[0]] if len(keyframes) else pts  # frames before it cannot be decoded
        unit = Fraction(time_base.numerator, time_base.denominator)
        rate = float((len(pts) - 1) / (int(pts[-1] - pts[0]) * unit)) if len(pts) > 1 else rate
    else:
        pts, unit = np.arange(len(stamps_of_frames)), 1 / Fraction(rate).limit_denominator(1001)
    if not len(pts):
        raise DamagedClip(path, "; ".join(["no frame decodes", *notes]))
    mirrored, rotation = _orientation(frame)
    width, height = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
    return VideoInfo(path, width, height, rate, pts, unit, keyframes, timed, codec, mirrored, rotation, tuple(notes))


def probe_images(path: str, images: Sequence[str], decode: bool = False) -> VideoInfo:
    """Properties of a video whose frames are `images`, paths in order, or the pictures within a single one.

    `path` is their folder, or the image itself if there is only one. Their size is that of the first. With `decode` all
    are decoded, and only those before the first that does not decode are counted. Raises DamagedClip if the first is no
    image, or if they are of floats or 32-bit integers without a plain range (see `pictures.plain_white`).
    """
    first = pictures.outline(images[0])
    timed, pts = (first.timed, first.pts) if len(images) == 1 else (False, np.arange(len(images)))
    info = VideoInfo(
        path,
        first.width,
        first.height,
        fps=1000 * (len(pts) - 1) / float(pts[-1]) if timed else 0.0,
        pts=pts,
        time_base=Fraction(1, 1000 if timed else 1),
        keyframes=np.empty(0, np.int64),
        timed=timed,
        codec=first.codec,
        notes=(*first.notes, *filter(None, [pictures.gaps(images)])),
        images=tuple(images),
        white=pictures.plain_white(images, range(len(pts))) if first.ranged else 0,
    )
    count = 0
    try:
        for _ in _read_images(info, range(len(pts) if decode else 0)):
            count += 1
    except DamagedClip as damage:
        if not count:
            raise
        note = f"{count} of {len(pts)} images decode, then {os.path.basename(damage.path)}: {damage.reason}"
        return replace(info, pts=pts[:count], notes=(*info.notes, note))
    return info


def resized_size(info: VideoInfo, short_side: int) -> tuple[int, int]:
    """Width and height of the frames that `read_clip` returns."""
    pictures = 2 if info.halves else 1
    width = info.width // pictures
    scale = short_side / min(width, info.height)
    return pictures * max(1, round(width * scale)), max(1, round(info.height * scale))


def read_clip(info: VideoInfo, frame_indices: Sequence[int] | np.ndarray, short_side: int) -> np.ndarray:
    """Exactly these frames, upright and resized.

    Decoding starts at the last keyframe before the first of them and ends with the last. Frames are matched by
    timestamps, so that none is replaced by a neighbor or repeated.

    Args:
      info: from `probe` or `probe_images`.
      frame_indices: [T], ascending, counted in presentation order.
      short_side: pixels of the shorter side of the result; the longer follows from the stored width and height. Of two
        pictures side by side it is that of each.

    Returns uint8 [T,h,w,3], RGB with full range (BT.601 unless the file specifies another).
    Raises ValueError if the video has no such frames, DamagedClip if one of them does not decode.
    """
    indices = np.asarray(frame_indices, np.int64)
    if not len(indices) or indices[0] < 0 or indices[-1] >= len(info.pts) or (np.diff(indices) <= 0).any():
        found = f"{len(info.pts)} frames; a clip of it is ascending indices, not {indices.tolist()}"
        raise ValueError(f"{info.path} has {found}")
    width, height = resized_size(info, short_side)
    clip = np.empty((len(indices), height, width, 3), np.uint8)
    if info.images:
        for slot, picture in enumerate(_read_images(info, indices.tolist())):
            clip[slot] = _fitted(av.VideoFrame.from_ndarray(picture), info, width, height)
        return clip
    wanted = {int(info.pts[index]): slot for slot, index in enumerate(indices)}
    starts = info.keyframes[info.keyframes <= info.pts[indices[0]]]
    # The second attempt, from the beginning, is for containers that seek inexactly and for wrong keyframes.
    for start in dict.fromkeys([*starts[-1:], *starts[:1]]) or [None]:
        for pts, frame in _frames(info, start, frozenset(wanted)):
            if pts in wanted:
                clip[wanted.pop(pts)] = _fitted(frame, info, width, height)
            if not wanted:
                return clip
            if pts > info.pts[indices[-1]]:
                break
    raise DamagedClip(info.path, f"{len(wanted)} of the frames {indices[0]} to {indices[-1]} cannot be found in it")


def read_frames(info: VideoInfo, short_side: int) -> Iterator[tuple[int, np.ndarray]]:
    """Every frame with its timestamp, in order, as `read_clip` returns it; no more than one is in memory.

    Yields (pts as in `info.pts`, uint8 [h,w,3]). Raises DamagedClip at the first frame that does not decode, and at the
    end if frames that have a timestamp of their own were missing.
    """
    width, height = resized_size(info, short_side)
    if info.images:
        for pts, picture in zip(info.pts.tolist(), _read_images(info, range(len(info.pts))), strict=True):
            yield pts, _fitted(av.VideoFrame.from_ndarray(picture), info, width, height)
        return
    wanted, count = frozenset(info.pts.tolist()), 0
    for pts, frame in _frames(info, next(iter(info.keyframes.tolist()), None), wanted):
        if pts in wanted:
            yield pts, _fitted(frame, info, width, height)
            count += 1
    if count < len(wanted) and (info.timed or not count):
        raise DamagedClip(info.path, f"{len(wanted) - count} of its {len(wanted)} frames cannot be found in it")


def open_file(path: str) -> InputContainer:
    """The file, opened so that it cannot lead FFmpeg to other files or to the network; FFmpeg's errors stay."""
    # The prefix prevents that names like "concat:a|b" are commands; the whitelist, that playlists use the network.
    return av.open(f"file:{path}", options={"protocol_whitelist": "file"}, **OPEN_OPTIONS)


@contextmanager
def _opened(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its video stream; FFmpeg's errors within become DamagedClip."""
    try:
        with open_file(path) as container:
            videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
            if not videos:
                raise DamagedClip(path, "it contains no video stream")
            for other in container.streams:
                if other is not videos[0]:
                    other.discard = Discard.all
            context = videos[0].codec_context
            context.options = {"err_detect": "explode"}  # an error, instead of concealing damage
            context.thread_count = 1  # clips are read in parallel; more threads would decode ahead in vain
            yield container, videos[0]
    except DamagedClip:
        raise
    except (av.FFmpegError, OSError, ValueError, ArithmeticError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DamagedClip(path, f"FFmpeg cannot read it ({reason})") from error


def _list_packets(container: InputContainer, stream: VideoStream) -> tuple[list[Packet], av.VideoFrame | None]:
    """Each packet of a frame, and the first frame that decodes."""
    packets: list[Packet] = []
    frame, keyframe_seen = None, False
    for packet in container.demux(stream):
        keyframe_seen = keyframe_seen or packet.is_keyframe
        if frame is None:
            try:
                frame = next(iter(packet.decode()), None)
            except av.FFmpegError:
                if keyframe_seen:  # frames before it cannot decode if a recording was cut
                    raise
        if not packet.size or packet.is_corrupt:
            continue
        if stream.codec_context.name != "vp8" or memoryview(packet)[0] & 16:  # the bit of visible frames
            is_start = packet.is_keyframe and _is_entry_point(packet, stream)
            packets.append(Packet(packet.pts, is_start, not packet.is_discard))
    return packets, frame


def _orientation(frame: av.VideoFrame) -> tuple[bool, int]:
    """Whether a decoded frame is to be mirrored, and by how many degrees it is rotated after that.

    The display matrix takes (column, row), counted to the right and down, to (a column + c row, b column + d row); a
    negative determinant mirrors (ISO/IEC 14496-12, 6.2.2 and 8.3.2).
    """
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, 0
    (a, b, _), (c, d, _), _ = np.frombuffer(matrix, np.int32).reshape(3, 3).tolist()
    mirrored = a * d < b * c
    sign = -1 if mirrored else 1  # mirroring first leaves a rotation
    return mirrored, round(-math.degrees(math.atan2(sign * b, sign * a)) / 90) % 4 * 90


def _is_entry_point(packet: av.Packet, stream: VideoStream) -> bool:
    """Whether decoding may start at a keyframe: in H.264 only at an IDR picture, NAL unit type 5 (H.264 table 7-1)."""
    if stream.codec_context.name != "h264":
        return True
    data, extradata = bytes(packet), stream.codec_context.extradata or b""
    # MP4 and Matroska store lengths, others start codes.
    length_bytes = (extradata[4] & 3) + 1 if extradata[:1] == b"\1" else 0
    position = 0
    while True:
        if not length_bytes:
            position = data.find(b"\0\0\1", position) + 3
        start = position + length_bytes
        if start >= len(data) or (not length_bytes and position == 2):
            return False
        if data[start] & 31 in (1, 5):  # the first slice
            return data[start] & 31 == 5
        position = start + int.from_bytes(data[position:start], "big")


def _decode_all(path: str, start: int | None) -> tuple[list[int | None], str]:
    """Timestamps of all frames up to the first that does not decode, and the reason ("" if all decode)."""
    stamps: list[int | None] = []
    try:
        for frame in _decode(path, start):
            stamps.append(frame.pts)
    except DamagedClip as damage:
        return stamps, damage.reason
    return stamps, ""


def _frames(info: VideoInfo, start: int | None, wanted: Container[int]) -> Iterator[tuple[int, av.VideoFrame]]:
    """(timestamp as in `info.pts`, frame) from the keyframe at `start` on, or the beginning; none if it cannot seek.

    Frames that are not `wanted` may be missing.
    """
    seek = start is not None and start > info.keyframes[0]
    for number, frame in enumerate(_decode(info.path, start, seek, wanted if info.timed else None)):
        if not info.timed:
            yield number, frame
        elif frame.pts is not None:
            yield frame.pts, frame


def _decode(
    path: str, start: int | None, seek: bool = False, wanted: Container[int | None] | None = None
) -> Iterator[av.VideoFrame]:
    """Frames from the keyframe `start` on; DamagedClip at the first damaged one.

    With `wanted`, their timestamps, other frames are decoded only where further ones may need them.
    """
    arrived = start is None
    with _opened(path) as (container, stream):
        if seek:
            # The first packet names the encoder, whose faults FFmpeg makes up for: x264 before build 151, Xvid, DivX.
            with suppress(av.FFmpegError):
                next(container.demux(stream)).decode()
            container.seek(int(start or 0), stream=stream)
        for packet in container.demux(stream):
            arrived = arrived or (packet.is_keyframe and packet.pts == start)
            if arrived and packet.is_corrupt:
                raise DamagedClip(path, "the data of a frame is incomplete")
            if wanted is not None and stream.codec_context.name in SKIPPING:
                stream.codec_context.skip_frame = "DEFAULT" if packet.pts in wanted else "NONREF"
            for frame in packet.decode() if arrived else ():
                if frame.is_corrupt:
                    raise DamagedClip(path, "a frame is damaged")
                yield frame


def _fitted(frame: av.VideoFrame, info: VideoInfo, width: int, height: int) -> np.ndarray:
    """A decoded frame upright, RGB uint8 [height,width,3]."""
    if info.halves:  # cut first: resized as one they would mix along the seam
        whole = _fitted(frame, replace(info, halves=False), info.width, info.height)
        pictures = map(np.ascontiguousarray, np.split(whole, 2, axis=1))
        halves = [_resized(av.VideoFrame.from_ndarray(picture), width // 2, height) for picture in pictures]
        return np.concatenate(halves, axis=1)
    turns = info.rotation // 90
    picture = _resized(frame, *((height, width) if turns % 2 else (width, height)))
    return np.rot90(picture[:, ::-1] if info.mirrored else picture, turns)


def _resized(frame: av.VideoFrame, width: int, height: int) -> np.ndarray:
    """RGB uint8 [height,width,3]: area averages for downsampling, bicubic for upsampling.

    In one thread: clips are read in parallel, and swscale's own threads may leave rows of small frames unwritten.
    """
    kernel = Interpolation.AREA if width <= frame.width else Interpolation.BICUBIC
    return frame.reformat(width, height, "rgb24", interpolation=kernel | EXACT, threads=1).to_ndarray()


def _read_images(info: VideoInfo, indices: Sequence[int]) -> Iterator[np.ndarray]:
    """Upright images, RGB uint8 [h,w,3], of the size of the first."""
    for index, picture in zip(indices, pictures.read(info.images, indices, info.white), strict=True):
        if picture.shape[:2] != (info.height, info.width):
            size = f"{picture.shape[1]}x{picture.shape[0]}"
            path = info.images[index % len(info.images)]
            raise DamagedClip(path, f"it is {size} pixels, the first image of its folder {info.width}x{info.height}")
        yield picture
