"""Whole videos: chunks that equal the whole, and files that keep their frames, times, orientation, sound and names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from ml_collections import ConfigDict
from PIL import Image

from jaxvid import core, translate
from jaxvid import run as run_lib
from jaxvid.core import Method, Translation
from jaxvid.data.video import probe, read_clip
from jaxvid.models.translator import make_generator
from jaxvid.run import Run
from jaxvid.translate import translate_video, translated

with pytest.MonkeyPatch.context() as path:
    path.syspath_prepend(str(ROOT / "tests" / "data"))
    from counting import numbers, picture, write_video

SAMPLE_RATE = 48000
GAINS = {"same": 1.0, "negative": -1.0}  # of the colors, by target


def filtered(radius: int) -> Callable:
    """A translation that weights 2 radius + 1 frames, no two alike, with zeros beyond the ends, and then the colors."""
    taps = 1 + np.arange(2 * radius + 1, dtype=np.float32)

    def apply(state: core.TrainState, video: jax.Array, target: jax.Array) -> jax.Array:
        frames = video.shape[1]
        padded = jnp.pad(video, [(0, 0), (radius, radius), (0, 0), (0, 0), (0, 0)])
        mixed = sum(tap * padded[:, i : i + frames] for i, tap in enumerate(taps / taps.sum()))
        return mixed * state.params["colors"][target][:, None, None, None]

    return apply


def make_run(
    radius: int = 0,
    targets: tuple[str, ...] = ("same", "negative"),
    origins: tuple[str, ...] = ("", "day"),
    frames: int = 8,
) -> Run:
    config = ConfigDict({"method": "own", "data": {"resolution": 48, "frames": frames}})
    colors = jnp.array([[GAINS[name]] * 3 for name in targets])
    state = core.new_state(jax.random.key(0), {"colors": colors}, {})
    nothing: Callable = lambda *_: None  # noqa: E731
    translation = Translation(filtered(radius), targets, origins, radius) if targets else None
    return Run(config, Method(nothing, nothing, nothing, translation=translation), state)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("radius", [0, 1, 5])
@pytest.mark.parametrize("frames", [1, 7, 16, 37])
def test_chunks_equal_the_whole(frames: int, radius: int) -> None:
    run, video = make_run(radius), noise(frames, 4, 5, 3)
    whole = run.method.translation.apply(run.state, core.normalize(jnp.asarray(video))[None], jnp.array([1]))[0]
    for chunk in (1, 2, 5, 16, 36, 37, 50):
        made = translate_video(run, video, "negative", chunk=chunk)
        assert made.dtype == np.float32 and made.shape == video.shape
        np.testing.assert_allclose(made, whole, atol=1e-5, err_msg=f"chunk {chunk}")


@pytest.mark.parametrize("frames", [7, 16])
def test_chunks_equal_the_whole_of_a_network_with_taps_and_attention(frames: int) -> None:
    options = {"name": "unet", "norm": "frame", "output": "residual", "widths": (4, 8), "blocks": 1, "kernel": 3}
    generator = make_generator({**options, "taps": True, "window": 1, "heads": 2})
    radius, video = generator.trunk.radius, noise(frames, 6, 8, 3)
    assert radius == 2
    params = generator.init(jax.random.key(0), core.normalize(jnp.asarray(video))[None])["params"]
    # Away from the first parameters, of which some are zero.
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params)

    def apply(state: core.TrainState, video: jax.Array, target: jax.Array) -> jax.Array:
        return generator.apply({"params": state.params["generator"]}, video)

    run = make_run()
    translation = Translation(apply, ("B",), ("A",), radius)
    run = run._replace(
        method=run.method._replace(translation=translation),
        state=run.state.replace(params={"generator": params}),
    )
    whole = apply(run.state, core.normalize(jnp.asarray(video))[None], jnp.array([0]))[0]
    for chunk in (3, 5):
        np.testing.assert_allclose(translate_video(run, video, "B", chunk=chunk), whole, atol=1e-5)


@pytest.mark.parametrize(("radius", "chunk"), [(0, 1), (0, 4), (2, 1), (2, 3), (2, 16)])
def test_windows_are_of_one_length_and_frames_are_read_when_they_are_needed(radius: int, chunk: int) -> None:
    length = chunk + 2 * radius
    for frames in range(1, 40):
        read, lengths = 0, set()

        def reading(count: int = frames) -> Iterator[np.ndarray]:
            nonlocal read
            for number in range(count):
                read += 1
                yield np.full((1, 1, 3), number, np.uint8)

        def same(window: np.ndarray, lengths: set[int] = lengths) -> np.ndarray:
            lengths.add(len(window))
            return window

        made = []
        for frame in translated(same, reading(), radius, chunk):
            made.append(int(frame[0, 0, 0]))
            assert read - len(made) <= length
        assert made == list(range(frames)) and lengths == {min(frames, length)}


def test_one_program_translates_videos_of_any_length_and_another_short_ones() -> None:
    run = make_run(radius=2)
    program = translate._program(run.method.translation.apply)
    for frames, compiled in ((37, 1), (20, 1), (100, 1), (7, 2), (21, 2)):
        translate_video(run, noise(frames, 4, 4, 3), "negative")
        assert program._cache_size() == compiled, frames
    translate_video(run, noise(37, 4, 4, 3), "same")
    assert program._cache_size() == 2


def test_large_frames_come_in_small_chunks_but_not_of_neighbors_alone() -> None:
    assert translate.frames_at_once(64, 64, 5) == translate.frames_at_once(256, 256, 0) == 16
    assert translate.frames_at_once(512, 512, 1) == 4
    assert [translate.frames_at_once(2160, 3840, radius) for radius in (0, 5)] == [1, 5]


def test_several_videos_and_floats_are_translated() -> None:
    run, videos = make_run(radius=1), noise(2, 9, 4, 6, 3)
    made = translate_video(run, videos, "negative")
    assert made.shape == videos.shape
    np.testing.assert_array_equal(made[1], translate_video(run, videos[1], "negative"))
    floats = (videos / 127.5 - 1).astype(np.float32)
    np.testing.assert_allclose(translate_video(run, floats, "negative"), made, atol=1e-6)
    for wrong in (videos[0, 0], videos[:, :0], videos[..., :1], videos.astype(int)):
        with pytest.raises(ValueError, match="video is .* expected"):
            translate_video(run, wrong, "negative")


@pytest.fixture
def command(tmp_path: Path, monkeypatch, capsys) -> Callable:
    """Runs the command with a run that is made here, into tmp_path / "out"; returns its code, and what it prints."""

    def call(source: Path, *words: str, run: Run | None = None, out: str = "out") -> tuple[int, str]:
        monkeypatch.setattr(run_lib, "load", lambda workdir: run or make_run(targets=("negative",), origins=("",)))
        places = ["--workdir", "run", "--input", str(source), "--output", str(tmp_path / out)]
        try:
            code = translate.main([*places, *words])
        except SystemExit as end:
            code = end.code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out + printed.err

    return call


def negative(number: int) -> np.ndarray:
    return 255 - picture(number)


def read_negative(path: Path) -> list[int]:
    info = probe(str(path))
    return numbers(255 - read_clip(info, range(len(info.pts)), min(info.width, info.height)))


def sound(seconds: float, layout: str) -> Iterator[av.AudioFrame]:
    count = int(seconds * SAMPLE_RATE) // 1024
    wave = (8000 * np.sin(np.arange(1024 * count) * 0.05)).astype(np.int16)
    for i in range(count):
        samples = wave[None, 1024 * i : 1024 * (i + 1)].repeat(2 if layout == "stereo" else 1, 1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = SAMPLE_RATE, 1024 * i, Fraction(1, SAMPLE_RATE)
        yield frame


def write_with_sound(
    path: Path, codec: str = "aac", rotation: int = 0, shift: Fraction = Fraction(0), slower: int = 1
) -> list[int]:
    """A clip as of a phone: of 45 frames at a variable rate, turned by its display matrix, with sound.

    Returns its timestamps in milliseconds; everything is `shift` seconds later.
    """
    times = np.cumsum(np.random.default_rng(1).integers(10, 90, 45)).tolist()
    times = [slower * (time - times[0]) for time in times]
    options = {"output_ts_offset": str(float(shift))} if shift else {}
    with av.open(str(path), "w", options=options) as container:
        video = container.add_stream("libx264", rate=25, options={"g": "12", "bf": "3"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            video.set_display_rotation(rotation)
        audio = container.add_stream(codec, rate=SAMPLE_RATE, layout="stereo", bit_rate=128_000)
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(video.encode(frame))
        for frame in sound(times[-1] / 1000, "stereo"):
            container.mux(audio.encode(frame))
        container.mux([*video.encode(), *audio.encode()])
    return times


def audio_of(path: Path) -> tuple[str, list[tuple[Fraction, bytes]]]:
    """The codec, and time and content of each packet."""
    with av.open(str(path)) as container:
        (stream,) = container.streams.audio
        packets = [(each.pts * each.time_base, bytes(each)) for each in container.demux(stream) if each.size]
        return stream.codec_context.name, packets


def samples_of(path: Path) -> np.ndarray:
    """The first of two channels."""
    with av.open(str(path)) as container:
        frames = [(frame.to_ndarray()[0], frame.format.is_planar) for frame in container.decode(audio=0)]
    return np.concatenate([samples if planar else samples[::2] for samples, planar in frames])


def times_of(path: Path) -> list[Fraction]:
    info = probe(str(path))
    return [pts * info.time_base for pts in info.pts.tolist()]


def test_a_clip_of_a_phone_keeps_its_frames_times_orientation_and_sound(tmp_path: Path, command) -> None:
    clip = tmp_path / "IMG_1.MOV"
    times = write_with_sound(clip, rotation=90)
    assert probe(str(clip)).rotation == 90
    code, printed = command(clip, "--to", "negative")
    made = tmp_path / "out" / "IMG_1.mp4"
    assert code == 0 and f"1 file, {len(times)} frames" in printed and "odd" not in printed
    info = probe(str(made))
    assert (info.width, info.height, info.rotation, info.mirrored) == (48, 64, 0, False)
    assert times_of(made) == times_of(clip) and len(set(np.diff(info.pts))) > 10
    assert [round(1000 * time) for time in times_of(made)] == times
    upright = read_clip(info, range(len(times)), 48)
    assert numbers(np.rot90(255 - upright, -1, (1, 2))) == list(range(len(times)))
    assert audio_of(made) == audio_of(clip) and len(audio_of(made)[1]) > 40
    with av.open(str(made)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"
        assert not any("rot" in name.lower() for name in container.streams.video[0].metadata)


def test_sound_is_interleaved_with_the_video(tmp_path: Path, command) -> None:
    write_with_sound(tmp_path / "a.mp4", slower=15)  # half a minute: FFmpeg sorts packets that are 10 seconds apart
    assert command(tmp_path / "a.mp4")[0] == 0
    with av.open(str(tmp_path / "out" / "a.mp4")) as container:
        packets = [packet for packet in container.demux() if packet.size]
        positions = sorted((packet.pos, packet.stream.type, float(packet.dts * packet.time_base)) for packet in packets)
    times = {"video": positions[0][2], "audio": 0.0}
    for _, kind, time in positions:
        times[kind] = time
        assert kind == "video" or times["audio"] - times["video"] < 2, "sound far ahead of its video"
        assert kind == "audio" or times["video"] - times["audio"] < 2, "a video far ahead of its sound"


@pytest.mark.parametrize(("name", "codec"), [("a.wmv", "wmav2"), ("a.avi", "pcm_mulaw"), ("a.mkv", "pcm_u8")])
def test_sound_that_mp4_does_not_take_is_encoded_anew(tmp_path: Path, command, name: str, codec: str) -> None:
    write_with_sound(tmp_path / name, codec)
    code, printed = command(tmp_path / name)
    assert code == 0 and "warning" not in printed, printed
    (found, packets), (_, before) = audio_of(tmp_path / "out" / "a.mp4"), audio_of(tmp_path / name)
    assert found == "aac" and abs(packets[-1][0] - before[-1][0]) < 0.1
    wave, original = samples_of(tmp_path / "out" / "a.mp4"), samples_of(tmp_path / name)
    assert len(wave) >= len(original)
    assert 0.15 < np.abs(wave[SAMPLE_RATE // 2 : SAMPLE_RATE]).max() < 0.35  # 8000 of 32768


def test_the_clock_of_a_transport_stream_begins_with_the_file(tmp_path: Path, command) -> None:
    write_with_sound(tmp_path / "a.ts", "mp2", shift=Fraction(5000))
    assert times_of(tmp_path / "a.ts")[0] >= 5000
    assert command(tmp_path / "a.ts")[0] == 0
    before, after = times_of(tmp_path / "a.ts"), times_of(tmp_path / "out" / "a.mp4")
    assert after[0] < 0.2 and {x - y for x, y in zip(before, after, strict=True)} == {before[0] - after[0]}
    (_, heard), (_, original) = audio_of(tmp_path / "out" / "a.mp4"), audio_of(tmp_path / "a.ts")
    assert [data for _, data in heard] == [data for _, data in original]
    assert abs((heard[0][0] - after[0]) - (original[0][0] - before[0])) < 1e-4


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(15)])
def test_300_frames_stay_300_and_rates_are_not_rounded(tmp_path: Path, command, rate: Fraction) -> None:
    write_video(tmp_path / "a.mp4", 300, rate=rate)
    assert command(tmp_path / "a.mp4")[0] == 0
    made = tmp_path / "out" / "a.mp4"
    assert times_of(made) == [number / rate for number in range(300)]
    assert read_negative(made) == list(range(300))
    with av.open(str(made)) as container:
        assert container.streams.video[0].average_rate == rate


def test_sizes(tmp_path: Path, command) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 601, 338, "yuv420p"
        for number in range(3):
            image = Image.fromarray(picture(number)).resize((601, 338))
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode())
    expected = {
        "trained": (86, 48, "an odd height or width"),
        "original": (602, 338, "338 pixels, 7.042 times the 48"),
        "48": (86, 48, "an odd height or width"),
        "96": (172, 96, "96 pixels, 2 times the 48"),
    }
    for size, (width, height, sentence) in expected.items():
        code, printed = command(tmp_path / "a.mkv", "--size", size)
        info = probe(str(tmp_path / "out" / "a.mp4"))
        assert code == 0 and (info.width, info.height) == (width, height) and sentence in printed, printed
        assert ("times the 48 of the training clips" in printed) == (height != 48)
    made = read_clip(info, [2], 96)[0].astype(int)
    assert np.abs(made[:, -1] - made[:, -2]).mean() < 3  # the column that yuv420p asks for is a repeated one
    Image.fromarray(noise(33, 51, 3)).save(tmp_path / "b.png")
    code, printed = command(tmp_path / "b.png", "--size", "original")
    assert code == 0 and "odd" not in printed
    with Image.open(tmp_path / "out" / "b.png") as image:
        np.testing.assert_array_equal(np.asarray(image), 255 - noise(33, 51, 3))


def test_images_come_back_under_their_names(tmp_path: Path, command) -> None:
    source = tmp_path / "in"
    names = {"cat.png": 1, "dog.JPG": 2, "more/bird.jpeg": 3, "more/fish.webp": 4, "more/deep/worm.bmp": 5}
    for name, number in names.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(source / name)
    code, printed = command(source)
    assert code == 0 and "5 files, 5 frames" in printed
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files == set(names)
    formats = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "bmp": "BMP"}
    for name, number in names.items():
        with Image.open(tmp_path / "out" / name) as image:
            assert image.format == formats[name.rpartition(".")[2].lower()]
            assert numbers(255 - np.asarray(image)[None]) == [number]


def test_numbered_images_are_one_video_with_their_names_unless_the_model_is_of_images(tmp_path: Path, command) -> None:
    source = tmp_path / "in"
    source.mkdir()
    video = noise(12, 48, 64, 3)
    for number, frame in enumerate(video):
        Image.fromarray(frame).save(source / f"frame_{number}.png")
    for frames, mixed in ((8, True), (1, False)):
        run = make_run(2, ("negative",), ("",), frames)
        code, printed = command(source, run=run)
        assert code == 0 and "12 files, 12 frames" in printed
        made = np.stack([np.asarray(Image.open(tmp_path / "out" / f"frame_{i}.png")) for i in range(12)])
        clips = [video] if mixed else video[:, None]
        truth = np.concatenate([translate_video(run, clip) for clip in clips])
        np.testing.assert_allclose(made, (truth + 1) * 127.5, atol=0.51)


def test_of_numbered_images_all_are_written_or_none(tmp_path: Path, command) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number in range(60):
        Image.fromarray(picture(number)).save(source / f"{number}.png")
    (source / "50.png").write_bytes(b"no image")
    write_video(source / "b.mp4", 5)
    code, printed = command(source)
    assert code == 0 and "1 file, 5 frames" in printed
    assert "1 file is left out: . (the image does not decode" in printed
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.mp4"]


def test_a_folder_of_videos_keeps_its_sub_folders_and_names_what_it_leaves_out(tmp_path: Path, command) -> None:
    source = tmp_path / "in"
    (source / "sub").mkdir(parents=True)
    write_video(source / "a.mov", 30)
    write_video(source / "a.mkv", 20)
    write_video(source / "sub" / "b.gif", 10, codec="gif", pix_fmt="rgb8")
    (source / "sub" / "c.mp4").write_bytes(b"no video")
    (source / "d.mp4").write_bytes(b"")
    whole = Path(write_video(source / "e.mp4", 120, noise=60, g="12", layout={"movflags": "faststart"})).read_bytes()
    (source / "e.mp4").write_bytes(whole[: len(whole) // 2])
    code, printed = command(source)
    out = tmp_path / "out"
    assert code == 0 and "3 files, 60 frames" in printed and "3 files are left out" in printed
    for name, reason in {"d.mp4": "the file is empty", "sub/c.mp4": "FFmpeg cannot", "e.mp4": ""}.items():
        assert f"{name} ({reason}" in printed
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {"a.mov.mp4", "a.mkv.mp4", "sub/b.mp4"}
    assert len(read_negative(out / "a.mov.mp4")) == 30 and len(read_negative(out / "sub" / "b.mp4")) == 10


def test_animated_images_become_mp4_with_their_times(tmp_path: Path, command) -> None:
    images = [Image.fromarray(picture(number)) for number in range(1, 9)]
    durations = [100, 40, 300, 40, 50, 60, 70, 80]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], duration=durations, lossless=True)
    images[0].save(tmp_path / "b.tiff", save_all=True, append_images=images[1:])
    for name, times in {"a": np.cumsum([0, *durations[:-1]]) / 1000, "b": np.arange(8) / 8}.items():
        assert command(next(tmp_path.glob(f"{name}.*")))[0] == 0
        made = tmp_path / "out" / f"{name}.mp4"
        np.testing.assert_allclose([float(time) for time in times_of(made)], times, atol=1e-9)
        assert read_negative(made) == list(range(1, 9))


def test_what_is_there_is_replaced_as_a_whole(tmp_path: Path, command, monkeypatch) -> None:
    write_video(tmp_path / "a.mp4", 40)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.mp4").write_bytes(b"before")

    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(translate, "to_uint8", interrupted)
        assert command(tmp_path / "a.mp4")[0] == 130
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == [b"before"]
    assert command(tmp_path / "a.mp4")[0] == 0
    assert read_negative(tmp_path / "out" / "a.mp4") == list(range(40))


def test_what_cannot_work_is_one_sentence(tmp_path: Path, command) -> None:
    clip, folder = tmp_path / "a.mp4", tmp_path / "empty"
    write_video(clip, 3)
    folder.mkdir()
    sound_alone = tmp_path / "sound.mp4"
    with av.open(str(sound_alone), "w") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for frame in sound(0.5, "mono"):
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    two = make_run()
    for source, words, run, sentence in (
        (clip, ("--to", "negativ"), two, 'to is "negativ", expected one of same, negative; did you mean negative?'),
        (clip, (), two, "This model translates to same, negative: name one of them (--to)."),
        (clip, ("--to", "negative", "--from", "same"), two, 'from is "same", and this model translates to negative'),
        (clip, ("--to", "same", "--from", "dai"), two, 'from is "dai", expected one of same, negative, day; did you'),
        (clip, (), make_run(targets=()), "This model, own, translates no videos: expected the run of a translator."),
        (sound_alone, (), None, "sound.mp4: it contains no video stream"),
        (folder, (), None, f"Nothing in {folder} can be translated: it holds no video and no image."),
    ):
        code, printed = command(source, *words, run=run)
        assert code == 2 and sentence in printed and printed.count("\n") == 1, printed
    assert command(clip, "--to", "negative", "--from", "day", run=two)[0] == 0
    assert command(clip, "--to", "same", "--from", "negative", run=two)[0] == 0
    for words, sentence in {
        ("--size", "big"): "big is none of trained, original and a number of pixels",
        ("--size", "0"): "0 is none of",
        ("--chunk", "0"): "--chunk is 0, expected at least 1",
        ("--input", str(tmp_path / "nothing")): "there is no",
        ("--output", str(clip)): "cannot be written",
    }.items():
        code, printed = command(clip, *words)
        assert code == 2 and sentence in printed and printed.count("\n") == 1, printed
    (folder / "d.mp4").write_bytes(b"")
    code, printed = command(folder)
    assert code == 2 and "can be translated: 1 file is left out: d.mp4 (the file is empty" in printed


def test_nothing_that_is_read_is_overwritten(tmp_path: Path, command) -> None:
    before = Path(write_video(tmp_path / "in.mp4", 3)).read_bytes()
    code, printed = command(tmp_path / "in.mp4", out=".")
    assert code == 2 and "in.mp4 would be overwritten by its translation: name another folder" in printed
    assert (tmp_path / "in.mp4").read_bytes() == before
    source = tmp_path / "clips"
    (source / "clips").mkdir(parents=True)
    write_video(source / "a.mov", 3)
    write_video(source / "clips" / "a.mp4", 3)
    for out in ("clips", "clips/out"):
        code, printed = command(source, out=out)
        assert code == 2 and "which is read: name a folder outside of it" in printed
    write_video(source / "a.mp4", 3)  # clips/clips/a.mp4 would become clips/a.mp4
    code, printed = command(source, out=".")
    assert code == 2 and "a.mp4 would be overwritten" in printed


def test_no_two_results_have_one_name(tmp_path: Path, command) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a.mov", "a.mkv", "a.mov.mp4"):
        write_video(source / name, 3)
    code, printed = command(source)
    assert code == 2 and "a.mov.mp4 would hold the translations of both a.mov and a.mov.mp4: rename" in printed
    assert not (tmp_path / "out").exists()
