"""The command on two sets of videos, with a small network in the place of Inception and I3D."""

import json
import math
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from PIL import Image

from jaxvid.data.synthetic import Synthetic
from jaxvid.evaluate import meter, suite
from jaxvid.evaluate.__main__ import main
from jaxvid.metrics import features
from jaxvid.metrics.frechet import distance_of_features
from jaxvid.metrics.weights import WeightInfo
from jaxvid.train import make_meter, train

SOURCE = Synthetic(10, 16, "eval")
VIDEOS = np.stack([SOURCE[index]["video"] for index in range(12)])
REAL, FAKE = VIDEOS[:6], VIDEOS[6:]


class Small(nn.Module):
    setting: object = None
    dtype: object = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> dict[str, jax.Array]:
        h = nn.Dense(3)(jnp.tanh(x)).mean(tuple(range(1, x.ndim - 1)))
        return {"2048": h, "logits": h, "logits_unbiased": 9 * h}


@pytest.fixture(name="sets")
def sets_fixture(tmp_path, monkeypatch) -> dict[str, str]:
    monkeypatch.setattr(meter, "DIMENSIONS", {("i3d", "logits"): 3, ("inception", "2048"): 3, suite.MOTION: 60})
    params = Small().init(jax.random.key(0), jnp.zeros((1, 4, 4, 3)))["params"]
    info = WeightInfo("small", "here", "0", "small weights", "digest")
    monkeypatch.setattr(features, "Inception", Small)
    features._program.cache_clear()
    monkeypatch.setattr(features, "I3D", Small)
    monkeypatch.setattr(features, "PER_DEVICE", {"inception": 8, "i3d": 1})  # less padding to resize
    monkeypatch.setattr(meter.weights, "load", lambda network: (params, info))
    paths = {}
    for name, videos in (("real", REAL), ("fake", FAKE)):
        paths[name] = str(tmp_path / f"{name}.npy")
        np.save(paths[name], videos)
    return paths


def run(sets: dict[str, str], tmp_path, *arguments: str) -> dict:
    """The scores by name, and the other fields of the file as "about"."""
    output = tmp_path / "scores.json"
    paths = [f"--{name}={path}" for name, path in sets.items()]
    assert main([*paths, "--frames=10", f"--output={output}", *arguments]) == 0
    written = json.loads(output.read_text())
    return {score["metric"]: score for score in written.pop("scores")} | {"about": written}


def test_every_metric_gives_a_number_with_what_was_measured(sets, tmp_path, capsys) -> None:
    found = run(sets, tmp_path, "--metrics=fvd,kvd,fid,kid,is,pr,motion,psnr,ssim", "--protocol=clean,stylegan_v")
    about = found.pop("about")
    names = ["fvd", "kvd", "fid", "kid", "is", "precision", "recall", "motion", "psnr", "ssim"]
    assert list(found) == names
    assert {name: score["fake"] for name, score in found.items() if name in ("fvd", "fid", "psnr")} == {
        "fvd": 6,
        "fid": 60,
        "psnr": 6,
    }
    assert (
        about["frames"] == 10
        and about["resolution"] == {"real": "16x16", "fake": "16x16"}
        and "jax" in about["environment"]
    )
    assert found["fvd"]["protocol"] == "stylegan_v" and found["fvd"]["ddof"] == 0
    assert found["fid"]["weights"] == "small weights" and found["fid"]["weights_sha256"] == "digest"
    assert "StyleGAN-V" in found["fvd"]["citation"] and "6 real and 6 fake" in found["fvd"]["citation"]
    assert all(
        low <= found[name]["value"] <= high
        for name in names
        if (pair := found[name]["interval"])
        for low, high in [pair]
    )
    error = np.square((REAL.astype(np.float64) - FAKE) / 255).mean((1, 2, 3, 4))
    np.testing.assert_allclose(found["psnr"]["value"], (-10 * np.log10(error)).mean(), rtol=1e-5)
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["metric", "value", "95", "%", "interval", "real", "fake", "protocol"]


def test_a_set_is_at_no_distance_from_itself_and_the_order_of_files_plays_no_part(sets, tmp_path) -> None:
    same = run({"real": sets["real"], "fake": sets["real"]}, tmp_path, "--metrics=fvd,psnr,ssim", "--no_intervals")
    assert same["fvd"]["value"] == 0 and same["psnr"]["value"] > 90 and same["ssim"]["value"] == pytest.approx(1)
    first = run(sets, tmp_path, "--metrics=fvd,motion", "--no_intervals")
    folders = {}
    for side, order in (("real", range(6)), ("fake", range(5, -1, -1))):  # written in another order
        folders[side] = str(tmp_path / side)
        (tmp_path / side).mkdir()
        for index in order:
            np.save(tmp_path / side / f"{index}.npy", (REAL if side == "real" else FAKE)[index])
    again = run(folders, tmp_path, "--metrics=fvd,motion", "--no_intervals")
    assert again["fvd"]["value"] == first["fvd"]["value"] and again["motion"]["value"] == first["motion"]["value"]


def test_statistics_are_saved_used_and_not_mixed(sets, tmp_path, capsys) -> None:
    kept = str(tmp_path / "real.npz")
    direct = run(sets, tmp_path, "--metrics=fvd", f"--save_real={kept}", "--no_intervals")
    saved = {"real": kept, "fake": sets["fake"]}
    whole = run(sets, tmp_path, "--metrics=fvd,kvd")  # with the features in memory; alone they are only summed
    assert whole["fvd"]["value"] == pytest.approx(direct["fvd"]["value"], rel=1e-9)
    again = run(saved, tmp_path, "--metrics=fvd", "--no_intervals")
    assert again["fvd"]["value"] == pytest.approx(direct["fvd"]["value"], rel=1e-9) and again["fvd"]["real"] == 6
    capsys.readouterr()
    for arguments, sentence in {
        ("--metrics=fvd", "--protocol=videogpt"): "statistics with protocol original, and videogpt is asked for",
        ("--metrics=fid",): "statistics with features i3d logits, and inception 2048 is asked for",
        ("--metrics=fvd,kid",): "serves one Frechet distance",
        ("--metrics=psnr",): "serves one Frechet distance",
    }.items():
        assert main([f"--real={kept}", f"--fake={sets['fake']}", "--frames=10", *arguments]) == 2
        error = capsys.readouterr().err
        assert sentence in error, error
    mu, sigma = np.arange(3.0), np.eye(3)
    np.savez(tmp_path / "plain.npz", mu=mu, sigma=sigma)  # as pytorch-fid writes it
    plain = {"real": str(tmp_path / "plain.npz"), "fake": str(tmp_path / "plain.npz")}
    assert run(plain, tmp_path, "--metrics=fid")["fid"]["value"] == pytest.approx(0, abs=1e-9)
    assert run({"real": kept, "fake": kept}, tmp_path, "--metrics=fvd")["fvd"]["value"] == pytest.approx(0, abs=1e-9)


def test_pairs_are_never_shifted(sets, tmp_path, capsys) -> None:
    (tmp_path / "short").mkdir()
    for number, video in enumerate(REAL):
        np.save(tmp_path / "short" / f"{number}.npy", video[:9] if number == 2 else video)
    assert main([f"--real={sets['real']}", f"--fake={tmp_path / 'short'}", "--frames=10", "--metrics=psnr"]) == 2
    assert "too short or unreadable" in capsys.readouterr().err


def test_all_frames_of_a_clip_are_drawn_or_none(sets, tmp_path) -> None:
    """Twenty copies of each frame carry no more information than one: the interval stays as wide."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 16, 1, 16, 16, 3), np.uint8)
    widths = []
    for frames in (1, 20):
        for side, found in zip(("real", "fake"), images, strict=True):
            np.save(tmp_path / f"{side}.npy", found.repeat(frames, 1))
        score = run(sets, tmp_path, "--metrics=fid", f"--frames={frames}")["fid"]
        widths.append(score["interval"][1] - score["value"])
    assert widths[1] == pytest.approx(widths[0], rel=0.2)


def test_unknown_weights_are_warned_of(sets, tmp_path, monkeypatch, capsys) -> None:
    params, info = meter.weights.load("i3d")
    info = WeightInfo("i3d", "here", "0", "unknown weights, sha256 0", "digest")
    monkeypatch.setattr(meter.weights, "load", lambda network: (params, info))
    run(sets, tmp_path, "--metrics=fvd")
    assert "warning: i3d runs on unknown weights, sha256 0: its scores are not those" in capsys.readouterr().err


def test_images_need_no_frames(sets, tmp_path) -> None:
    np.save(tmp_path / "images.npy", REAL[:, 0])
    images = {"real": str(tmp_path / "images.npy"), "fake": str(tmp_path / "images.npy")}
    found = run(images, tmp_path, "--metrics=fid,pr,ssim", "--no_intervals")
    assert found["fid"]["real"] == 6 and found["precision"]["value"] == 1 and found["about"]["frames"] == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--real=x"], "name --real and --fake, or else --workdir"),
        ([], "name --real and --fake"),
        (["--workdir=x", "--real=y", "--fake=z"], "or else --workdir"),
        (["--workdir=nowhere"], "nowhere has no config.json"),
        (["--real=nowhere", "--fake=nowhere"], "nowhere does not exist"),
        (["--real={real}", "--fake={fake}", "--protocol=original,cdfvd"], "both protocols of i3d: give one at a time"),
        (["--workdir=x", "--frames=3"], "--frames goes with --real and --fake"),
        (["--real={real}", "--fake={fake}", "--output=nowhere/scores.json"], "cannot be written"),
        (["--real={real}", "--fake={fake}", "--metrics=fdv"], "did you mean fvd"),
        (["--real={real}", "--fake={fake}", "--protocol=clean_fid"], "did you mean clean"),
        (["--real={real}", "--fake={fake}", "--frames=8"], "at least 9 frames, not 8: motion and fid do with fewer"),
        (
            ["--real={real}", "--fake={fake}"],
            "the 16 frames that clips of 16 at stride 1 need; the longest has 10: give",
        ),
        (["--real={real}", "--fake={fake}", "--frames=11"], "give --frames=10 or less"),
        (
            ["--real={real}", "--fake={fake}", "--metrics=pr", "--frames=10", "--num=3"],
            "needs at least 4 clips; the real",
        ),
        (["--real={real}", "--fake={fake}", "--frames=0"], "--frames is 0, expected at least 1"),
        (
            ["--real={real}", "--fake={fake}", "--frames=10", "--num=1"],
            "fvd needs at least 2 clips; the real set has 1",
        ),
        (["--real={real}", "--fake={small}", "--metrics=psnr", "--frames=10"], "found 6 of 16x16 and 6 of 8x8"),
        (["--real={small}", "--fake={small}", "--metrics=ssim", "--frames=10"], "at least 11x11 pixels, not 8x8"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(arguments, sentence, sets, tmp_path, capsys) -> None:
    np.save(tmp_path / "small.npy", REAL[:, :, ::2, ::2])
    paths = {**sets, "small": tmp_path / "small.npy"}
    try:
        code = main([argument.format(**paths) for argument in arguments])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and sentence in error and "Traceback" not in error, error


def test_without_weights_the_command_that_gets_them_is_named(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    np.save(tmp_path / "videos.npy", REAL)
    sets = [f"--{side}={tmp_path / 'videos.npy'}" for side in ("real", "fake")]
    assert main([*sets, "--frames=10"]) == 2
    error = capsys.readouterr().err
    assert "`python -m jaxvid.metrics.weights https://" in error and "50.8 MB" in error and error.count("\n") == 1
    assert main([*sets, "--frames=10", "--metrics=fvd,fid"]) == 2
    error = capsys.readouterr().err
    assert "pt_inception" in error and "model.ckpt" in error and error.count("\n") == 1


def test_a_run_scores_itself_while_it_trains_and_afterwards(sets, tmp_path) -> None:
    config = recipe("vqvae:tiny")
    config.train.steps, config.eval.every = 2, 2
    config.data.frames = 12
    config.eval.metrics = ("fvd", "psnr", "motion")
    train(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    logged = next(line for line in lines if "eval/fvd" in line)
    output = tmp_path / "scores.json"
    assert main([f"--workdir={tmp_path / 'run'}", "--metrics=fvd,psnr,motion", f"--output={output}"]) == 0
    written = json.loads(output.read_text())
    for score in written["scores"]:
        # the method has a psnr of its own, of floats
        name = "psnr_of_reconstructions" if score["metric"] == "psnr" else score["metric"]
        assert score["value"] == pytest.approx(logged[f"eval/{name}"], rel=1e-5), score
    assert written["heldout"].keys() == {"loss", "psnr", "codes_used", "codes_entropy", "codes_perplexity"}
    for name, mean in written["heldout"].items():
        assert mean == pytest.approx(logged[f"eval/{name}"], rel=1e-5), name
    config.eval.metrics = ("fdv",)
    with pytest.raises(ValueError, match="did you mean fvd"):
        train(config, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_optional_metrics_are_measured_where_their_weights_are(sets, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    config = recipe("pixel_gan:celeba")
    assert config.eval.optional == ("fid",)
    config.data.frames, config.eval.metrics, config.eval.optional = 8, ("motion",), ("fid", "psnr")
    with pytest.warns(UserWarning, match="fid is left out of the evaluations: .* does not exist: `python -m "):
        without = make_meter(config, 12)
    assert (without.of_sets, without.of_pairs) == (["motion"], ["psnr"])
    weights = meter.weights.cache_path("inception")
    weights.parent.mkdir(parents=True)
    weights.touch()  # what is read from it stands in `sets`
    assert make_meter(config, 12).of_sets == ["motion", "fid"]
    config.eval.optional = ("pr", "motion")
    with pytest.warns(UserWarning, match="pr is left out of the evaluations: pr needs at least 4 clips; .* set has 3"):
        assert make_meter(config, 3).of_sets == ["motion"]
    config.eval.optional, config.eval.metrics = (), ("pr",)
    with pytest.raises(ValueError, match="pr needs at least 4 clips"):
        make_meter(config, 3)


def flat(levels: np.ndarray, frames: int) -> np.ndarray:
    """Gray clips uint8 [N,frames,16,16,3]."""
    return np.broadcast_to(levels.astype(np.uint8)[:, None, None, None, None], (len(levels), frames, 16, 16, 3))


def test_neighbors_and_pairs_are_of_other_clips(sets, tmp_path) -> None:
    """All fakes lie between real clips, none near to the frames of one: they are gray, and flicker by one level."""
    flicker = (np.arange(8) % 2).astype(np.uint8)[None, :, None, None, None]
    for side, levels in (("real", np.arange(10, 250, 20)), ("fake", np.arange(20, 250, 20))):
        np.save(tmp_path / f"{side}.npy", flat(levels, 8) + flicker)
    found = run(sets, tmp_path, "--metrics=pr,kid", "--frames=8")
    assert found["precision"]["value"] == found["recall"]["value"] == 1
    assert found["precision"]["real"] == 12 and found["kid"]["fake"] == 12
    assert "12 real and 12 fake frames, one frame of each clip drawn by the seed, protocol" in found["kid"]["citation"]
    other = run(sets, tmp_path, "--metrics=kid", "--frames=8", "--seed=1")["kid"]["value"]
    assert other != found["kid"]["value"]
    for side in ("real", "fake"):  # by the content, not the order
        np.save(tmp_path / f"{side}.npy", np.load(tmp_path / f"{side}.npy")[::-1])
    assert run(sets, tmp_path, "--metrics=kid", "--frames=8")["kid"]["value"] == pytest.approx(
        found["kid"]["value"], rel=1e-9
    )


def test_kid_of_still_clips_is_that_of_their_images_and_of_one_subset(sets, tmp_path) -> None:
    scores = []
    for frames in (1, 9):
        for side, levels in (("real", np.arange(0, 240, 12)), ("fake", np.arange(15, 255, 12))):
            np.save(tmp_path / f"{side}.npy", flat(levels, frames))
        scores.append(run(sets, tmp_path, "--metrics=kid", f"--frames={frames}")["kid"])
    image, clip = scores
    assert clip["value"] == image["value"] and clip["interval"] == image["interval"]
    assert clip["subset_size"] == 20 and "std_over_subsets" not in clip and "drawn" not in image


def test_intervals_contain_the_value_and_do_not_depend_on_the_order(sets, tmp_path, capsys) -> None:
    many = np.stack([SOURCE[index]["video"] for index in range(36)])
    found = []
    for step in (1, -1):
        np.save(tmp_path / "real.npy", many[:18][::step])
        np.save(tmp_path / "fake.npy", many[18:][::step])
        found.append(run(sets, tmp_path, "--metrics=fvd,kvd,fid,kid,is,pr,motion"))
    for name in ("fvd", "kvd", "fid", "kid", "is", "precision", "recall", "motion"):
        first, second = (each[name] for each in found)
        low, high = first["interval"]
        assert low <= first["value"] <= high, name
        if name != "is":  # whose splits follow from the order
            assert second["interval"] == pytest.approx(first["interval"], rel=1e-6), name
    assert "No interval" not in capsys.readouterr().out
    run(sets, tmp_path, "--metrics=fvd,motion", "--num=7")
    assert capsys.readouterr().out.count("No interval: less than 8 clips of a set") == 1


def test_names_of_metrics_and_protocols_in_any_case(sets, tmp_path) -> None:
    found = run(sets, tmp_path, "--metrics=FID,Fvd", "--protocol=CLEAN")
    assert found["fid"]["protocol"] == "clean" and "fvd" in found


def test_a_size_is_recorded_and_clean_fid_takes_images_of_any(sets, tmp_path, capsys) -> None:
    (tmp_path / "mixed").mkdir()
    for number, video in enumerate(REAL):
        Image.fromarray(video[0] if number % 2 else video[0, :12, :10]).save(tmp_path / "mixed" / f"i{number}.png")
    np.save(tmp_path / "images.npy", FAKE[:, 0])
    mixed = {"real": str(tmp_path / "mixed"), "fake": str(tmp_path / "images.npy")}
    assert main([*(f"--{side}={path}" for side, path in mixed.items()), "--metrics=fid"]) == 2
    assert "several sizes (3 of 12x10, 3 of 16x16): --size=64, say, resizes and crops" in capsys.readouterr().err
    found = run(mixed, tmp_path, "--metrics=fid", "--size=12")
    assert (
        found["about"]["resolution"] == {"real": "12x12", "fake": "12x12"} and ", size 12," in found["fid"]["citation"]
    )
    clean = run(mixed, tmp_path, "--metrics=fid,kid", "--protocol=clean")
    assert clean["about"]["resolution"]["real"] == "2 sizes" and "size" not in clean["about"]
    parts = []
    for part in (slice(0, None, 2), slice(1, None, 2)):  # each by itself, in sets of one size
        images = [video[0] if part.start else video[0, :12, :10] for video in REAL[part]]
        measure = meter.Meter(["fid"], suite.protocols(["clean"]))
        parts.append(measure.features([np.stack(images)[:, None]])["inception", "2048"])
    fake = measure.features([FAKE[:, :1]])["inception", "2048"]
    expected = distance_of_features(np.concatenate(parts)[:, 0], fake[:, 0])
    assert clean["fid"]["value"] == pytest.approx(expected, rel=1e-9)


def test_refused_files_take_no_memory(tmp_path) -> None:
    """Zeros that are small when compressed: statistics of 288 MB, and 288 MB of videos of which two are used."""
    program = """
import resource, sys
from jaxvid.evaluate.clips import open_collection, read_clips, take_clips
from jaxvid.metrics import frechet, weight_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for refused in (lambda: frechet.load("statistics.npz"), lambda: weight_file.parse("x", weight_file.fetch("lists.pt"))):
    try:
        refused()
    except ValueError as error:
        print(error)
clips = take_clips(open_collection("videos.npz"), 10, count=2)
print([batch.shape for (batch,) in read_clips(clips)])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""
    for name, arrays in {
        "statistics": {"mu": ((6000,), "<f8"), "sigma": ((6000, 6000), "<f8")},
        "videos": {"video": ((60, 10, 400, 400, 3), "|u1")},
    }.items():
        with zipfile.ZipFile(tmp_path / f"{name}.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for member, (shape, dtype) in arrays.items():
                with archive.open(f"{member}.npy", "w") as file:
                    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, fields)
                    size = math.prod(shape) * np.dtype(dtype).itemsize
                    for start in range(0, size, 1 << 22):
                        file.write(bytes(min(1 << 22, size - start)))
    with zipfile.ZipFile(tmp_path / "lists.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"]" * (1 << 24 - 1))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    statistics, lists, shapes, mebibytes = done.stdout.splitlines()
    assert "has statistics of 6000 dimensions, expected at most 4096" in statistics
    assert "steps, far more than a file of tensors needs" in lists
    assert shapes == "[(2, 10, 400, 400, 3)]" and int(mebibytes) < 150, done.stdout
