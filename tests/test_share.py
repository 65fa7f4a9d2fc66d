"""Exported runs: the same bits as the run, whole or not at all, and nothing of the machine that they come from."""

import contextlib
import inspect
import json
import re
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import checkpoint, conditions, core, data, images, pretrained, sample, share, train
from jaxvid import config as config_lib
from jaxvid import export as command
from jaxvid import run as run_lib
from jaxvid.core import Profile, TrainState, find_method, make_method
from jaxvid.files import write_json
from jaxvid.methods import vqvae
from jaxvid.report import report
from jaxvid.translate import translate_video
from jaxvid.writer import Writer

pytestmark = pytest.mark.xdist_group("share")
RNG = np.random.default_rng(0)
STEP = 7


def leaves(tree: Any) -> dict[str, bytes]:
    """The bytes of every array by its name."""
    raw = jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)
    found = jax.tree_util.tree_leaves_with_path(jax.device_get(raw))
    return {jax.tree_util.keystr(path): np.asarray(x).tobytes() for path, x in found}


def make_workdir(folder: Path, config: ConfigDict) -> Path:
    """The work folder of a run that has evaluated at step 7, with arbitrary arrays: nothing is compiled."""
    source = data.make_source(config.data, "train")
    config = getattr(find_method(config.method), "complete", conditions.complete)(config, source)
    method = make_method(config)
    clip = conditions.wrap(config, source)[0]
    described = {name: [[8, *x.shape], str(x.dtype)] for name, x in clip.items() if x.dtype.kind in "uif"}
    abstract = checkpoint.abstract_state(method, described)
    state = jax.tree.map(lambda x: RNG.normal(0, 0.1, x.shape).astype(x.dtype), abstract.replace(key=np.zeros(0)))
    state = state.replace(collections=jax.tree.map(np.abs, state.collections), step=np.asarray(STEP, np.int32))
    state = pretrained.adopt(jax.device_put(state.replace(key=jax.random.key(3)), jax.devices()[0]), method.frozen)
    with contextlib.closing(checkpoint.Checkpointer(folder, 1)) as checkpointer:
        checkpointer.save(state)
    accounts = {split: {"clips": 5, "classes": 2, "sha256": "f"} for split in ("train", "eval")}
    for name, content in {"config": config_lib.to_dict(config), "batch": described, "data": accounts}.items():
        write_json(folder / f"{name}.json", content)
    with contextlib.closing(Writer(folder)) as writer:
        writer.write_scalars(STEP, {"train/loss": 9.0})
        writer.write_scalars(STEP, {"eval/psnr": 21.5, "eval/gap": float("nan")})
    images.write_gif(folder / "samples" / f"step_{STEP:07d}.gif", np.zeros((2, 8, 8, 3), np.uint8), 8)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Work folders "gan", "vqvae", "cyclegan" and "maskgit", on the tokenizer "vqvae", and the exports of them."""
    place = tmp_path_factory.mktemp("share")
    configs = {name: recipe(f"{name}:tiny") for name in ("vqvae", "cyclegan", "maskgit")}
    configs["gan"] = recipe("pixel_gan:tiny")
    configs["gan"].condition.on, configs["gan"].model.conditioning = ("label",), "projection"
    configs["gan"].loss.lecam = 0.1
    configs["maskgit"].tokenizer = pretrained.reference(str(place / "work" / "vqvae"))
    configs["maskgit"].tokenizer.step = STEP
    for name, config in configs.items():
        make_workdir(place / "work" / name, config)
        run_lib.export(place / "work" / name, place / name)
    return place


@pytest.fixture(scope="module")
def runs(place: Path) -> dict[str, tuple[run_lib.Run, run_lib.Run]]:
    """By name, the run and the export of it."""
    names = ("gan", "vqvae", "cyclegan", "maskgit")
    return {name: (run_lib.load(place / "work" / name), run_lib.load(place / name)) for name in names}


@pytest.mark.parametrize("name", ["gan", "vqvae", "cyclegan", "maskgit"])
def test_an_export_has_the_arrays_that_are_sampled_with(name: str, runs: dict, place: Path) -> None:
    before, after = runs[name]
    expected = before.state.replace(params={**before.state.params, **before.state.ema}, opt_state={}, ema={})
    extra = {part: value for part, value in expected.extra.items() if part not in ("pool", "lecam")}
    assert before.state.ema and leaves(after.state) == leaves(expected.replace(extra=extra))
    (device,) = {each for part in (before.state, after.state) for x in jax.tree.leaves(part) for each in x.devices()}
    assert device == jax.devices()[0]
    assert after.method.frozen.keys() == before.method.frozen.keys()
    names = safetensors.numpy.load_file(place / name / "model.safetensors").keys()
    assert {each.split("/")[0] for each in names} <= {"step", "key", "params", "collections", "extra"}
    assert all(re.fullmatch(r"[\w/]+", each) for each in names)
    batch = json.loads((place / name / "batch.json").read_text())
    abstract = {field: jax.ShapeDtypeStruct(shape, dtype) for field, (shape, dtype) in batch.items()}
    jax.eval_shape(after.method.eval_step, after.state, abstract, jax.random.key(0))
    assert sorted(path.name for path in (place / name).iterdir()) == [
        "README.md", "batch.json", "config.json", "data.json", "model.safetensors", "samples", "scores.json",
    ]  # fmt: skip
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_what_training_alone_reads_is_left_behind(runs: dict) -> None:
    for name, part in {"cyclegan": "pool", "gan": "lecam"}.items():
        before, after = runs[name]
        assert part in before.state.extra and part not in after.state.extra


@pytest.mark.parametrize("name", ["gan", "vqvae", "cyclegan"])
def test_the_lines_of_a_card_make_the_bits_that_the_run_makes(name: str, runs: dict, place: Path, monkeypatch) -> None:
    monkeypatch.chdir(place)
    (lines,) = re.findall(r"```python\n(.*?)```", (place / name / "README.md").read_text(), re.DOTALL)
    scope: dict[str, Any] = {}
    exec(lines, scope)
    run, _ = runs[name]
    if name == "gan":
        expected = sample.draw(run, 4, seed=0, label=run.config.condition.classes[0])
        made = scope["videos"]
    elif name == "vqvae":
        expected, made = sample.reconstruct(run, scope["video"]), scope["reconstruction"]
    else:
        expected, made = translate_video(run, scope["video"], to="A"), scope["translation"]
    assert made.std() > 0
    np.testing.assert_array_equal(made, expected)


def test_a_codec_makes_the_same_bits(runs: dict) -> None:
    video = RNG.integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    (encode, decode), (encode_again, decode_again) = (vqvae.codec(run.config, run.state) for run in runs["vqvae"])
    indices = encode(video)
    assert len(np.unique(indices)) > 1
    np.testing.assert_array_equal(encode_again(video), indices)
    np.testing.assert_array_equal(decode_again(indices), decode(indices))


def test_an_export_is_exported_again_as_it_is(place: Path, tmp_path: Path) -> None:
    run_lib.export(place / "vqvae", tmp_path / "vqvae")
    for path in (path for path in (place / "vqvae").rglob("*") if path.is_file()):
        assert (tmp_path / "vqvae" / path.relative_to(place / "vqvae")).read_bytes() == path.read_bytes()


def test_a_prior_takes_an_exported_tokenizer_for_the_run_itself(runs: dict, place: Path) -> None:
    """Its SHA-256 is that of the run, and so is that of the tokenizer that a prior brings along."""
    config = recipe("maskgit:tiny")
    config.tokenizer = pretrained.reference(str(place / "vqvae"))
    config.tokenizer.step = STEP
    found = pretrained.complete(config, data.make_source(config.data, "train"), "tokenizer").tokenizer
    original, entry = (run.config.tokenizer for run in runs["maskgit"])
    assert found.sha256 == entry.sha256 == original.sha256
    assert entry.path == "vqvae" and len(entry.sha256) == 64


def state(params: dict) -> TrainState:
    return core.new_state(jax.random.key(0), params, {})


def test_arrays_of_any_order_and_type_come_back(tmp_path: Path) -> None:
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    params = {"a": turned, "b": jnp.arange(3, dtype=jnp.bfloat16), "c": np.int32(5), "d": np.zeros((0, 2), bool)}
    before = state({"player": params})
    before = before.replace(params={"player": {**before.params["player"], "a": turned}})
    assert not turned.flags.c_contiguous
    share.write_arrays(tmp_path / "x", before)
    after = share.read_arrays(tmp_path / "x", jax.eval_shape(lambda: state({"player": params})))
    assert leaves(after) == leaves(before)
    assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(before)]


def test_damage_is_one_sentence_that_names_the_file(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(place / "gan", copy)
    file = copy / "model.safetensors"
    whole = file.read_bytes()
    header = int.from_bytes(whole[:8], "little")
    flipped = [header + 8, (header + len(whole)) // 2, len(whole) - 1, whole.index(b"sha256") + 16]
    flipped.append(whole.index(b"kernel"))
    for at in flipped:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ValueError, match="model.safetensors is .*: export or download it again.$"):
            run_lib.load(copy)
    for cut in (0, 5, header, len(whole) - 1):
        file.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"model.safetensors is damaged \(.*\): export or download it again.$"):
            run_lib.load(copy)
    safetensors.numpy.save_file({"x": np.zeros(2)}, file)
    with pytest.raises(ValueError, match="model.safetensors was not written by jaxvid.run.export"):
        run_lib.load(copy)
    file.unlink()
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet, and no model.safetensors of an exported run"):
        run_lib.load(copy)
    safetensors.numpy.save_file({"x": np.zeros(2)}, file, {"jaxvid": "5"})
    with pytest.raises(ValueError, match="model.safetensors was not written by jaxvid.run.export"):
        run_lib.load(copy)
    file.write_bytes(whole)
    for text in ("[]", '{"video": 5}', '{"video": [[8], "no"]}'):
        (copy / "batch.json").write_text(text)
        with pytest.raises(ValueError, match=r"config.json or batch.json in .*copy is damaged \(.*: put back"):
            run_lib.load(copy)
    (copy / "batch.json").unlink()
    with pytest.raises(FileNotFoundError, match="copy has no batch.json: put back"):
        run_lib.load(copy)


@pytest.mark.parametrize(
    ("was", "now"),
    [('"method": "vqvae"', '"method": 5'), ('"width": 16', '"width": "x"'), ('"frames": 8', '"frames": "x"')],
)
def test_a_config_that_makes_no_model_is_one_sentence(was: str, now: str, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "vqvae", tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    assert was in path.read_text()
    path.write_text(path.read_text().replace(was, now))
    with pytest.raises(
        ValueError, match=r"config.json or batch.json in .*copy is damaged \(.*Error: .*\): put back"
    ) as error:
        run_lib.load(tmp_path / "copy")
    assert "\n" not in str(error.value)


def test_another_version_is_named(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "vqvae", tmp_path / "copy")
    path = tmp_path / "copy" / "config.json"
    path.write_text(path.read_text().replace('"blocks": 1', '"blocks": 2'))
    with pytest.raises(ValueError, match=r"has params/\S+ as absent, this version of the method as \[.*use jaxvid \d"):
        run_lib.load(tmp_path / "copy")


def test_it_is_written_whole_or_not_at_all(place: Path, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ValueError, match="full exists and is not empty"):
        run_lib.export(place / "vqvae", tmp_path / "full")

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(share, "card", full)
    with pytest.raises(OSError, match="new could not be written: No space left"):
        run_lib.export(place / "vqvae", tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_training_does_not_go_on_from_an_export(place: Path) -> None:
    for name in ("vqvae", "maskgit"):
        with pytest.raises(ValueError, match=f"{name} holds an exported run, without the optimizers' states"):
            train.train(recipe(f"{name}:tiny"), place / name)


SECRET = "my secret folder"


def test_nothing_tells_where_the_run_was(place: Path, tmp_path: Path, monkeypatch) -> None:
    """Of places the last name remains, in the config, the report, the scores and the card."""
    home = tmp_path / SECRET
    workdir = home / "runs" / "maskgit"
    shutil.copytree(place / "work" / "maskgit", workdir)
    saved = json.loads((workdir / "config.json").read_text())
    for fields in (saved, saved["tokenizer"]["config"]):
        fields["data"].update(path=f"{home}/videos/", tokens=f"{home}/tokens")
        fields["train"]["wandb"] = f"{SECRET} project"
        fields["own"] = {"file": f"{home}/weights.npz", "list": [f"{home}/a b.txt"], "relative": "layer/kernel"}
    saved["tokenizer"]["path"] = f"../{SECRET}/runs/vqvae"
    saved["condition"]["classes"] = ["/odd/class", *saved["condition"]["classes"][1:]]
    write_json(workdir / "config.json", saved)
    account = run_lib.account({"path": f"{home}/videos", "tokens": ""}, {})
    write_json(workdir / "data.json", {**account, **json.loads((workdir / "data.json").read_text())})
    citation = f"fvd 3: against {home.as_posix().replace(' ', '_')}/real.npz, of 16/s"
    scores = [{"metric": "fvd", "value": 3.0, "interval": [2.5, 3.5], "citation": citation}]
    write_json(workdir / "scores.json", {"scores": scores, "step": STEP, "workdir": str(workdir), "data": str(home)})
    config = {name: config_lib.abbreviated(value) for name, value in config_lib.flatten(saved).items()}
    report(
        workdir / "report.html",
        title=f"maskgit on folder {home}/videos",
        step=STEP,
        total_steps=9,
        history=[{"step": STEP, "eval/loss": 1.0}],
        profiles={"by_class": Profile(np.ones(3))},
        config=config,
        files={"checkpoints": "checkpoints"},
        parameters="params",
    )
    assert SECRET in (workdir / "report.html").read_text()
    assert command.main([f"--workdir={workdir}", f"--output={tmp_path / 'out'}", "--license=cc-by-4.0"]) == 0
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(written) == 8
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path.name
        assert SECRET.replace(" ", "_").encode() not in path.read_bytes(), path.name
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["data"]["path"] == "videos" and fields["tokenizer"]["path"] == "vqvae"
    assert fields["own"] == {"file": "weights.npz", "list": ["a b.txt"], "relative": "layer/kernel"}
    assert fields["condition"] == saved["condition"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<h1>maskgit on synthetic videos</h1>" in page and "by_class" in page and "<pre>params</pre>" in page
    assert "<dt>own.file</dt><dd>&#x27;weights.npz&#x27;</dd>" in page and "checkpoints" not in page
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| fvd | 3 | 2.5 to 3.5 |" in card and "against real.npz, of 16/s" in card
    assert run_lib.load(tmp_path / "out").config.data.path == "videos"


def test_pictures_of_the_data_may_stay_at_home(place: Path, tmp_path: Path) -> None:
    assert (place / "vqvae" / "samples").is_dir()
    run_lib.export(place / "work" / "vqvae", tmp_path / "out", media=False)
    assert not list((tmp_path / "out").rglob("*.gif")) and "![" not in (tmp_path / "out" / "README.md").read_text()


def test_a_card_tells_what_is_known(runs: dict, place: Path) -> None:
    yaml = pytest.importorskip("yaml")
    _, front, body = (place / "maskgit" / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields == {
        "license": "unknown",
        "library_name": "jaxvid",
        "tags": ["video-generation", "jax", "flax", "maskgit"],
        "metrics": ["gap", "psnr"],
    }
    digest = runs["maskgit"][1].config.tokenizer.sha256[:16]
    for text in (
        "# maskgit\n",
        "![What the run shows at an evaluation](samples/step_0000007.gif)",
        "Clips of 8 frames (all) of 16x16 pixels from synthetic: train 5 clips, eval 5 clips. Generated from label.",
        "7 steps of 20 planned ones of 8 clips",
        f"The frozen tokenizer is a vqvae after 7 steps (SHA-256 {digest})",
        "| psnr | 21.5 |",
        "| gap | - |",
        "python -m jaxvid.sample --workdir maskgit --num 4 --label square_left",
    ):
        assert text in body, text


def test_stale_scores_are_left_out_with_a_word(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "work" / "vqvae", tmp_path / "run")
    write_json(tmp_path / "run" / "scores.json", {"step": 3, "scores": [], "heldout": {"psnr": 1.0}})
    with pytest.warns(UserWarning, match="scores.json is of step 3, and the newest checkpoint of step 7: left out"):
        run_lib.export(tmp_path / "run", tmp_path / "out")
    assert json.loads((tmp_path / "out" / "scores.json").read_text())["heldout"] == {"psnr": 21.5, "gap": None}
    (tmp_path / "run" / "scores.json").write_text("{")
    with pytest.raises(ValueError, match="scores.json is damaged: delete it, or write it anew with `python"):
        run_lib.export(tmp_path / "run", tmp_path / "again")
    (tmp_path / "run" / "samples" / "step_last.gif").touch()
    (tmp_path / "run" / "report.html").write_bytes(b"\xff")
    for scores in ({"scores": 5}, {"scores": [5]}, {"scores": [{"metric": "fvd"}]}, {"heldout": {"psnr": "high"}}):
        write_json(tmp_path / "run" / "scores.json", {"step": STEP, **scores})
        with pytest.raises(ValueError, match="scores.json or data.json in .*run is damaged: delete it"):
            run_lib.export(tmp_path / "run", tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_embeddings_of_captions_are_part_of_an_export(runs: dict, place: Path, tmp_path: Path) -> None:
    table, (_, run) = tmp_path / "table.npz", runs["gan"]
    np.savez(table, text=["a red square"], embedding=np.ones((1, 3), np.float32))
    changed = {"condition.on": ("text",), "condition.embeddings": str(table)}
    config = run.config.copy_and_resolve_references()
    config.update_from_flattened_dict(changed)
    job = share.Export(place / "gan", config, run.method, run.state, "unknown", False)
    share.write(job, tmp_path / "out")
    table.unlink()
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()
    found = conditions.from_user(run_lib.saved_config(tmp_path / "out"), 1, text="a red square")
    np.testing.assert_array_equal(found["embedding"], [[1, 1, 1]])
    path = tmp_path / "out" / "config.json"
    path.write_text(path.read_text().replace('"embeddings.npz"', '"/etc/passwd"'))
    assert run_lib.saved_config(tmp_path / "out").condition.embeddings == str(tmp_path / "out" / "embeddings.npz")
    with pytest.raises(ValueError, match="condition.embeddings is .*table.npz, which is gone: put it back"):
        share.write(job, tmp_path / "again")
    assert not (tmp_path / "again").exists()


class Hub(types.ModuleType):
    """Stands for huggingface_hub: a hub in a folder. Its functions take what the real ones take."""

    def __init__(self, folder: Path):
        super().__init__("huggingface_hub")
        self.folder, self.calls = folder, []

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        self.calls.append(("snapshot_download", (repo_id,), options))
        if not (self.folder / repo_id).is_dir():
            raise RuntimeError(f"404 Client Error.\n\nRepository Not Found for {repo_id}.")
        target = self.folder / "cache" / f"{len(self.calls)}"
        for pattern in options["allow_patterns"]:
            for path in (self.folder / repo_id).glob(pattern):
                target.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / path.name)
        return str(target)

    def HfApi(self) -> "Hub":
        return self

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_repo", (repo_id,), options))
        (self.folder / repo_id).mkdir(parents=True)

    def upload_folder(self, **options: Any) -> None:
        self.calls.append(("upload_folder", (), options))
        shutil.copytree(options["folder_path"], self.folder / options["repo_id"], dirs_exist_ok=True)


def test_a_run_goes_to_the_hub_and_comes_back(runs: dict, place: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    hub = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.chdir(tmp_path)
    words = [f"--workdir={place / 'work' / 'gan'}", "--output=hf://me/gan", "--private"]
    assert command.main(words) == 0 and "Exported to hf://me/gan" in capsys.readouterr().out
    assert 'run.load("hf://me/gan")' in (tmp_path / "hub" / "me" / "gan" / "README.md").read_text()
    run = run_lib.load("hf://me/gan@v1.0")
    assert leaves(run.state) == leaves(runs["gan"][1].state)
    made = [(name, first, options.get("revision")) for name, first, options in hub.calls]
    assert made == [
        ("create_repo", ("me/gan",), None),
        ("upload_folder", (), None),
        ("snapshot_download", ("me/gan",), "v1.0"),
    ]
    assert hub.calls[0][2] == {"private": True, "exist_ok": True}
    arguments, _ = sample.parse(["--workdir=hf://me/gan", "--label=square_left"])
    assert arguments.workdir == "hf://me/gan" and arguments.output == "generated"
    with pytest.raises(OSError, match=r"^hf://me/none cannot be downloaded \(RuntimeError: 404 Client Error. Repos"):
        run_lib.load("hf://me/none")


def test_the_real_library_takes_what_the_one_of_the_tests_takes(place: Path, tmp_path: Path, monkeypatch) -> None:
    real = pytest.importorskip("huggingface_hub")
    functions = (real.snapshot_download, real.HfApi().create_repo, real.HfApi().upload_folder)
    signatures = {function.__name__: inspect.signature(function) for function in functions}
    hub = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    run_lib.export(place / "vqvae", "hf://me/vqvae")
    share.located("hf://me/vqvae")
    assert len(hub.calls) == 3
    for name, first, options in hub.calls:
        signatures[name].bind(*first, **options)


def test_what_is_no_address_is_said(place: Path, monkeypatch) -> None:
    for address in ("hf://", "hf://gan", "hf://me/gan/more", "hf://me/gan@", "hf:// me/gan"):
        with pytest.raises(ValueError, match="is no address of the hub: expected hf://user/name or hf://user/name@rev"):
            run_lib.load(address)
    with pytest.raises(ValueError, match="names a revision, but an upload makes a new one: leave @v1 out"):
        run_lib.export(place / "vqvae", "hf://me/gan@v1")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for act in (lambda: run_lib.load("hf://me/gan"), lambda: run_lib.export(place / "vqvae", "hf://me/gan")):
        with pytest.raises(ValueError, match=r"^hf:// needs the package .*: pip install 'jaxvid\[hub\]'.$"):
            act()
