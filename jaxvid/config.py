"""Recipes as configs, the fields that all of them share, and checks of a config before it runs."""

import ast
import json
import os
import traceback
from collections.abc import Callable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from ml_collections import ConfigDict

from jaxvid.names import choice, nearest

Result = TypeVar("Result")

# The recipes of jaxvid: in an installed package, or beside it in a clone.
_PLACES = Path(__file__).with_name("configs"), Path(__file__).parents[1] / "configs"
RECIPES = _PLACES[0] if _PLACES[0].is_dir() else _PLACES[1]

# A run can resume under another value of these; all others would make it another run.
MAY_CHANGE = (
    "data.path",  # where the data lie; what they are is compared by `run.check_data`
    "data.tokens",
    "train.steps",
    "train.parallel",
    "train.shard",
    "train.workers",
    "train.log_every",
    "train.save_every",
    "train.keep",
    "train.wandb",
    "eval",
    "sample",
)

# Of the fields that all recipes share, what a value of another type is answered with.
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", tuple: "a tuple"}
WORKERS = 16  # processes that load data, at most, for each core

AT_LEAST_ONE = (
    *("data.frames", "data.resolution", "data.stride", "train.steps", "train.batch_size", "train.log_every"),
    *("train.save_every", "train.keep", "eval.every", "eval.examples", "eval.videos"),
)


def recipe(name: str | os.PathLike[str]) -> ConfigDict:
    """The config of a recipe: of jaxvid's by name, "vqvae:tiny", or of any file, "configs/vqvae.py:tiny".

    What stands behind the colon is the variant, one of the recipe's `VARIANTS`; without one it is the default.

    Raises ValueError, in one sentence: there is no such recipe or variant, or the recipe fails.
    """
    name = os.fspath(name)
    path, module = recipe_path(name), recipe_module(name)
    if not callable(getattr(module, "get_config", None)):
        raise ValueError(f"--config {path} is no recipe: it has no function get_config(variant).")
    variant = name.partition(":")[2]
    config = _attempted(path, lambda: module.get_config(variant) if variant else module.get_config())
    if not isinstance(config, ConfigDict):
        raise ValueError(f"--config {path} is a recipe whose get_config returns no ConfigDict.")
    return config


def recipes() -> dict[str, str]:
    """The paths of jaxvid's recipes, by name: {"acgan": ".../acgan.py", ...}."""
    return {path.stem: str(path) for path in sorted(RECIPES.glob("*.py"))}


def recipe_path(name: str) -> str:
    """The path of the file of a recipe, whatever its variant. Raises ValueError where there is none."""
    known, path = recipes(), os.path.expanduser(name.partition(":")[0])
    if path in known or Path(path).is_file():
        return known.get(path, path)
    near = nearest(Path(path).stem, known)
    raise ValueError(f"--config {path} is no recipe and no file: did you mean {near}? --config list shows all.")


def recipe_module(name: str) -> ModuleType:
    """The file of a recipe as a module, with its `VARIANTS`. Raises ValueError as `recipe`."""
    path = recipe_path(name)
    module = ModuleType(Path(path).stem)
    module.__file__ = path
    _attempted(path, lambda: SourceFileLoader(module.__name__, path).exec_module(module))
    return module


def default_workdir(name: str) -> Path:
    """Where a recipe's runs lie unless told otherwise: vqvae:tiny and configs/vqvae.py:tiny -> runs/vqvae_tiny."""
    path, _, variant = name.partition(":")
    return Path("runs") / "_".join(filter(None, (Path(path).stem, variant)))


def recipe_of(workdir: str) -> str:
    """The name of jaxvid's recipe that has this default work folder, runs/vqvae_tiny -> vqvae:tiny, or ""."""
    for name in recipes():
        for variant in ("", *getattr(recipe_module(name), "VARIANTS", ())):
            if default_workdir(f"{name}:{variant}") == Path(workdir):
                return f"{name}:{variant}".rstrip(":")
    return ""


def _attempted(path: str, work: Callable[[], Result]) -> Result:
    """What the recipe's code returns; a ValueError in one sentence where it fails. Its own ones it words itself."""
    try:
        return work()
    except SyntaxError as error:
        where = f"line {error.lineno}, {error.msg}" if error.lineno else error.msg
        raise ValueError(f"--config {error.filename or path} is no recipe in Python: {where}.") from error
    except ValueError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f", line {lines[-1]}," if lines else ""
        what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(" .:")
        raise ValueError(f"--config {path}{where} is a recipe that fails with {what}.") from error


def base() -> ConfigDict:
    """The fields that the loop and the data read, with their defaults; a recipe adds `method`, `model`, `optim`."""
    config = ConfigDict()
    config.data = ConfigDict()
    config.data.name = "synthetic"  # synthetic, moving_mnist, folder, records or tfds
    config.data.path = ""  # the folder of videos, records or MNIST files
    config.data.dataset = ""  # the name of a TFDS data set
    config.data.frames = 16  # of a clip
    config.data.resolution = 64  # pixels of its height and width
    config.data.label = "class"  # what the synthetic source labels: class, color or style
    config.data.direction = "AtoB"  # of a layout of two sides; "BtoA" swaps `input` and `video`
    config.data.layout = (
        "classes"  # of a folder or the synthetic source, for translation: LAYOUTS in jaxvid/data/layouts.py
    )
    config.data.attributes = ()  # of the layout "attributes": those that are domains; (): none, all are a condition
    config.data.stride = 1  # every stride-th frame
    config.data.fps = 0.0  # frames per second of the clips, instead of a stride; 0: by stride
    config.data.holdout = 0.1  # share of a folder's files kept for evaluation
    config.data.tokens = ""  # of a prior: a folder of jaxvid.tokenize, whose tokens it learns in place of videos
    config.train = ConfigDict()
    config.train.steps = 1000  # in all
    config.train.batch_size = 8  # over all devices
    config.train.seed = 0  # of parameters, noise and the order of clips
    config.train.parallel = "jit"  # or "pmap"
    config.train.shard = False  # distribute optimizer states and averaged parameters over the devices, to save memory
    config.train.workers = 0  # processes that load data; 0: threads alone
    config.train.log_every = 10  # steps
    config.train.save_every = 100  # steps
    config.train.keep = 2  # checkpoints
    config.train.wandb = ""  # a project of Weights & Biases that gets the logs too
    config.eval = ConfigDict()
    config.eval.every = 100  # steps
    config.eval.examples = 64  # held-out clips
    config.eval.videos = 8  # drawn at each evaluation
    config.eval.metrics = ()  # of samples and reconstructions, at each evaluation: names in jaxvid/evaluate/suite.py
    config.eval.optional = ()  # metrics as well, but for those that cannot work or lack their weights
    config.eval.protocols = ()  # of fid and fvd: names in jaxvid/metrics/protocol.py
    return config


def optimizer(learning_rate: float, **fields: Any) -> ConfigDict:
    """The fields of `optim.make_optimizers`, with defaults: Adam at a constant rate, gradients clipped to norm 1."""
    options = ConfigDict()
    options.name = "adam"  # a function in optax
    options.arguments = ConfigDict()  # of that function: --config.optim.arguments.b1=0.5
    options.learning_rate = learning_rate  # the highest of the schedule
    options.schedule = "constant_schedule"  # a function in optax.schedules
    options.schedule_arguments = ConfigDict()  # of that function: --config.optim.schedule_arguments.warmup_steps=50
    options.clip = 1.0  # global norm; 0: no clipping
    options.accumulate = 1  # train steps per optimizer step
    options.ema_decay = 0.99  # of the parameters that are evaluated
    # The fields in which a player differs from the others: --config.optim.players.encoder.learning_rate=2e-4.
    options.players = ConfigDict()
    options.update(fields)
    return options


def tiny(config: ConfigDict) -> None:
    """Shrinks data and numbers of steps of a recipe to what tests run in seconds; its networks it shrinks itself."""
    config.data.update(frames=8, resolution=16, stride=1)
    config.train.update(steps=20, batch_size=8, log_every=1, save_every=10)
    config.eval.update(every=10, examples=12, videos=4)


def condition(on: tuple[str, ...] = (), **fields: Any) -> ConfigDict:
    """The fields of `jaxvid.conditions`, with defaults: what videos are generated from."""
    options = ConfigDict()
    options.on = on  # some of label, attributes, text, first_frames, action and input, see conditions.TABLE
    options.features = 64  # of the vector that encodes them
    options.first_frames = 1  # how many
    options.words = 24  # of a caption that are read
    options.left_out = 0.0  # share of the clauses after a training caption's first, so that short captions work too
    options.embeddings = ""  # an .npz with text [N] and embedding [N, E], used instead of a trained text encoder
    options.classes = ()  # this field and the next four are filled in from the training data
    options.attributes = ()  # names of what a picture has or has not
    options.vocabulary = ()
    options.actions = 0  # components of an action
    options.action_scale = ()  # the root mean square of each
    for field in fields:
        choice("a field of condition", field, options)
    options.update(fields)
    return options


def check_fields(config: ConfigDict) -> None:
    """Raises ValueError for what is no config, or where one of the fields of `base` is missing or of another type."""
    if not isinstance(config, ConfigDict):
        raise ValueError(f'config is a {type(config).__name__}, expected what jaxvid.config.recipe("vqvae") returns.')
    fields = flatten(config)
    for field, default in {"method": "vqvae", **flatten(base())}.items():
        value, kind = fields.get(field), type(default)
        if type(value) is not kind and not (kind is float and type(value) is int):
            found = f"is {abbreviated(value)}" if field in fields else "is missing"
            raise ValueError(
                f"{field} {found} in the config, expected {KINDS[kind]} such as {default!r}: begin a recipe with "
                "jaxvid.config.base(), and set its fields."
            )


def check(config: ConfigDict, devices: int) -> None:
    """Raises ValueError for what cannot work on this many devices, before anything is built."""
    fields = flatten(config)
    for field in AT_LEAST_ONE:
        if not 1 <= fields[field] < 2**31:
            raise ValueError(f"{field} is {fields[field]}, expected at least 1 and below 2^31.")
    most = WORKERS * (os.cpu_count() or 1)
    if not 0 <= config.train.workers <= most:
        raise ValueError(f"train.workers is {config.train.workers}, expected 0 (threads alone) to {most} here.")
    if not 0 <= config.train.seed < 2**32:
        raise ValueError(f"train.seed is {config.train.seed}, expected at least 0 and below 2^32.")
    if config.train.shard and config.train.parallel == "pmap":
        raise ValueError('train.shard needs train.parallel "jit": under pmap every device keeps a whole state.')
    if config.data.fps < 0:
        raise ValueError(f"data.fps is {config.data.fps}, expected 0 (by stride) or more.")
    if not 0 < config.data.holdout < 1:
        raise ValueError(f"data.holdout is {config.data.holdout}, expected a share between 0 and 1.")
    size = config.train.batch_size
    if size % devices:
        fits = max(1, round(size / devices)) * devices
        raise ValueError(f"train.batch_size {size} is not divisible by the {devices} devices; {fits} is the nearest.")


def to_dict(config: ConfigDict) -> dict[str, Any]:
    """Plain dicts, lists and numbers, as they come back from JSON."""
    return json.loads(config.to_json_best_effort())


def from_dict(fields: Mapping[str, Any]) -> ConfigDict:
    """The inverse of `to_dict`: lists become tuples."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return tuple(map(plain, value)) if isinstance(value, list) else value

    return ConfigDict(plain(fields))


def literal(text: str) -> Any:
    """The value that a text spells: a number, a tuple, true, false, None, ...; the text itself where it spells none."""
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """{"train.steps": 100, ...}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        nested = isinstance(value, Mapping | ConfigDict) and len(value) > 0
        flat |= flatten(value, f"{prefix}{name}.") if nested else {f"{prefix}{name}": value}
    return flat


def differences(saved: Mapping[str, Any], present: Mapping[str, Any]) -> list[str]:
    """One line per field that differs and may not change within a run. Both are as from `to_dict`.

    A run from before a field of `base`, or of the `condition` that it has, existed counts as one with its default.
    """
    defaults = base()
    if saved.get("condition"):
        defaults.condition = condition()
    before, now = flatten(to_dict(defaults)) | flatten(saved), flatten(present)
    found = []
    for name in sorted(before.keys() | now.keys()):
        old, new = (fields.get(name, "(absent)") for fields in (before, now))
        if old != new and not any(f"{name}.".startswith(f"{free}.") for free in MAY_CHANGE):
            found.append(f"  {name}: the run has {abbreviated(old)}, the config now says {abbreviated(new)}")
    return found


def abbreviated(value: Any) -> str:
    """A value as text, cut after 200 characters, with its length behind."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(value):,} in all)"
