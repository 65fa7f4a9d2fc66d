"""MaskGIT, on a tokenizer that need not be trained for this."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe
from ml_collections import ConfigDict

from jaxvid import core, parallel, pretrained, sample, tokens
from jaxvid import run as run_lib
from jaxvid.completion import TASKS
from jaxvid.core import Method, TrainState
from jaxvid.methods import maskgit
from jaxvid.models.masked import RANKS, halton
from jaxvid.parallel import fold_keys
from jaxvid.pixels import to_uint8
from jaxvid.run import Run

pytestmark = pytest.mark.xdist_group("maskgit")
GRID, PLACES = (2, 4, 4), 32
ORDERS = (*RANKS, "confidence")
ALL, FRAMES = tuple(TASKS), ("first_frames",)
KEYS = jax.random.split(jax.random.key(3), 4)


def config(on: tuple[str, ...] = (), tasks: tuple[str, ...] = ("generation",), **fields) -> ConfigDict:
    """Tiny, on the tokenizer of `vqvae:tiny` as `init` makes it: 8x16x16 clips, 2x4x4 tokens of 32 codes."""
    made = recipe("maskgit:tiny")
    made.tokenizer.config = recipe("vqvae:tiny")
    made.condition.on, made.condition.classes = on, ("left", "right")
    made.condition.first_frames, made.model.tasks = 4, tasks
    made.update_from_flattened_dict(fields)
    return made


def batch(count: int = 4) -> dict[str, jax.Array]:
    video = jax.random.randint(jax.random.key(5), (count, 8, 16, 16, 3), 0, 256).astype(jnp.uint8)
    return {"video": video, "label": jnp.arange(count) % 2}


def tokens_alone(count: int = 4) -> dict[str, jax.Array]:
    """A batch whose tokens are those of a cache: nothing is encoded."""
    return {"tokens": jax.random.randint(jax.random.key(8), (count, *GRID), 0, 32), "label": jnp.arange(count) % 2}


@functools.cache
def trained(on: tuple[str, ...] = (), tasks: tuple[str, ...] = ("generation",)) -> TrainState:
    """After three steps on one batch, so that nothing is uniform any more."""
    method = maskgit.make(config(on, tasks, **{"optim.schedule": "constant_schedule"}))
    state, step = jax.jit(method.init)(jax.random.key(0), batch()), jax.jit(method.train_step)
    for _ in range(3):
        state, metrics = step(state, batch())
    assert np.isfinite(metrics["bits"])
    return state


@functools.cache
def sampler(on: tuple[str, ...], tasks: tuple[str, ...]) -> Callable:
    return jax.jit(maskgit.make(config(on, tasks)).sample)


def videos(given: dict, keys: jax.Array = KEYS) -> np.ndarray:
    """From a model of all tasks."""
    return np.asarray(sampler(FRAMES, ALL)(trained(FRAMES, ALL), given, keys))


@functools.cache
def generator(fields: tuple[tuple[str, Any], ...]) -> Callable:
    setup = maskgit.make_setup(config(("label",), **dict(fields)))
    return jax.jit(functools.partial(maskgit.generate, setup))


def drawn(given: dict, keys: jax.Array = KEYS, *known: jax.Array, **fields) -> np.ndarray:
    """Tokens by label; decoding them takes longer to compile."""
    return np.asarray(generator(tuple(fields.items()))(trained(("label",)), given, keys, *known))


@pytest.mark.parametrize("order", ORDERS)
def test_a_video_depends_on_its_key_and_condition_and_not_on_the_batch_it_is_in(order: str) -> None:
    given = {"label": jnp.array([0, 1, 0, 1])}
    together = drawn(given, **{"sample.order": order})
    others = drawn({"label": jnp.array([1, 1, 0, 0])}, KEYS[jnp.array([3, 1, 2, 2])], **{"sample.order": order})
    np.testing.assert_array_equal(together[2], others[2])
    np.testing.assert_array_equal(together[2], others[3])
    assert (together[0] != together[2]).any()  # of the same label


@pytest.mark.parametrize("order", ORDERS)
def test_at_temperature_0_keys_do_not_matter(order: str) -> None:
    cold = drawn({"label": jnp.zeros(4, int)}, **{"sample.order": order, "sample.temperature": 0.0})
    np.testing.assert_array_equal(cold[0], cold[3])


@pytest.mark.parametrize(("order", "steps"), [("halton", 3), ("random", 1), ("confidence", 5), ("halton", 100)])
def test_known_tokens_stay_and_all_others_are_drawn(order: str, steps: int) -> None:
    hidden = jax.random.bernoulli(jax.random.key(0), jnp.array([0.0, 0.1, 0.5, 1.0])[:, None], (4, PLACES))
    hidden = hidden.reshape(4, *GRID)
    tokens = jnp.where(hidden, -1, jax.random.randint(jax.random.key(1), (4, *GRID), 0, 32))
    given, fields = {"label": jnp.array([0, 1, 0, 1])}, {"sample.order": order, "sample.steps": steps}
    found = drawn(given, KEYS, tokens, hidden, **fields)
    np.testing.assert_array_equal(found[~hidden], tokens[~hidden])
    assert found.min() >= 0 and found.max() < 32
    # What a hidden token was does not matter.
    np.testing.assert_array_equal(found, drawn(given, KEYS, jnp.where(hidden, 7, tokens), hidden, **fields))


def test_options_of_drawing_reach_the_tokens() -> None:
    given = {"label": jnp.zeros(4, int)}
    plain = drawn(given)
    for change in ({"sample.top_k": 32, "sample.top_p": 1.0}, {"sample.guidance": 1.000001}):
        np.testing.assert_array_equal(plain, drawn(given, **change))
    for change in ({"sample.top_k": 1}, {"sample.guidance": 300.0}):
        assert (plain != drawn(given, **change)).any()


def test_the_loss_is_that_of_hidden_tokens_alone_and_targets_are_the_tokens() -> None:
    made, given = config(("label",), **{"model.unguided": 0.0}), tokens_alone()
    setup, state = maskgit.make_setup(made), trained(("label",))
    _, metrics = jax.jit(maskgit.make(made).train_step)(state, given)
    keys = parallel.example_keys(core.step_key(state), 4)
    share = np.array([jax.random.uniform(key) for key in fold_keys(keys, 2)])
    counts = np.maximum(1, np.ceil(PLACES * np.cos(np.pi / 2 * share)))
    permuted = np.stack([jax.random.permutation(key, PLACES) for key in fold_keys(keys, 3)])
    hidden = (permuted < counts[:, None]).reshape(4, *GRID)
    examples = maskgit.inputs(setup, state, given, None)
    logits = jax.jit(lambda params: setup.prior.apply({"params": params}, *examples, hidden=hidden)[0])(
        state.params["prior"]
    )
    log_p = np.asarray(jax.nn.log_softmax(logits))
    nats: list[list[float]] = [[], [], [], []]
    for place in map(tuple, np.argwhere(hidden)):
        nats[place[0]].append(-log_p[place][given["tokens"][place]])
    np.testing.assert_allclose(metrics["loss"], np.mean([np.mean(each) for each in nats]), rtol=1e-5)


def test_exact_bits_are_those_of_a_recount_place_by_place() -> None:
    made, state, given = config(("label",)), trained(("label",)), tokens_alone()
    setup = maskgit.make_setup(made)
    bits = np.asarray(maskgit.exact_bits(made, state, given))
    np.testing.assert_array_equal(bits, maskgit.exact_bits(made, state, given, 1000))
    examples, order = maskgit.inputs(setup, state, given, None), np.argsort(halton(GRID))
    places = [np.unravel_index(place, GRID) for place in order]

    @jax.jit
    def logits(tokens: jax.Array, hidden: jax.Array) -> jax.Array:
        variables = {"params": state.ema["prior"]}
        return setup.prior.apply(variables, tokens, None, examples.conditions, None, hidden)[0]

    for number in (0, 1, 5, 17, 31):
        hidden = np.zeros((4, *GRID), bool)
        for place in places[number:]:
            hidden[:, *place] = True
        found = np.asarray(logits(np.where(hidden, 3, examples.tokens), hidden), np.float64)[:, *places[number]]
        right = found[np.arange(4), np.asarray(given["tokens"])[:, *places[number]]]
        expected = np.log2(np.exp(found).sum(-1)) - right / np.log(2)
        np.testing.assert_allclose(bits[:, *places[number]], expected, rtol=1e-4)


def test_exact_bits_in_any_number_of_steps_are_those_of_a_distribution() -> None:
    """Over all sequences of four tokens of three codes, probabilities sum to one."""
    made = config(**{"data.frames": 4, "data.resolution": 8, "optim.schedule": "constant_schedule"})
    made.tokenizer.config.data.update(frames=4, resolution=8)
    made.tokenizer.config.model.quantizer.codes = 3
    tokens = jnp.stack(jnp.meshgrid(*[jnp.arange(3)] * 4), -1).reshape(81, 1, 2, 2)
    given = {"tokens": tokens, "video": jnp.zeros((81, 4, 8, 8, 3), jnp.uint8)}
    method = maskgit.make(made)
    state, step = jax.jit(method.init)(jax.random.key(0), given), jax.jit(method.train_step)
    for _ in range(5):
        state, _ = step(state, {name: value[::7] for name, value in given.items()})
    found = {steps: np.asarray(maskgit.exact_bits(made, state, given, steps)).sum((1, 2, 3)) for steps in (0, 2, 1)}
    for bits in found.values():
        np.testing.assert_allclose((2.0**-bits).sum(), 1, rtol=1e-4)
        assert np.ptp(bits) > 0.01
    assert np.abs(found[0] - found[1]).max() > 0.01


def test_codes_beyond_the_most_that_are_embedded_are_digits(monkeypatch) -> None:
    monkeypatch.setattr(tokens, "MOST_EMBEDDED", 8)
    made = config(**{"sample.guidance": 2.0}, on=("label",))
    made.tokenizer.config = recipe("vqvae:lfq").copy_and_resolve_references()
    made.tokenizer.config.update(data=recipe("vqvae:tiny").data)
    made.tokenizer.config.model.update(width=16, blocks=1, dim=8)
    made.tokenizer.config.model.quantizer.bits = 5
    method, setup = maskgit.make(made), maskgit.make_setup(made)
    assert setup.prior.digits == (8, 4)
    state = jax.jit(method.init)(jax.random.key(0), batch())
    examples = jax.jit(lambda given: maskgit.inputs(setup, state, given, None))(batch())
    logits = jax.jit(lambda params: setup.prior.apply({"params": params}, *examples))(state.params["prior"])
    found, expected = np.asarray(examples.tokens), np.zeros((4, *setup.tokenizer.grid))
    for each, digit in zip(logits, (found % 8, found // 8), strict=True):
        log_p = np.asarray(jax.nn.log_softmax(each))
        expected -= np.take_along_axis(log_p, digit[..., None], -1)[..., 0] / math.log(2)
    np.testing.assert_allclose(maskgit.exact_bits(made, state, batch(), 1), expected, rtol=1e-5)
    state, metrics = jax.jit(method.train_step)(state, batch())
    assert 4 < metrics["bits"] < 9  # near the 5 of uniform codes
    assert np.isfinite(jax.jit(method.sample)(state, batch(), KEYS)).all()


@pytest.mark.parametrize("known", [1, 4])
def test_first_frames_come_back_as_they_were_given(known: int) -> None:
    first = np.asarray(batch()["video"][:, :known] / 127.5 - 1)
    made = videos({"first_frames": first})
    np.testing.assert_array_equal(made[:, :known], first)
    assert made.shape == (4, 8, 16, 16, 3) and np.abs(made).max() <= 1


def test_known_pixels_come_back_and_unknown_ones_are_not_seen() -> None:
    known = jax.vmap(
        lambda key, task: jax.lax.switch(
            task,
            [
                functools.partial(lambda draw, key: jnp.broadcast_to(draw(key, (8, 16, 16)), (8, 16, 16)), draw)
                for draw in TASKS.values()
            ],
            key,
        )
    )(KEYS, jnp.arange(1, 5))
    video = batch()["video"]
    given = {"given": video, "known": known, "task": jnp.arange(1, 5), "first_frames": video[:, :0]}
    made = videos(given)
    np.testing.assert_array_equal(to_uint8(made)[known], np.asarray(video)[known])
    other = jnp.where(known[..., None], video, 255 - video)
    np.testing.assert_array_equal(made, videos({**given, "given": other}))
    changed = jnp.where(known[..., None], 255 - video, video)
    assert (np.abs(made - videos({**given, "given": changed}))[~known].max()) > 0.01


def test_training_does_not_see_unknown_pixels_but_as_targets() -> None:
    made = config(FRAMES, ALL)
    setup, state, keys = maskgit.make_setup(made), trained(FRAMES, ALL), jax.random.split(jax.random.key(4), 4)
    part = maskgit.drawn(setup, batch(), keys)
    changed = {"video": jnp.where(part.known[..., None], batch()["video"], 0)}
    grid = jax.jit(lambda given: maskgit.known(setup, state, maskgit.drawn(setup, given, keys)))
    grids = [grid(each) for each in (batch(), changed)]
    jax.tree.map(np.testing.assert_array_equal, *grids)
    assert (part.task == maskgit.drawn(setup, changed, keys).task).all()
    share = np.asarray(grids[0].share)
    np.testing.assert_allclose(share, np.asarray(part.known).reshape(4, 2, 4, 4, 4, 4, 4).mean((2, 4, 6)), rtol=1e-6)


def test_it_learns_one_video_and_repeats_it_and_the_tokenizer_stays() -> None:
    fields = {"optim.learning_rate": 1e-2, "train.steps": 80, "optim.ema_decay": 0.5}
    made = config(**{"sample.temperature": 0.0, **fields})
    method = maskgit.make(made)
    one = jax.tree.map(lambda x: x[:1], batch())
    state = jax.jit(method.init)(jax.random.key(0), one)
    before = jax.device_get(pretrained.state_of(state, "tokenizer"))
    step = jax.jit(method.train_step)
    for _ in range(80):
        state, metrics = step(state, one)
    assert metrics["bits"] < 0.1
    after = jax.device_get(pretrained.state_of(state, "tokenizer"))
    jax.tree.map(np.testing.assert_array_equal, (before.params, before.collections), (after.params, after.collections))
    found = jax.jit(method.eval_step)(state, one, jax.random.key(1))
    np.testing.assert_allclose(found.panels["sample"], found.panels["reconstruction"], atol=1e-5)
    assert float(found.scalars["bits"][0]) < 0.1
    assert float(maskgit.exact_bits(made, state, one).mean()) < 0.1


@functools.cache
def of_runs() -> tuple[ConfigDict, Method, TrainState]:
    """Trained on clips of a known distribution, see `runs_of`."""
    made = config(**{"train.steps": 300, "optim.learning_rate": 1e-2})
    method = maskgit.make(made)
    state, step = jax.jit(method.init)(jax.random.key(0), runs_of(0)), jax.jit(method.train_step)
    for number in range(300):
        state, _ = step(state, runs_of(number))
    return made, method, state


@jax.jit
def runs_of(number: int) -> dict[str, jax.Array]:
    """Clips whose tokens are all one of four codes, but each with probability 0.1 the next code: 4 times 2 colors."""
    key = jax.random.key(number)
    base = jax.random.randint(key, (64, 1, 1, 1), 0, 4)
    tokens = 2 * base + jax.random.bernoulli(jax.random.fold_in(key, 1), 0.1, (64, *GRID))
    return {"tokens": tokens, "video": jnp.zeros((64, 8, 16, 16, 3), jnp.uint8)}


def test_bits_come_near_the_entropy_one_by_one_and_in_few_steps_pay_for_it() -> None:
    made, method, state = of_runs()
    given = runs_of(1000)
    noise = float(-np.log2(np.where(given["tokens"] % 2, 0.1, 0.9)).mean())  # of these very clips
    bits = {steps: float(np.mean(maskgit.exact_bits(made, state, given, steps))) for steps in (0, 4, 1)}
    assert abs(bits[0] / (2 / PLACES + noise) - 1) < 0.02
    assert abs(bits[1] / (2 + noise) - 1) < 0.02  # one step: every token by itself
    assert bits[0] < bits[4] < bits[1]
    evaluate = jax.jit(lambda key: method.eval_step(state, given, key).scalars)
    several = [evaluate(jax.random.key(number)) for number in range(8)]  # each of a random part of each clip's tokens
    assert abs(np.mean([found["bits"] for found in several]) / (2 / PLACES + noise) - 1) < 0.06
    exact = maskgit.exact_bits(made, state, given, made.sample.steps).mean((1, 2, 3))
    np.testing.assert_allclose(several[0]["bits_in_steps"], exact, rtol=1e-5)


def test_samples_in_few_steps_are_of_the_distribution() -> None:
    made, _, state = of_runs()
    for order, least in {"halton": 0.9, "confidence": 0.9}.items():
        made.sample.update(order=order, steps=8)
        setup = maskgit.make_setup(made)
        keys = jax.random.split(jax.random.key(0), 64)
        tokens = np.asarray(jax.jit(lambda keys: maskgit.generate(setup, state, {}, keys))(keys)).reshape(64, -1)  # noqa: B023
        base = tokens // 2
        assert ((base == base[:, :1]).mean(1) == 1).mean() > least, order
        assert (np.bincount(base[:, 0], minlength=4) > 4).all()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"sample.steps": 0}, "sample.steps is 0, expected at least 1"),
        ({"sample.order": "haton"}, "sample.order .* did you mean halton"),
        ({"sample.noise": -1.0}, "sample.noise is -1.0"),
        ({"data.tokens": "tokens", "model.tasks": ALL}, "data.tokens names tokens alone"),
        ({"sample.temperature": -1.0}, "sample.temperature is -1.0"),
        ({"model.tasks": ("inpaint",)}, "did you mean inpainting"),
        ({"model.tasks": ("inpainting",)}, "add generation to model.tasks"),
        ({"condition.on": ("first_frames",)}, "add prediction to model.tasks"),
        ({"model.network": "transformr"}, "model.network .* did you mean transformer"),
        ({"model.heads": 3}, "model.width is 32, expected a multiple of 6: twice model.heads"),
        ({"sample.guidance": 2.0}, "sample.guidance is 2.0, .* without a label or a text"),
    ],
)
def test_what_cannot_work_is_one_sentence(fields: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        maskgit.make(config(**fields))


def test_frames_that_are_not_known_are_not_pasted_and_where_nothing_is_known_the_task_is_generation() -> None:
    clip, known = batch()["video"], jnp.broadcast_to(jnp.arange(8)[:, None, None] < 1, (4, 8, 16, 16))
    given = {"given": clip, "known": known, "task": jnp.ones(4, int), "first_frames": clip[:, :0]}
    made = videos(given)
    same = np.abs(made - (np.asarray(clip) / 127.5 - 1)).max((0, 2, 3, 4)) < 1e-6
    assert same.tolist() == [True] + 7 * [False]
    setup = maskgit.make_setup(config(FRAMES, ALL))
    for count, task in ((0, 0), (2, 1)):
        assert (maskgit.asked(setup, {"first_frames": clip[:, :count]}, 4).task == task).all()


def test_exact_bits_need_a_step() -> None:
    with pytest.raises(ValueError, match="steps is -1, expected at least 1"):
        maskgit.exact_bits(config(), trained(("label",)), batch(), -1)


def test_videos_are_completed_from_the_command_line(tmp_path: Path, capsys, monkeypatch) -> None:
    made = config(("label",), ("generation", "prediction", "interpolation", "inpainting"))
    run_as_trained = Run(made, maskgit.make(made), trained(("label",), made.model.tasks))
    monkeypatch.setattr(run_lib, "load", lambda workdir: run_as_trained)
    workdir = tmp_path / "run"
    workdir.mkdir()
    (workdir / "config.json").write_text(made.to_json_best_effort())
    clip = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    np.save(tmp_path / "clip.npy", clip)

    def run(*words: str) -> tuple[int, str]:
        code = sample.main(["--workdir", str(workdir), "--output", str(tmp_path), "--num", "2", *words])
        return code, capsys.readouterr().err

    given = ("--video", str(tmp_path / "clip.npy"), "--label", "left")
    assert run("--mode", "interpolate", *given, "--keep", "2", "--steps", "2", "--batch_size", "3")[0] == 0
    with np.load(tmp_path / "interpolations.npz") as found:
        np.testing.assert_array_equal(found["video"][:, [0, 1, 6, 7]], np.stack([clip[[0, 1, 6, 7]]] * 2))
        assert (found["video"][0] != found["video"][1]).any() and (found["given"][:, 2:6] == 128).all()
    np.save(tmp_path / "short.npy", clip[:3])
    short = ("--mode", "predict", "--video", str(tmp_path / "short.npy"), "--steps", "1")
    assert run(*short, "--keep", "2")[0] == 0
    with np.load(tmp_path / "predictions.npz") as found:
        np.testing.assert_array_equal(found["video"][:, :2], np.stack([clip[:2]] * 2))
        assert found["video"].shape == (2, 8, 16, 16, 3) and "original" not in found
    code, error = run(*short, "--keep", "4")
    assert code == 2 and "short.npy is [3, 16, 16, 3], expected [T,h,w,3] or [n,T,h,w,3], T at least 4" in error
    for words, sentence in {
        ("--mode", "outpaint"): "trained for generation, prediction, interpolation, inpainting, and not for outp",
        ("--mode", "interpolate", "--keep", "4"): "--keep is 4",
        ("--mode", "inpaint", "--box", "0", "0.5", "1", "0.5"): "--box is 0.0 0.5 1.0 0.5, which holds no pixel",
        ("--mode", "inpaint", "--box", "nan", "0", "1", "1"): "expected top, left, bottom and right",
        ("--mode", "inpaint", "--first_frames", str(tmp_path / "clip.npy")): "leave --first_frames out",
    }.items():
        code, error = run(*words, *given)
        assert code == 2 and sentence in error
