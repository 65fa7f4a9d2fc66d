"""The sampling command and its functions."""

from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict
from PIL import Image

from jaxvid import checkpoint, conditions, data, images, progress, sample
from jaxvid import config as config_lib
from jaxvid import run as run_lib
from jaxvid.core import make_method
from jaxvid.data.augment import center_crop
from jaxvid.data.folder import Folder
from jaxvid.data.paths import read_videos
from jaxvid.data.video import probe
from jaxvid.evaluate.clips import open_collection
from jaxvid.methods import vqvae
from jaxvid.pixels import to_uint8

pytestmark = pytest.mark.xdist_group("readme")  # shares its run with the tests of the README
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def run(gan_run: Path) -> run_lib.Run:
    return run_lib.load(gan_run)


def untrained(config: ConfigDict) -> run_lib.Run:
    """A run with arbitrary parameters, of which nothing had to be compiled."""
    config = conditions.complete(config, data.make_source(config.data, "train"))
    method = make_method(config)
    clip = conditions.wrap(config, data.make_source(config.data, "train"))[0]
    described = {name: [[8, *x.shape], str(x.dtype)] for name, x in clip.items() if x.dtype.kind in "uif"}
    abstract = checkpoint.abstract_state(method, described)
    arrays = abstract.replace(key=np.zeros(0))
    state = jax.tree.map(lambda x: RNG.normal(0, 0.1, x.shape).astype(x.dtype), arrays)
    positive = jax.tree.map(np.abs, state.collections)  # there are variances among them
    return run_lib.Run(config, method, state.replace(key=jax.random.key(0), collections=positive))


def stand_in(monkeypatch, run: run_lib.Run) -> None:
    """The commands find this run in any folder."""
    monkeypatch.setattr(run_lib, "load", lambda workdir: run)
    monkeypatch.setattr(run_lib, "saved_config", lambda workdir: run.config)


def recurrent(*on: str) -> run_lib.Run:
    config = recipe("gan_rnn:tiny")
    config.condition, config.loss.classes = config_lib.condition(on), 0.0
    config.model.conditioning = "projection"
    return untrained(config)


def test_a_video_depends_on_seed_number_and_condition_alone(run: run_lib.Run) -> None:
    labels = ["square_left", "star_up", "circle_spin", "digit_grow"]
    videos = sample.draw(run, 7, seed=3, label=labels, batch_size=8)
    assert videos.shape == (7, 8, 16, 16, 3) and videos.dtype == np.float32 and np.abs(videos).max() <= 1
    np.testing.assert_array_equal(sample.draw(run, 7, seed=3, label=labels, batch_size=8), videos)
    np.testing.assert_array_equal(sample.draw(run, 4, seed=3, label=labels, batch_size=8), videos[:4])
    np.testing.assert_allclose(sample.draw(run, 7, seed=3, label=labels, batch_size=3), videos, atol=1e-5)
    # The last, as the method itself makes it.
    key = jax.random.fold_in(jax.random.key(3), 6)
    label = np.array([run.config.condition.classes.index("circle_spin")])
    alone = jax.jit(run.method.sample)(run.state, {"label": label}, key[None])
    np.testing.assert_allclose(alone[0], videos[6], atol=1e-5)
    others = [sample.draw(run, 7, 4, label=labels, batch_size=8), sample.draw(run, 7, 3, label="star_up", batch_size=8)]
    differs = [np.abs(videos - other).max((1, 2, 3, 4)) > 1e-3 for other in others]
    assert differs[0].all() and differs[1].tolist() == [name != "star_up" for name in labels * 2][:7]
    classes = run.config.condition.classes  # in turn, where none is given
    named = sample.draw(run, 2, label=classes[:2], batch_size=8)
    np.testing.assert_array_equal(sample.draw(run, 2, batch_size=8), named)


def test_batches_are_not_compiled_again_and_hold_other_videos(run: run_lib.Run) -> None:
    run_lib.sampler.cache_clear()
    sample.draw(run, 5, batch_size=8)
    videos = sample.draw(run, 17, seed=1, label="star_up", batch_size=8)
    assert run_lib.sampler(run.method.sample)._cache_size() == 1
    distance = np.abs(videos[:, None] - videos).max((2, 3, 4, 5))
    assert (distance + np.eye(17)).min() > 1e-3


def test_the_command_writes_pictures_and_an_array(gan_run: Path, run: run_lib.Run, tmp_path: Path, capsys) -> None:
    output = tmp_path / "new" / "folder"
    arguments = ["--num=3", "--seed=9", "--label=star_up,star_down", f"--output={output}"]
    assert sample.main([f"--workdir={gan_run}", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "step 2 of" in printed and str(output) in printed and printed.count("\n") == 3 and " frames/s" in printed
    assert sorted(path.name for path in output.iterdir()) == [f"samples.{end}" for end in ("gif", "mp4", "npz", "png")]
    collection = open_collection(output / "samples.npz")  # as the evaluator reads it
    expected = to_uint8(sample.draw(run, 3, 9, label=["star_up", "star_down"]))
    found = np.stack([video.read(np.arange(8)) for video in collection.videos])
    np.testing.assert_array_equal(found, expected)
    assert np.load(output / "samples.npz")["label"].tolist() == ["star_up", "star_down", "star_up"]
    for end in ("gif", "mp4"):
        assert len(probe(str(output / f"samples.{end}")).pts) == 8
    with Image.open(output / "samples.png") as picture:
        assert picture.height > 3 * images.READABLE


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--num=0"], "--num is 0, expected at least 1"),
        (["--seed=-1"], "--seed is -1, expected at least 0"),
        (["--batch_size=0"], "--batch_size is 0, expected at least 1"),
        (["--frames=0"], "--frames is 0, expected at least 1"),
        (["--num=many"], "--num: invalid int value"),
        (["--frames=12"], "This model makes videos of its training length alone, and none of 12."),
        (["--frames=9"], "makes videos of 8 frames, and none of 9: model.generator.factors"),
        (["--label=square_lefft"], 'no class "square_lefft"; the nearest of those there are: square_left'),
        (["--label=star_up,star_down", "--num=1"], "2 of label for 1 videos"),
        (["--text=a red square"], "trained with label, and not with text"),
        (["--first_frames=nowhere.png"], "there is no nowhere.png"),
        (["--first_frames=pixels.npy"], "trained with label, and not with first_frames"),
        (["--first_frames=pixels.npy", "--first_frames=pixels.npy"], "--first_frames is given 2 times"),
        (["--first_frames=flat.npy"], "flat.npy is [4, 4], expected [T,h,w,3]"),
        (["--first_frames=text.txt"], "text.txt: FFmpeg cannot read it"),
        (["--actions=flat.npy"], "trained with label, and not with action"),
        (["--video=pixels.npy"], "--mode sample takes 0 of --video, not 1"),
        (["--mode=reconstruct"], "--mode reconstruct takes 1 of --video, not 0"),
        (["--mode=reconstruct", "--video=pixels.npy", "--seed=1"], "--seed does not go with --mode reconstruct"),
        (["--mode=reconstruct", "--video=pixels.npy"], "makes no reconstructions"),
        (["--mode=compress", "--video=pixels.npy"], "gan3d has no --mode compress, only sample, reconstruct"),
        (["--temperature=hot"], "--temperature: invalid float value"),
        (["--temperature=-1"], "sample.temperature is -1.0, expected 0 or more"),
        (["--mode=reconstruct", "--video=pixels.npy", "--temperature=1"], "--temperature does not go with --mode rec"),
        (["--latent=content"], "unrecognized arguments: --latent=content"),
        (["--mode=interpolate", "--num=3"], "has no --mode interpolate, only sample, reconstruct"),
        (["--first_frames=none.npy"], "none.npy is [0, 1, 4, 4, 3], expected [T,h,w,3]"),
        (["--output=text.txt/deeper"], "--output text.txt/deeper cannot be written: name another folder"),
        (["--output=/proc/samples"], "--output /proc/samples cannot be written: name another folder"),
        ([f"--output={'long' * 99}"], "cannot be written: name another folder"),
        (["--workdir=nowhere"], "nowhere has no config.json"),
    ],
)
def test_what_cannot_work_is_one_sentence(arguments, sentence, gan_run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("pixels.npy", RNG.integers(0, 256, (8, 16, 16, 3), np.uint8))
    np.save("flat.npy", RNG.normal(0, 0.1, (4, 4)))
    np.save("none.npy", np.zeros((0, 1, 4, 4, 3), np.uint8))
    Path("text.txt").write_text("words")
    workdir = [] if "--workdir=nowhere" in arguments else [f"--workdir={gan_run}"]
    try:
        code = sample.main([*workdir, *arguments])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and sentence in error and error.startswith("jaxvid: ") and error.count("\n") == 1, error
    assert not (gan_run / "generated").exists()


def test_a_model_that_generates_nothing_is_told_no_way_out(monkeypatch, tmp_path: Path, capsys) -> None:
    run = untrained(recipe("classifier:tiny"))
    with pytest.raises(ValueError, match=r"makes no videos of its own\.$"):
        sample.draw(run, 2)
    with pytest.raises(ValueError, match=r"makes no reconstructions\.$"):
        sample.reconstruct(run, np.zeros((2, 8, 16, 16, 3), np.uint8))


def test_a_recurrent_model_goes_on_from_first_frames_for_any_time(tmp_path: Path) -> None:
    run = recurrent("text", "first_frames")
    pixels = RNG.integers(0, 256, (2, 1, 16, 16, 3), np.uint8)
    videos = sample.draw(run, 2, frames=13, batch_size=2, text="a red star", first_frames=pixels)
    assert videos.shape == (2, 13, 16, 16, 3)
    np.testing.assert_array_equal(to_uint8(videos[:, :1]), pixels)
    assert np.abs(np.diff(videos[:, 1:], axis=1)).max() > 1e-3
    with pytest.raises(ValueError, match="videos of 8 frames, and none of 1: condition.first_frames is 1, expected"):
        sample.draw(run, 2, frames=1, text="a red star", first_frames=pixels)


def test_actions_and_texts_come_from_the_command_line(tmp_path: Path, monkeypatch) -> None:
    run = recurrent("text", "action")
    stand_in(monkeypatch, run)
    action = RNG.normal(0, 1, (8, 2)).astype(np.float32)
    np.save(tmp_path / "actions.npy", action)
    texts = ["a red star", "a blue circle moves up"]
    arguments = [f"--actions={tmp_path / 'actions.npy'}", "--num=3", "--batch_size=3", f"--output={tmp_path}"]
    assert sample.main(["--workdir=x", *arguments, *(f"--text={text}" for text in texts)]) == 0
    with np.load(tmp_path / "samples.npz") as found:
        assert found["text"].tolist() == [*texts, texts[0]]
        expected = to_uint8(sample.draw(run, 3, batch_size=3, text=texts, action=action))
        np.testing.assert_array_equal(found["video"], expected)
        assert (to_uint8(sample.draw(run, 3, batch_size=3, text=texts, action=-action)) != expected).any()


@pytest.mark.parametrize("name", ["vqvae:tiny", "vqvae_flow:tiny"])
def test_a_tokenizer_reconstructs_and_does_not_sample(name: str, tmp_path: Path, monkeypatch) -> None:
    run = untrained(recipe(name))
    with pytest.raises(ValueError, match="makes no videos of its own: it reconstructs"):
        sample.draw(run, 2)
    stand_in(monkeypatch, run)
    pixels = RNG.integers(0, 256, (3, 8, 16, 16, 3), np.uint8)
    np.save(tmp_path / "pixels.npy", pixels)
    arguments = [f"--video={tmp_path / 'pixels.npy'}", "--batch_size=2", f"--output={tmp_path}"]
    assert sample.main(["--workdir=x", "--mode=reconstruct", *arguments]) == 0
    encode, decode = vqvae.codec(run.config, run.state)
    expected = np.concatenate([decode(encode(pixels[i : i + 1])) for i in range(3)])
    np.testing.assert_allclose(sample.reconstruct(run, pixels, batch_size=2), expected, atol=1e-5)
    with np.load(tmp_path / "reconstructions.npz") as found:
        np.testing.assert_array_equal(found["original"], pixels)
        assert np.abs(found["video"] - to_uint8(expected).astype(int)).max() <= 1


def test_what_a_vae_does_with_videos(tmp_path: Path, monkeypatch, capsys) -> None:
    run = untrained(recipe("vae:tiny"))
    stand_in(monkeypatch, run)
    pixels = np.stack([data.make_source(run.config.data, "eval")[index]["video"] for index in (0, 1)])
    paths = [str(tmp_path / name) for name in ("first.npy", "second.npy")]
    for path, video in zip(paths, pixels, strict=True):
        np.save(path, video)
    first, second = to_uint8(sample.reconstruct(run, pixels, batch_size=2)).astype(int)

    def made(mode: str, file: str, *arguments: str) -> tuple[np.ndarray, dict]:
        assert sample.main(["--workdir=x", f"--mode={mode}", f"--output={tmp_path}", *arguments]) == 0
        with np.load(tmp_path / f"{file}.npz") as found:
            return found["video"].astype(int), dict(found)

    both = [f"--video={path}" for path in paths]
    way, found = made("interpolate", "interpolations", "--num=3", *both)
    assert np.abs(way[0] - first).max() <= 1 and np.abs(way[2] - second).max() <= 1
    assert (way[1] != first).any() and found["weight"].tolist() == ["0.00", "0.50", "1.00"]
    moved, found = made("traverse", "traversals", "--num=3", both[0], "--latent=content", "--dimension=2")
    assert np.abs(moved[1] - first).max() <= 1 and (moved[0] != first).any() and (moved[2] != moved[0]).any()
    assert "Dimension 2 of content" in capsys.readouterr().out
    same, found = made("swap", "swaps", both[0], both[0])
    assert np.abs(same[0] - first).max() <= 1
    other, found = made("swap", "swaps", *both)
    np.testing.assert_array_equal(found["motion"][0], pixels[1])
    assert (other[0] != first).any() and (other[0] != second).any()
    filled, _ = made("fill", "infills", "--frames=5", *both)
    assert filled.shape == (1, 5, 16, 16, 3)
    capsys.readouterr()
    left, _ = made("compress", "decompressed_videos", both[0])
    assert np.abs(left[0] - first).mean() < 8
    bits = float(capsys.readouterr().out.split("latents.npz: ")[1].split()[0])
    assert bits == pytest.approx((tmp_path / "latents.npz").stat().st_size * 8 / pixels[0].size, abs=1e-4)


def test_given_videos_are_read_as_in_training(tmp_path: Path) -> None:
    """A film, the folder that it lies in, its frames as images, and as an array."""
    options = ConfigDict({"resolution": 16, "stride": 2, "fps": 0.0})
    pixels = RNG.integers(0, 256, (9, 24, 20, 3), np.uint8).repeat(2, 1).repeat(2, 2)
    (tmp_path / "films").mkdir()
    film = tmp_path / "films" / "film.mp4"
    images.write_mp4(film, pixels, 8)
    expected = center_crop(Folder(str(film.parent), 4, 16, stride=2)[0], 16)["video"][None]
    np.testing.assert_array_equal(read_videos(str(film), 4, options), expected)
    np.testing.assert_array_equal(read_videos(str(film.parent), 4, options), expected)
    (tmp_path / "frames").mkdir()
    for number, frame in enumerate(pixels):
        Image.fromarray(frame).save(tmp_path / "frames" / f"{number}.png")
    clip = Folder(str(tmp_path / "frames"), 4, 16, stride=2)[0]
    found = read_videos(str(tmp_path / "frames"), 4, options)
    np.testing.assert_array_equal(found[0], center_crop(clip, 16)["video"])
    np.testing.assert_array_equal(read_videos(str(tmp_path / "frames" / "0.png"), 1, options), found[:, :1])
    np.save(tmp_path / "array.npy", pixels[:, 16:32, 12:28])
    np.testing.assert_array_equal(read_videos(str(tmp_path / "array.npy"), 4, options)[0], pixels[:4, 16:32, 12:28])
    with pytest.raises(ValueError, match="film.mp4: it has 9 of the 11 frames that a clip of 6 at stride 2 needs"):
        read_videos(str(film), 6, options)


def test_short_and_damaged_videos_of_a_folder_are_left_out_with_one_warning(tmp_path: Path) -> None:
    options = ConfigDict({"resolution": 16, "stride": 1, "fps": 0.0})
    pixels = RNG.integers(0, 256, (8, 24, 24, 3), np.uint8)
    for name, frames in (("a.mp4", 8), ("b.mp4", 3), ("c.mp4", 8)):
        images.write_mp4(tmp_path / name, pixels[:frames], 8)
    (tmp_path / "d.mp4").write_bytes(b"")
    with pytest.warns(UserWarning, match="^2 files are left out: .*d.mp4 .the file is empty") as caught:
        found = read_videos(str(tmp_path), 8, options)
    assert len(found) == 2 and len(caught) == 1 and "b.mp4 (it has 3 of the 8 frames" in str(caught[0].message)
    with pytest.raises(ValueError, match="no video or image in .* that can be used: 4 files are left out"):
        read_videos(str(tmp_path), 9, options)


def test_progress_is_told_only_where_it_takes_long(monkeypatch, capsys) -> None:
    batches = [np.zeros((4, 1, 2, 2, 3), np.float32)] * 3
    assert len(sample.collected(batches, 12)) == 12 and capsys.readouterr().err == ""
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    sample.collected(batches, 12)
    assert "video 12/12" in capsys.readouterr().err
