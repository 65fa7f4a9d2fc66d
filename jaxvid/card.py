"""The model card of an exported run: README.md with the front matter that the Hugging Face hub reads."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

import jaxvid
from jaxvid.conditions import TABLE
from jaxvid.core import Method, TrainState, find_method
from jaxvid.names import plural

NAMED = 20  # classes or attributes that are listed


class Facts(NamedTuple):
    """What a card tells of a run, besides its method and its state."""

    name: str  # of the folder, or hf://user/name
    config: ConfigDict  # that is exported: without what is private
    scores: Mapping[str, Any]  # content of scores.json: `step`, `heldout` {name: mean} and `scores`
    data: Mapping[str, Any]  # by split the numbers of clips and classes
    picture: str = ""  # path of one relative to the card
    license: str = "unknown"  # of the parameters, as the hub spells it


def card(facts: Facts, method: Method, state: TrainState) -> str:
    """The text of README.md."""
    picture = f"![What the run shows at an evaluation]({facts.picture})" if facts.picture else ""
    parts = {
        "": "\n\n".join(filter(None, [_introduction(facts, state), picture])),
        "Use": _use(facts, method),
        "Data": _data(facts),
        "Training": _training(facts, method, state),
        "Scores": _scores(facts),
        "Limits": _limits(facts, method, state),
    }
    sections = [f"## {title}\n\n{text}" if title else text for title, text in parts.items() if text]
    return "\n\n".join([_front_matter(facts), f"# {facts.name.rpartition('/')[2]}", *sections]) + "\n"


def _front_matter(facts: Facts) -> str:
    """YAML; its values are written as JSON, of which every string is one of YAML too."""
    metrics = [score["metric"] for score in facts.scores["scores"]] or sorted(facts.scores["heldout"])
    lists = {"tags": ["video-generation", "jax", "flax", facts.config.method], "metrics": list(dict.fromkeys(metrics))}
    lines = [f"license: {json.dumps(facts.license)}", "library_name: jaxvid"]
    for field, values in lists.items():
        lines += [f"{field}:", *(f"- {json.dumps(value)}" for value in values)] if values else []
    return "\n".join(["---", *lines, "---"])


def _introduction(facts: Facts, state: TrainState) -> str:
    about = (find_method(facts.config.method).__doc__ or "").strip().partition("\n\n")[0].replace("\n", " ")
    counts = {player: sum(leaf.size for leaf in jax.tree.leaves(part)) for player, part in state.params.items()}
    players = ", ".join(f"{player} {count:,}" for player, count in counts.items())
    return (
        f"{about} A run of `{facts.config.method}`, made with jaxvid {jaxvid.__version__}. "
        f"{sum(counts.values()):,} parameters: {players}."
    )


def _use(facts: Facts, method: Method) -> str:
    """How it is loaded and used, in Python and on the command line."""
    size, given = facts.config.data, _given(facts.config)
    clip = f"{size.frames}, {size.resolution}, {size.resolution}, 3"
    values = "".join(f", {name}={value}" for name, (value, _) in given.items())
    words = "".join(f" --{TABLE[name].option} {word}" for name, (_, word) in given.items())
    modules, calls, commands = ["run"], [f"trained = run.load({json.dumps(facts.name)})"], []
    sample = f"python -m jaxvid.sample --workdir {facts.name}"
    if method.sample:
        calls.append(f"videos = sample.draw(trained, 4, seed=0{values})  # float32 [4, {clip}] in [-1, 1]")
        commands.append(f"{sample} --num 4{words}")
    if method.translation:
        to = method.translation.targets[0]
        calls.append(
            f"translation = translate.translate_video(trained, video, to={json.dumps(to)})  # of any size and length"
        )
        translate = f"python -m jaxvid.translate --workdir {facts.name} --input PATH --output DIR"
        commands.append(f"{translate} --to {shlex.quote(to)}")
    elif method.reconstruct:
        calls.append(f"reconstruction = sample.reconstruct(trained, video{values})")
        commands.append(f"{sample} --mode reconstruct --video PATH{words}")
    path = " --path PATH_OF_THE_DATA" if size.path else ""
    commands.append(f"python -m jaxvid.evaluate --workdir {facts.name}{path}")
    text = "\n".join(calls)
    modules += [module for module in ("sample", "translate") if f"{module}." in text]
    if "trained, video" in text or "=video" in text:
        calls.insert(1, f"video = np.zeros((1, {clip}), np.uint8)  # yours, uint8 or in [-1, 1]")
    lines = [f"from jaxvid import {', '.join(modules)}", "", *calls]
    if "np." in "\n".join(lines):
        lines.insert(0, "import numpy as np")
    python, shell = "\n".join(lines), "\n".join(commands)
    return f"`pip install 'jaxvid[hub]'`, then\n\n```python\n{python}\n```\n\n```sh\n{shell}\n```"


def _given(config: ConfigDict) -> dict[str, tuple[str, str]]:
    """By condition, an example of what a user gives, in Python and on the command line."""
    options = config.get("condition") or ConfigDict({"on": ()})
    found = {}
    for name in options.on:
        values = {
            "label": json.dumps(next(iter(options.classes), "")),
            "attributes": json.dumps(next(iter(options.attributes), "")),
            "text": '"a caption"',
            "first_frames": f"video[0, :{options.first_frames}]",
            "action": f"np.zeros(({config.data.frames}, {options.actions}))",
            "input": "video[0]",
        }
        word = json.loads(values[name]) if values[name][0] == '"' else ""
        found[name] = (values[name], shlex.quote(word) if word else TABLE[name].metavar)
    return found


def _data(facts: Facts) -> str:
    data = facts.config.data
    names = " ".join(filter(None, (data.get(field, "") for field in ("name", "dataset", "path"))))
    every = f"{data.fps:g} a second" if data.fps else f"every {data.stride}th" if data.stride > 1 else "all"
    clips = f"Clips of {plural(data.frames, 'frame')} ({every}) of {data.resolution}x{data.resolution} pixels"
    counts = ", ".join(f"{split} {plural(each['clips'], 'clip')}" for split, each in facts.data.items())
    options = facts.config.get("condition") or ConfigDict({"on": ()})
    told = [f"Generated from {', '.join(options.on)}."] if options.on else []
    for kind in ("classes", "attributes"):
        if listed := options.get(kind, ()):
            others = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
            told.append(f"{kind.capitalize()}: {', '.join(listed[:NAMED])}{others}.")
    return " ".join([f"{clips} from {names}{f': {counts}' if counts else ''}.", *told])


def _training(facts: Facts, method: Method, state: TrainState) -> str:
    train, step = facts.config.train, int(state.step)
    ended = "" if step >= train.steps else f" of {train.steps:,} planned ones"
    text = (
        f"{step:,} steps{ended} of {plural(train.batch_size, 'clip')}, seed {train.seed}; `config.json` has the rest."
    )
    for player, entry in method.frozen.items():
        text += (
            f" The frozen {player} is a {entry.config.method} after {entry.step:,} steps "
            f"(SHA-256 {entry.sha256[:16]}), and part of the file."
        )
    return text


def _scores(facts: Facts) -> str:
    """A table of scores with their sentences, and one of means over held-out clips."""
    scores, means = facts.scores["scores"], facts.scores["heldout"]
    rows = []
    for score in scores:
        interval = "{:.5g} to {:.5g}".format(*score["interval"]) if score.get("interval") else "-"
        rows.append((score["metric"], _number(score["value"]), interval))
    texts = [_table(("metric", "value", "95 % interval"), rows)] if rows else []
    texts += ["\n".join(f"- {score['citation']}" for score in scores if score.get("citation"))]
    if means:
        texts.append(_table(("held-out", "mean"), [(name, _number(mean)) for name, mean in sorted(means.items())]))
    found = "\n\n".join(filter(None, texts))
    return f"At step {facts.scores['step']:,}.\n\n{found}" if found else ""


def _limits(facts: Facts, method: Method, state: TrainState) -> str:
    """What is true of every run, and what the method warns of at the last evaluation."""
    data = facts.config.data
    limits = [
        "It makes what its training data show, with their gaps and biases, and nothing filters what it makes.",
        f"It was trained on clips of {data.frames}x{data.resolution}x{data.resolution}; of others it has seen none.",
        "The optimizers' states are not part of it: training cannot be resumed from it.",
    ]
    if facts.license == "unknown":
        limits.append("No license was stated for the parameters: ask those who trained them.")
    means = {name: value for name, value in facts.scores["heldout"].items() if value is not None}
    try:
        limits += method.warnings(means) if means else []
    except KeyError:  # an evaluation of an older version, which measured something else
        pass
    return "\n".join(f"- {limit[0].upper()}{limit[1:]}" for limit in limits)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.5g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
