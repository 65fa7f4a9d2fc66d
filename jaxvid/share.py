"""Trained runs to give away: folders of JSON, arrays and a model card, on the disk or on the Hugging Face hub.

`jaxvid.run.export` writes one, and `jaxvid.run.load` reads it as it reads a work folder. It holds what sampling,
translation and evaluation need, and no more: no states of optimizers, and nothing that names a place on the machine of
the run. No file in it can run code.
"""

import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from ml_collections import ConfigDict

import jaxvid
from jaxvid import config as config_lib
from jaxvid.card import Facts, card
from jaxvid.checkpoint import described
from jaxvid.conditions import OF_DATA
from jaxvid.core import Method, TrainState, sampled_params
from jaxvid.data.records import check_new
from jaxvid.files import local_path, write_json, writing
from jaxvid.report import published
from jaxvid.writer import read_history

ARRAYS = "model.safetensors"
EMBEDDINGS = "embeddings.npz"  # of captions, where `condition.embeddings` names some
READ = ("config.json", "batch.json", "data.json", "scores.json", ARRAYS, EMBEDDINGS)  # what is downloaded
MEDIA = ("report.html", "samples/*")  # what shows clips of the data
SCORES = ("step", "heldout", "scores", "frames", "stride", "resolution", "seed")  # fields of scores.json
HUB = "hf://"
RUN = "the work folder of a run, or an exported one, or hf://user/name"  # in words, for --help
ADDRESS = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[^@\s]+))?")
PATHS = re.compile(r"""(?<![\w.:/])~?/(?:[^\s/'",;:]+/)*(?=[^\s/'",;:])""")  # within a sentence, up to the last name


def place(text: str) -> str:
    """The `type` of options that take a run: a folder with its `~` expanded, or hf://user/name as it is."""
    return text if text.startswith(HUB) else local_path(text)


def located(workdir: str | Path) -> Path:
    """The folder of a run; one of the hub, hf://user/name or hf://user/name@revision, is downloaded where it is new.

    Raises ValueError: the address is none, or huggingface_hub is not installed; OSError: it cannot be downloaded.
    """
    if not str(workdir).startswith(HUB):
        return Path(local_path(workdir))
    name, revision = parsed(str(workdir))
    hub = _hub()
    with _in_one_sentence(f"{workdir} cannot be downloaded"):
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=list(READ)))


def parsed(address: str) -> tuple[str, str | None]:
    """The repository of an address, and the branch, tag or commit that it names. Raises ValueError for no address."""
    match = ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"{address} is no address of the hub: expected hf://user/name or hf://user/name@revision.")
    return match["name"], match["revision"]


def _hub() -> Any:
    """The module huggingface_hub."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError("hf:// needs the package huggingface_hub: pip install 'jaxvid[hub]'.") from error
    return huggingface_hub


@contextmanager
def _in_one_sentence(failure: str) -> Iterator[None]:
    """Turns errors of huggingface_hub, of many types and lines, into OSError."""
    try:
        yield
    except Exception as error:
        why = " ".join(str(error).split())[:160].rstrip(".")
        raise OSError(f"{failure} ({type(error).__name__}: {why}); `hf auth login` for what is private.") from error


class Export(NamedTuple):
    """What is exported."""

    folder: Path  # of the run
    config: ConfigDict
    method: Method
    state: TrainState  # `sampled`
    license: str
    media: bool  # whether the report and the pictures are part of it


def exported(folder: Path) -> bool:
    """Whether a folder holds an exported run."""
    return (folder / ARRAYS).is_file()


def sampled(state: TrainState, method: Method) -> TrainState:
    """The part of a state that samples, translates and is evaluated: averages take the place of what they average."""
    params = {player: sampled_params(state, player) for player in state.params}
    extra = {name: value for name, value in state.extra.items() if name not in method.training_only}
    return state.replace(params=params, opt_state={}, ema={}, extra=extra)


def write(job: Export, target: Path) -> None:
    """Writes an exported run to a folder, whole or not at all.

    Raises ValueError: the folder is not empty, or the run is damaged; OSError: it cannot be written.
    """
    check_new(target)
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as scratch:
            whole = Path(scratch) / target.name
            _fill(whole, job, target.name)
            whole.rename(target)


def upload(job: Export, address: str, private: bool) -> None:
    """Writes an exported run to a repository of the hub, hf://user/name, in one commit; makes the repository if needed.

    Raises ValueError: the address is none, or huggingface_hub is not installed; OSError: it cannot be uploaded.
    """
    name, revision = parsed(address)
    if revision:
        raise ValueError(f"{address} names a revision, but an upload makes a new one: leave @{revision} out.")
    hub = _hub()
    with tempfile.TemporaryDirectory() as scratch:
        whole = Path(scratch) / "run"
        _fill(whole, job, address)
        with _in_one_sentence(f"{address} cannot be uploaded"):
            api = hub.HfApi()
            api.create_repo(name, private=private or None, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=whole,
                commit_message=f"Step {int(job.state.step)} of a run of jaxvid {jaxvid.__version__}",
                delete_patterns=[*READ, *MEDIA],  # those of an earlier upload that this one lacks
            )


def _fill(output: Path, job: Export, name: str) -> None:
    """Writes the files of an exported run, which others will load by this name, to a new folder."""
    output.mkdir()
    shutil.copyfile(job.folder / "batch.json", output / "batch.json")
    fields, step = public(config_lib.to_dict(job.config)), int(job.state.step)
    if embeddings := (job.config.get("condition") or {}).get("embeddings", ""):
        if not os.path.isfile(embeddings):
            raise ValueError(f"condition.embeddings is {embeddings}, which is gone: put it back, it is exported too.")
        shutil.copyfile(embeddings, output / EMBEDDINGS)
        fields["condition"]["embeddings"] = EMBEDDINGS
    scores, data = _scores(job.folder, step), _data(job.folder)
    for file, content in {"config": fields, "scores": scores, "data": data}.items():
        write_json(output / f"{file}.json", content)
    write_arrays(output / ARRAYS, job.state)
    picture = _write_media(output, job.folder, fields, step) if job.media else ""
    facts = Facts(name, config_lib.from_dict(fields), scores, data, picture, job.license)
    try:
        text = card(facts, job.method, job.state)
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise ValueError(f"scores.json or data.json in {job.folder} is damaged: delete it.") from error
    (output / "README.md").write_text(text, encoding="utf-8")


def public(value: Any, field: str = "") -> Any:
    """JSON without what is private: of places on this machine the last name remains, of a project of wandb nothing.

    Args:
      field: the name of the field that holds the value.
    """
    if isinstance(value, Mapping):
        return {name: public(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [public(each, field) for each in value]
    if not isinstance(value, str) or value.startswith(HUB) or field in OF_DATA:
        return value
    if field == "wandb":
        return ""
    if field in ("path", "tokens", "embeddings") or re.match(r"[~/\\]|[A-Za-z]:[/\\]", value):
        return re.split(r"[/\\]", value.rstrip("/\\"))[-1]
    return PATHS.sub("", value)


def _data(folder: Path) -> dict[str, Any]:
    """What a run keeps of its data, less where they lie."""
    file = folder / "data.json"
    try:
        found = json.loads(file.read_text()) if file.is_file() else {}
        return {split: account for split, account in found.items() if isinstance(account, dict)}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{file} is damaged: delete it.") from error


def _scores(folder: Path, step: int) -> dict[str, Any]:
    """Scores of a state: those in scores.json, if they are of its step, or else the means of the last evaluation."""
    file = folder / "scores.json"
    try:
        found = json.loads(file.read_text()) if file.is_file() else {}
        given = {"step": step, "heldout": {}, "scores": []} | {name: found[name] for name in SCORES if name in found}
    except (ValueError, TypeError) as error:
        again = f"python -m jaxvid.evaluate --workdir {folder} --output {file}"
        raise ValueError(f"{file} is damaged: delete it, or write it anew with `{again}`.") from error
    if found and (given["step"] == step or exported(folder)):
        return public(given)
    if found:
        warnings.warn(
            f"{file} is of step {given['step']}, and the newest checkpoint of step {step}: left out.", stacklevel=4
        )
    means: dict[str, Any] = {}
    for line in read_history(folder):
        evaluated = {name[5:]: value for name, value in line.items() if name.startswith("eval/")}
        if evaluated and line["step"] <= step:
            means = {"step": line["step"], "heldout": evaluated}
    finite = {name: value if math.isfinite(value) else None for name, value in means.get("heldout", {}).items()}
    return {"step": means.get("step", step), "heldout": finite, "scores": []}


def _write_media(output: Path, folder: Path, fields: Mapping[str, Any], step: int) -> str:
    """Copies the report and the pictures of the last evaluation; returns the path of one to show, "" for none."""
    report = folder / "report.html"
    if report.is_file():
        settings = {name: config_lib.abbreviated(value) for name, value in config_lib.flatten(fields).items()}
        title = f"{fields['method']} on {fields['data']['name']} {fields['data']['path']}".strip()
        page = published(report.read_text(encoding="utf-8", errors="replace"), title, settings)
        (output / report.name).write_text(page, encoding="utf-8")
    stems = {path.with_suffix("") for path in (folder / "samples").glob("step_*.gif")}
    stems = {stem for stem in stems if stem.name[5:].isdecimal() and int(stem.name[5:]) <= step}
    if not stems:
        return ""
    (output / "samples").mkdir()
    for path in max(stems).parent.glob(f"{max(stems).name}.*"):
        shutil.copyfile(path, output / "samples" / path.name)
    return f"samples/{max(stems).name}.gif"


def embeddings_in(folder: Path, config: ConfigDict) -> ConfigDict:
    """The config of a run, where `condition.embeddings` of an exported one names the file in its folder."""
    if exported(folder) and (config.get("condition") or {}).get("embeddings"):
        config.condition.embeddings = str(folder / EMBEDDINGS)  # whatever it says: nothing outside is read
    return config


def _raw(state: TrainState) -> TrainState:
    """The state with its random keys as integers."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _is_key(leaf: Any) -> bool:
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """The SHA-256 of the names, shapes, types and bytes of arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write_arrays(path: Path, state: TrainState) -> None:
    """Writes a state as safetensors, with its SHA-256: the names are params/generator/... and so on."""
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(_raw(state)))
    # Those that are not contiguous would be written wrongly, without a word.
    arrays = {jax.tree_util.keystr(k, simple=True, separator="/"): np.asarray(x, order="C") for k, x in leaves}
    about = {"version": jaxvid.__version__, "sha256": _digest(arrays)}
    safetensors.numpy.save_file(arrays, path, {"jaxvid": json.dumps(about)})  # one entry, since they have no order


def read_arrays(path: Path, abstract: TrainState) -> TrainState:
    """The state of `write_arrays`, on one device.

    Args:
      abstract: its shapes and dtypes.

    Raises ValueError: the file is damaged, no export, or not for this version of the method.
    """
    again = "export or download it again"
    try:
        with safetensors.safe_open(os.fspath(path), "np") as file:
            about = json.loads((file.metadata() or {}).get("jaxvid", "{}"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except Exception as error:  # of safetensors, whose errors are no subclass of any other
        raise ValueError(f"{path} is damaged ({error}): {again}.") from error
    if not isinstance(about, dict) or "sha256" not in about:
        raise ValueError(f"{path} was not written by jaxvid.run.export: {again}.")
    if about["sha256"] != _digest(arrays):
        raise ValueError(f"{path} is not what was exported (its SHA-256 differs): {again}.")
    raw = jax.eval_shape(_raw, abstract)
    present, expected = described(arrays), described(raw)
    for name in sorted(present.keys() | expected.keys()):
        if present.get(name) != expected.get(name):
            raise ValueError(
                f"{path} has {name} as {present.get(name, 'absent')}, this version of the method as "
                f"{expected.get(name, 'absent')}; use jaxvid {about.get('version')}, which wrote it."
            )
    state = jax.tree.unflatten(jax.tree.structure(raw), [arrays[name] for name in expected])
    state = jax.device_put(state, jax.local_devices()[0])
    return jax.tree.map(lambda x, like: jax.random.wrap_key_data(x) if _is_key(like) else x, state, abstract)
