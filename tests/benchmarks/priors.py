"""Priors over tokens: training steps beside PyTorch's, and sampling with a cache beside sampling without, by turns.

    python tests/benchmarks/priors.py [--rounds 5] [--seconds 1] [--compiled]

The transformer of VideoGPT (Yan et al., 2021): 1,024 tokens of 4x16x16 places, width 264, 8 layers, 4 heads, batches of
4 videos, float32, 2 threads on the CPU. Prints seconds and tokens/s of each form, the median of the paired ratios with
its range, and what sampling with the cache reads from memory, as a share of what a large copy moves in the same rounds.

PyTorch has the same layout with its fused attention, and, as VideoGPT's code has it, with scores that are written down.
A step is jaxvid's whole one with tokens given: forward, backward, clipping, AdamW, the average, norms of gradients.
"""

from __future__ import annotations

import argparse
import functools
import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved, normal, paired, repeated
from workloads import recipe

from jaxvid import core, optim, parallel, priors, tokens
from jaxvid.methods import autoregressive, maskgit
from jaxvid.models.masked import MaskedPrior
from jaxvid.models.prior import Prior
from jaxvid.priors import PRIOR, TOKENIZER, Setup

COPIED = 2**27  # numbers in a large copy
# By recipe: its method, and what makes its network.
FAMILIES: dict[str, tuple[Any, Callable[..., Prior]]] = {
    "transformer": (autoregressive, Prior),
    "maskgit": (maskgit, functools.partial(MaskedPrior, tasks=1)),
}


class Size(NamedTuple):
    """A transformer over tokens, and a batch of them; by default VideoGPT's."""

    batch: int = 4
    grid: tuple[int, int, int] = (4, 16, 16)
    codes: int = 1024
    width: int = 264
    layers: int = 8
    heads: int = 4
    dtype: str = "float32"

    @property
    def places(self) -> int:
        return math.prod(self.grid)


TINY = Size(batch=2, grid=(2, 2, 2), codes=16, width=16, layers=1, heads=2)


class Workload(NamedTuple):
    """What the steps and the sampling of a prior's method take."""

    method: Any  # its module
    setup: Setup
    state: core.TrainState
    batch: dict[str, jax.Array]


def workload(size: Size, family: str = "transformer") -> Workload:
    """An unconditional prior of one of FAMILIES over random tokens, of a tokenizer that is never called."""
    method, kind = FAMILIES[family]
    fields = {name: getattr(size, name) for name in ("width", "layers", "heads", "dtype")}
    config = recipe(family, {f"model.{name}": value for name, value in fields.items()} | {"condition.on": ()})
    tokenizer = tokens.Tokenizer(size.grid, (1, 1, 1), False, (size.codes,), None, None)
    setup = Setup(
        config=config,
        tokenizer=tokenizer,
        prior=priors.make_prior(config, tokenizer, method.NETWORKS, kind),
        drawing=tokens.make_drawing(config.sample),
        optimizers=optim.make_optimizers(config.optim, {PRIOR: config.train.steps}),
        axis_name=None,
    )
    batch = {"tokens": jnp.asarray(random_tokens(size))}
    mesh = parallel.make_mesh(jax.devices()[:1])
    state = parallel.make_init(functools.partial(started, setup), mesh)(jax.random.key(0), batch)
    return Workload(method, setup, state, batch)


def random_tokens(size: Size) -> np.ndarray:
    return np.random.default_rng(0).integers(0, size.codes, (size.batch, *size.grid), np.int32)


def started(setup: Setup, key: jax.Array, batch: dict[str, jax.Array]) -> core.TrainState:
    """The state at step 0, as `priors.init` makes it, of a tokenizer without parameters."""
    players: dict[str, Any] = {TOKENIZER: {}}
    frozen = core.new_state(key, players, {}, {TOKENIZER: {}})
    one = priors.inputs_of(setup, frozen, {"tokens": batch["tokens"][:1]}, None)
    players[PRIOR] = setup.prior.init(key, *one)["params"]
    return core.new_state(key, players, setup.optimizers, {TOKENIZER: {}}, averaged=(PRIOR,))


def train_step(work: Workload) -> Callable:
    """(state, batch) -> (state, metrics): that of the method."""
    return functools.partial(work.method.train_step, work.setup)


def training_step(size: Size) -> Callable[..., Any]:
    """run(steps=1): trains so many steps on one batch, and blocks at the end; compiled and warm."""
    work = workload(size)
    step = parallel.make_step(train_step(work), parallel.make_mesh(jax.devices()[:1]))
    state, batch = work.state, work.batch

    def run(steps: int = 1) -> None:
        nonlocal state
        for _ in range(steps):
            state, metrics = step(state, batch)
        jax.block_until_ready((state, metrics))

    run()
    return run


def sampling(work: Workload) -> Callable[..., Any]:
    """run(times=1): draws all tokens of a batch of videos so often, the transformer with its cache; compiled, warm."""
    keys = jax.random.split(jax.random.key(0), len(work.batch["tokens"]))
    generate = functools.partial(work.method.generate, work.setup)
    return repeated(generate, work.state, {}, keys, options=parallel.compiler_options())


def sampling_without_cache(work: Workload) -> Callable[..., Any]:
    """run(times=1): draws one token of each video so often, each time from the features of all places."""
    prior, variables = work.setup.prior, {"params": core.sampled_params(work.state, PRIOR)}
    known = autoregressive.inputs(work.setup, work.state, work.batch)
    uniform, place = jnp.full(len(known.tokens), 0.5), jnp.int32(known.tokens[0].size // 2)

    def one(variables: Any, known: Any, place: jax.Array) -> jax.Array:
        def features(module: Any) -> jax.Array:
            context = module.context(None, {}, jnp.ones(len(uniform), bool))
            found = module.network(module.embed(known.tokens), context)
            return module.logits(found.reshape(len(uniform), -1, module.width)[:, place], [])

        return tokens.draw(prior.apply(variables, method=features), uniform, work.setup.drawing)

    return repeated(one, variables, known, place, options=parallel.compiler_options())


def bytes_a_place(work: Workload) -> float:
    """Bytes that sampling with the cache must read for each place: the parameters of the network, the embeddings for
    the logits, and the keys and values of the places of the frames so far, averaged over the places.
    """
    prior, (frames, *frame), batch = work.setup.prior, work.setup.tokenizer.grid, len(work.batch["tokens"])
    params = work.state.params[PRIOR]
    read = sum(leaf.size for leaf in jax.tree.leaves({name: params[name] for name in ("network", "codes_0")}))
    cached = 2 * prior.network.layers * batch * prior.width * math.prod(frame) * (frames + 1) / 2
    return (read + cached) * jnp.dtype(prior.dtype).itemsize


def main() -> None:
    from steps import THREADS, find_peers, limit_threads

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each form")
    parser.add_argument("--seconds", type=float, default=1.0, help="time for each form in a round, or one call of it")
    parser.add_argument("--compiled", action="store_true", help="PyTorch's compiled step, too; needs a C++ compiler")
    arguments = parser.parse_args()
    limit_threads()
    torch, _ = find_peers()
    size = Size()
    versions = f"JAX {jax.__version__}" + (f", PyTorch {torch.__version__}" if torch else "")
    print(f"{versions}, float32, {THREADS} threads, medians of {arguments.rounds} rounds by turns")
    forms: dict[str, Callable[[], Any]] = {"step, jaxvid": training_step(size)}
    if torch:
        from peers import gpt

        given, layout = torch.from_numpy(random_tokens(size)), (size.codes, size.width, size.layers, size.heads)
        forms["step, PyTorch"] = gpt(given, *layout)
        if arguments.compiled:
            forms["step, PyTorch, compiled"] = gpt(given, *layout, compiled=True)
            forms["step, PyTorch, compiled"]()
        forms["step, PyTorch, as published"] = gpt(given, *layout, fused=False)
    times = interleaved(forms, arguments.rounds, arguments.seconds)
    print_rows(times, dict.fromkeys(forms, size.batch * size.places))
    ours, *others = times
    for other in others:
        print(f"{ours} / {other}: {paired(times[ours], times[other])}")
    work = workload(size)
    x = normal(0, (COPIED,))
    forms = {"sampling, cached": sampling(work), "sampling, uncached": sampling_without_cache(work)}
    drawn = {"sampling, cached": size.batch * size.places, "sampling, uncached": size.batch}
    times = interleaved({**forms, "copy": repeated(lambda x: x + 1, x)}, arguments.rounds, arguments.seconds)
    copies = times.pop("copy")
    print_rows(times, drawn)
    cached, uncached = ([seconds / drawn[name] for seconds in each] for name, each in times.items())
    print(f"tokens/s, cached / uncached: {paired(uncached, cached)}")
    rate = size.places * bytes_a_place(work) / statistics.median(times["sampling, cached"])
    copied = 2 * x.nbytes / statistics.median(copies)
    print(
        f"cached sampling reads {1e-9 * rate:.1f} GB/s, {rate / copied:.0%} of the {1e-9 * copied:.1f} GB/s of a copy"
    )


def print_rows(times: dict[str, list[float]], count: dict[str, int]) -> None:
    for name, each in times.items():
        seconds = statistics.median(each)
        print(f"{name:<28}{1e3 * seconds:>10.1f} ms{count[name] / seconds:>12.1f} tokens/s", flush=True)


if __name__ == "__main__":
    main()
