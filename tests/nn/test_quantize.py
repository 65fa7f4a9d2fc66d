"""Quantizers against plain numpy, on one device and on eight."""

from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid.nn import quantize
from jaxvid.nn.quantize import FSQ, LFQ, EMAVectorQuantizer, VectorQuantizer, code_counts

ALL = {
    "ema": EMAVectorQuantizer(codes=6, dim=3, revive_below=0.5),
    "vq": VectorQuantizer(codes=6, dim=3),
    "fsq": FSQ(levels=(4, 5, 2)),
    "lfq": LFQ(bits=3, anneal_steps=4),
}
SHAPE = (2, 3, 4, 4, 3)  # one shape for most tests, so that each quantizer compiles once
every_quantizer = pytest.mark.parametrize("quantizer", ALL.values(), ids=ALL)


def latents(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@partial(jax.jit, static_argnums=0)
def initial(quantizer, z):
    return quantizer.init(jax.random.key(0), z, True)


@partial(jax.jit, static_argnames=("quantizer", "train"))
def apply(quantizer, variables, z, train=True, seed=1):
    """(Quantized, changed collections) of one call."""
    return quantizer.apply(variables, z, train, rngs={"quantizer": jax.random.key(seed)}, mutable=["codebook"])


def trained(quantizer, z, steps=1):
    variables = initial(quantizer, z)
    for step in range(steps):
        variables = {**variables, **apply(quantizer, variables, z, seed=step)[1]}
    return variables


@every_quantizer
def test_looks_up_what_it_returned(quantizer):
    z = latents(0, *SHAPE)
    variables = trained(quantizer, z)
    out, _ = apply(quantizer, variables, z, train=False)
    assert out.quantized.shape == z.shape and out.indices.shape == z.shape[:-1] and out.indices.dtype == jnp.int32
    assert 0 <= int(out.indices.min()) and int(out.indices.max()) < quantizer.codebook_size
    assert len(np.unique(out.indices)) > 3
    np.testing.assert_array_equal(quantizer.apply(variables, out.indices, method="lookup"), out.quantized)
    counts = np.bincount(np.ravel(out.indices))
    shares = counts[counts > 0] / counts.sum()
    np.testing.assert_allclose(out.metrics["perplexity"], np.exp(-(shares * np.log(shares)).sum()), rtol=1e-5)


@every_quantizer
def test_gradient_passes_straight_through(quantizer):
    z, weights = latents(0, *SHAPE), latents(1, *SHAPE)
    variables = trained(quantizer, z)
    gradient = jax.jit(jax.grad(lambda z: jnp.vdot(weights, quantizer.apply(variables, z, False).quantized)))(z)
    expected = np.asarray(weights, np.float64)
    if isinstance(quantizer, FSQ):  # straight through the rounding, with the slope of the bound
        levels = np.array(quantizer.levels)
        reach = (levels - 1) * 0.999 / 2
        shift = np.tan(np.where(levels % 2, 0, 0.5) / reach)
        expected = expected * (1 - np.tanh(np.asarray(z) + shift) ** 2) * reach / (levels // 2)
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-6)
    else:
        np.testing.assert_array_equal(gradient, weights)


@every_quantizer
def test_bfloat16_in_float32_inside(quantizer):
    z = latents(0, *SHAPE).astype(jnp.bfloat16)
    variables = trained(quantizer, z.astype(jnp.float32))
    out, state = apply(quantizer, variables, z)
    expected, expected_state = apply(quantizer, variables, z.astype(jnp.float32))
    assert out.quantized.dtype == jnp.bfloat16
    np.testing.assert_array_equal(out.quantized, expected.quantized.astype(jnp.bfloat16))
    for got, want in zip(*map(jax.tree.leaves, [(out[1:], state), (expected[1:], expected_state)]), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)


@every_quantizer
def test_nothing_changes_without_training(quantizer):
    z = latents(0, *SHAPE)
    variables = trained(quantizer, z)
    out, state = apply(quantizer, variables, z, train=False)
    assert "dead_codes" not in out.metrics
    jax.tree.map(np.testing.assert_array_equal, state, {k: v for k, v in variables.items() if k == "codebook"})
    # Neither a random key nor a mutable collection is needed.
    jax.eval_shape(lambda variables, z: quantizer.apply(variables, z, False), variables, z)


@every_quantizer
def test_eight_devices_equal_one(quantizer):
    """Two steps and the gradients of the losses: on each device and averaged, or with the whole batch at once."""
    batches, weights = latents(0, 2, 16, 4, 3), latents(1, 16, 4, 3)
    start = initial(quantizer, batches[0])
    params = start.get("params", {})

    def step(quantizer, state, z, weights, key):
        def objective(params, z):
            variables = {"params": params, **state}
            out, new = quantizer.apply(variables, z, True, rngs={"quantizer": key}, mutable=["codebook"])
            return jnp.vdot(out.quantized, weights) / weights.size + sum(out.losses.values()), (new, out)

        return jax.grad(objective, (0, 1), has_aux=True)(params, z)

    whole = jax.jit(partial(step, quantizer))
    spread = jax.pmap(partial(step, quantizer.clone(axis_name="data")), "data", in_axes=(None, 0, 0, None))
    state = local_state = {name: start[name] for name in start if name == "codebook"}
    for number, z in enumerate(batches):
        key = jax.random.key(number)
        gradients, (state, out) = whole(state, z, weights, key)
        shards = (a.reshape(8, 2, 4, 3) for a in (z, weights))
        local_gradients, (states, outs) = spread(local_state, *shards, key)
        local_state = jax.tree.map(lambda a: a[3], states)

    def assert_equal(got, want):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, want)

    for device in range(8):
        assert_equal(jax.tree.map(lambda a, d=device: a[d], (states, outs.metrics)), (state, out.metrics))
    np.testing.assert_array_equal(outs.indices.reshape(16, 4), out.indices)
    assert_equal(jax.tree.map(lambda a: a.mean(0), (outs.losses, local_gradients[0])), (out.losses, gradients[0]))
    assert_equal(local_gradients[1].reshape(16, 4, 3) / 8, gradients[1])  # each device's mean is over an eighth


@every_quantizer
def test_wrong_last_axis_is_named(quantizer):
    with pytest.raises(ValueError, match=r"last axis of 3, got shape \(2, 4\)"):
        quantizer.init(jax.random.key(0), jnp.ones((2, 4)), True)


@every_quantizer
@pytest.mark.parametrize("z", [1.0, jnp.zeros(()), jnp.zeros((2, 3), int), np.zeros((2, 3), bool)])
def test_what_is_no_array_of_floats_is_refused(quantizer, z):
    with pytest.raises(ValueError, match=r"^z is .* expected float \[...,D>=1\]"):
        quantizer.init(jax.random.key(0), z, True)


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (FSQ(levels=8), "a tuple of at least 2 levels in every channel, got levels=8"),
        (FSQ(levels=(8.5, 5, 5)), "a tuple of at least 2 levels"),
        (FSQ(levels=(8, 1, 5)), "at least 2 levels"),
        (FSQ(levels=()), "at least 2 levels"),
        (EMAVectorQuantizer(codes=0, dim=3), "at least 1 code"),
        (EMAVectorQuantizer(codes=4, dim=3, decay=1.0), "0 <= decay < 1"),
        (VectorQuantizer(codes=4, dim=0), "at least 1 dim"),
        (VectorQuantizer(codes=4, dim=3, commitment=-1.0), "commitment loss is -1.0"),
        (LFQ(bits=0), "1 to 24 bits"),
        (LFQ(bits=3, temperature=0.0), "positive temperature"),
        (LFQ(bits=3, anneal_steps=0), "anneal_from=1"),
    ],
)
def test_impossible_settings_are_named(quantizer, message):
    with pytest.raises(ValueError, match=message):
        quantizer.init(jax.random.key(0), jnp.ones((2, 3)), True)


def nearest(rows: np.ndarray, embedding: np.ndarray) -> np.ndarray:
    return np.square(rows[:, None] - embedding).sum(-1).argmin(-1)


def counted(indices: np.ndarray, codes: int) -> np.ndarray:
    return np.stack([np.bincount(row, minlength=codes) for row in indices])


@pytest.mark.parametrize("codes", [5, 300])  # 300: two blocks, the second not full
def test_off_the_cpu_the_same_codes_counts_and_sums(codes):
    """Equal distances included; sums are as exact as float32 is, of rows whose sizes lie far apart."""
    draw = np.random.default_rng(codes)
    rows, embedding = (draw.integers(-2, 3, (n, 4)).astype(np.float32) for n in (500, codes))  # 625 places: ties
    indices = np.asarray(jax.jit(quantize._nearest_by_blocks)(rows, embedding))
    np.testing.assert_array_equal(indices, nearest(rows, embedding))
    np.testing.assert_array_equal(indices, quantize._nearest_of_all(rows, embedding))
    for count in (quantize._product_counts, quantize._scattered_counts):
        np.testing.assert_array_equal(count(indices.reshape(2, -1), codes), counted(indices.reshape(2, -1), codes))
    rows = (draw.normal(100, 1, (500, 3)) * np.exp(draw.normal(0, 2, (500, 1)))).astype(np.float32)
    sums, sizes = np.zeros((2, codes, 3))
    np.add.at(sums, indices, rows.astype(np.float64))
    np.add.at(sizes, indices, np.abs(rows))
    found = jax.jit(quantize._product_sums, static_argnums=2)(rows, indices, codes)
    assert (np.abs(found - sums) <= 1e-6 * sizes).all()


def test_counts_keep_leading_axes():
    indices = np.random.default_rng(0).integers(0, 10, (2, 3, 40))
    found = code_counts(jnp.asarray(indices), 10)
    assert found.dtype == jnp.int32
    np.testing.assert_array_equal(found.reshape(6, 10), counted(indices.reshape(6, 40), 10))


@every_quantizer
def test_off_the_cpu_nothing_is_scattered(quantizer):
    """The form is chosen when a program is lowered, here a training step with its gradients: no device is needed."""
    z = latents(0, *SHAPE)
    variables = initial(quantizer, z)

    def step(params, z):
        everything, rngs = {**variables, "params": params}, {"quantizer": jax.random.key(0)}
        out, new = quantizer.apply(everything, z, True, rngs=rngs, mutable=["codebook"])
        return out.quantized.sum() + sum(out.losses.values()), (new, out.metrics)

    traced = jax.jit(jax.grad(step, (0, 1), has_aux=True)).trace(variables.get("params", {}), z)
    scattered = {
        platform: "stablehlo.scatter" in traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda", "tpu")
    }
    assert scattered == {"cpu": True, "cuda": False, "tpu": False}


def test_off_the_cpu_memory_does_not_grow_with_the_codebook():
    """The rows and codes of vqvae:ucf101, whose distances alone would take 4 GiB."""
    rows, codes = 64 * 4 * 32 * 32, 4096
    z, embedding, indices = (
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (((rows, 64), jnp.float32), ((codes, 64), jnp.float32), ((rows,), jnp.int32))
    )
    sums = partial(quantize._product_sums, codes=codes)
    counts = partial(quantize._product_counts, codes=codes)
    for form, inputs in (
        (quantize._nearest_by_blocks, (z, embedding)),
        (sums, (z, indices)),
        (counts, (jax.ShapeDtypeStruct((1, rows), jnp.int32),)),
    ):
        memory = jax.jit(form).lower(*inputs).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 512 * 2**20


def test_ema_update_by_hand():
    """Means, Laplace smoothing and revival of a codebook whose last two codes no row is near to."""
    quantizer = EMAVectorQuantizer(codes=4, dim=2, decay=0.9, revive_below=0.5)
    z = latents(0, 32, 2)
    state = {
        "embedding": np.array([[-1, 0], [1, 0], [50, 50], [60, 60]], np.float32),
        "cluster_size": np.array([3, 9, 4.3, 5], np.float32),
        "cluster_sum": np.array([[-2, 1], [8, 1], [215, 215], [300, 300]], np.float32),
        "step": np.int32(7),
    }
    out, new = apply(quantizer, {"codebook": state}, z)
    codes = nearest(np.asarray(z), state["embedding"])
    np.testing.assert_array_equal(out.indices, codes)
    np.testing.assert_allclose(
        out.losses["commitment"], 0.25 * np.square(z - state["embedding"][codes]).mean(), rtol=1e-5
    )
    size, total = 0.9 * state["cluster_size"], 0.9 * state["cluster_sum"]
    for row, code in zip(np.asarray(z), codes, strict=True):
        size[code] += 0.1
        total[code] += 0.1 * row
    smoothed = (size + 1e-5) / (size.sum() + 4e-5) * size.sum()
    assert list(size < 0.5 * 32 / 4) == [False, False, True, False] and out.metrics["dead_codes"] == 1
    new = jax.tree.map(np.asarray, new["codebook"])
    alive = [0, 1, 3]
    np.testing.assert_allclose(new["embedding"][alive], (total / smoothed[:, None])[alive], rtol=1e-5)
    np.testing.assert_allclose(new["cluster_size"], np.where(size < 4, 8.0, size), rtol=1e-5)
    np.testing.assert_allclose(new["cluster_sum"][alive], total[alive], rtol=1e-5)
    assert (new["embedding"][2] == np.asarray(z)).all(-1).any()  # a row of this batch
    np.testing.assert_allclose(new["cluster_sum"][2], 8.0 * new["embedding"][2], rtol=1e-6)
    assert new["step"] == 8


def test_first_batch_sets_the_codebook_by_kmeans():
    """Lloyd's iterations from whichever rows come to rest at the means of three clusters of rows that lie far apart."""
    corners = np.array([[0, 0], [10, 0], [0, 10]], np.float32)
    clusters = [corner + 0.1 * latents(i, 20, 2) for i, corner in enumerate(corners)]
    rows, means = jnp.concatenate(clusters), np.stack([cluster.mean(0) for cluster in clusters])
    quantizer = EMAVectorQuantizer(codes=3, dim=2, revive_below=0.0)
    start = initial(quantizer, rows)
    for seed in range(20):  # rows drawn from one cluster alone may come to rest elsewhere
        out, new = apply(quantizer, start, rows, seed=seed)
        order = np.asarray(out.indices).reshape(3, 20)[:, 0]
        if sorted(order) == [0, 1, 2]:
            break
    np.testing.assert_allclose(out.quantized, means.repeat(20, axis=0), atol=1e-5)
    np.testing.assert_allclose(new["codebook"]["embedding"][order], means, atol=1e-4)
    np.testing.assert_allclose(new["codebook"]["cluster_size"], 20.0, rtol=1e-6)


def test_warm_up_passes_z_and_sets_the_codebook_from_each_batch():
    quantizer = EMAVectorQuantizer(codes=8, dim=3, warm_up=2)
    variables = initial(quantizer, latents(0, 64, 3))
    batches = [latents(seed, 64, 3) for seed in range(4)]
    for index, z in enumerate(batches):
        before = variables["codebook"]["embedding"]
        out, codebook = quantizer.apply(
            variables, z, train=True, mutable=["codebook"], rngs={"quantizer": jax.random.key(index)}
        )
        variables = {**variables, **codebook}
        passed = bool(jnp.all(out.quantized == z))
        assert passed == (index < 2) and (out.losses["commitment"] == 0) == passed
        # A batch that sets the codebook forgets the one before: the same batch gives the same codes from any other.
        other = {"codebook": {**codebook["codebook"], "embedding": before + 1, "step": jnp.array(index)}}
        _, again = quantizer.apply(
            other, z, train=True, mutable=["codebook"], rngs={"quantizer": jax.random.key(index)}
        )
        same = jnp.allclose(again["codebook"]["embedding"], codebook["codebook"]["embedding"])
        assert bool(same) == (index <= 2)


def test_restored_codebook_is_never_set_anew():
    """A step from saved collections moves the averages by their 1 %; k-means would move them by the batch's 100."""
    quantizer, z = ALL["ema"], latents(0, *SHAPE)
    saved = jax.tree.map(np.asarray, trained(quantizer, z))
    _, new = apply(quantizer, jax.tree.map(jnp.asarray, saved), z + 100.0, seed=9)
    assert new["codebook"]["step"] == 2
    size = saved["codebook"]["cluster_size"]
    counts = (np.asarray(new["codebook"]["cluster_size"]) - 0.99 * size) / 0.01
    np.testing.assert_allclose(counts.sum(), z.size / 3, rtol=1e-3)
    unused = np.abs(counts) < 1e-2
    assert unused.any()
    np.testing.assert_allclose(new["codebook"]["embedding"][unused], saved["codebook"]["embedding"][unused], rtol=1e-4)


def test_revived_codes_are_used():
    """A codebook with all rows at one code spreads over two clusters again once the dead codes are revived."""
    z = jnp.concatenate([latents(0, 32, 2), latents(1, 32, 2) + 20.0])
    quantizer = EMAVectorQuantizer(codes=4, dim=2, revive_below=0.5, decay=0.5)
    state = {"embedding": jnp.array([[10.0, 10]] + [[1e4, 1e4]] * 3), "cluster_size": jnp.array([64.0, 0, 0, 0])}
    state |= {"cluster_sum": state["embedding"] * state["cluster_size"][:, None], "step": jnp.int32(5)}
    out, new = apply(quantizer, {"codebook": state}, z)
    assert out.metrics["dead_codes"] == 3 and out.metrics["perplexity"] == 1
    assert apply(quantizer, new, z)[0].metrics["perplexity"] > 2


def test_vq_losses_by_hand():
    quantizer, z = VectorQuantizer(codes=6, dim=3, commitment=0.5), latents(0, 32, 3)
    variables = initial(quantizer, z)
    embedding = np.asarray(variables["params"]["embedding"])
    codes = nearest(np.asarray(z), embedding)

    def loss(variables, z, name):
        return quantizer.apply(variables, z, True).losses[name]

    distance = np.asarray(z) - embedding[codes]
    pull = np.zeros_like(embedding)
    np.add.at(pull, codes, -2 * distance / z.size)
    for name, scale, by_codebook, by_z in [("codebook", 1.0, pull, 0.0), ("commitment", 0.5, 0.0, distance / z.size)]:
        value, (got_codebook, got_z) = jax.jit(jax.value_and_grad(loss, (0, 1)), static_argnums=2)(variables, z, name)
        np.testing.assert_allclose(value, scale * np.square(distance).mean(), rtol=1e-5)
        np.testing.assert_allclose(got_codebook["params"]["embedding"], np.broadcast_to(by_codebook, (6, 3)), atol=1e-6)
        np.testing.assert_allclose(got_z, np.broadcast_to(by_z, z.shape), atol=1e-6)


def test_fsq_by_hand():
    """Every level can be reached, levels lie evenly in [-1, 1], and codes count with the first channel fastest."""
    levels = (2, 3, 4, 5)
    quantizer = FSQ(levels=levels)
    assert quantizer.codebook_size == 120
    z = jnp.asarray(np.random.default_rng(0).normal(0, 2, (9_000, 4)), jnp.float32)
    out, _ = apply(quantizer, {}, z)
    np.testing.assert_array_equal(np.unique(out.indices), np.arange(120))
    for channel, count in enumerate(levels):
        half = count // 2
        np.testing.assert_allclose(np.unique(out.quantized[:, channel]), (np.arange(count) - half) / half)
        order = np.argsort(z[:, channel])
        assert (np.diff(out.quantized[order, channel]) >= 0).all()
    found = quantizer.apply({}, jnp.array([0, 1, 2, 119]), method="lookup")
    np.testing.assert_allclose(found, [[-1, -1, -1, -1], [0, -1, -1, -1], [-1, 0, -1, -1], [0, 1, 0.5, 1]])
    np.testing.assert_array_equal(FSQ(levels=(7, 8)).apply({}, jnp.zeros((1, 2)), False).quantized, 0.0)


def lfq_entropies(z: np.ndarray, temperature: float) -> tuple[float, float]:
    """Mean entropy and entropy of the mean of the soft assignments to all codes, from their distances."""
    codes = np.array(list(itertools.product([-1, 1], repeat=z.shape[1])))
    logits = -np.square(z[:, None] - codes).sum(-1) / temperature
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    mean = p.mean(0)
    return -(p * np.log(p)).sum(-1).mean(), -(mean * np.log(mean)).sum()


def test_lfq_by_hand():
    quantizer, z = LFQ(bits=5, temperature=2.0, diversity=1.5, anneal_from=3.0, anneal_steps=4), latents(0, 40, 5)
    variables = initial(quantizer, z)
    sure, diverse = lfq_entropies(np.asarray(z, np.float64), 2.0)
    for step, scale in enumerate([3.0, 2.5, 2.0, 1.5, 1.0, 1.0]):
        assert variables["codebook"]["step"] == step
        out, variables = apply(quantizer, variables, z)
        np.testing.assert_allclose(out.losses["entropy"], 0.1 * scale * (sure - 1.5 * diverse), rtol=1e-4)
    signs = np.where(np.asarray(z) > 0, 1.0, -1.0)
    np.testing.assert_array_equal(out.quantized, signs)
    np.testing.assert_array_equal(out.indices, ((signs > 0) * 2 ** np.arange(5)).sum(-1))
    np.testing.assert_allclose(out.losses["commitment"], 0.25 * np.square(z - signs).mean(), rtol=1e-5)


def test_lfq_with_many_bits_sums_over_groups():
    quantizer, z = LFQ(bits=12), latents(0, 40, 12)
    out, _ = apply(quantizer, initial(quantizer, z), z)
    halves = [lfq_entropies(np.asarray(z[:, part], np.float64), 1.0) for part in (slice(0, 6), slice(6, 12))]
    np.testing.assert_allclose(out.metrics["sample_entropy"], sum(half[0] for half in halves), rtol=1e-4)
    np.testing.assert_allclose(out.metrics["batch_entropy"], sum(half[1] for half in halves), rtol=1e-4)


def test_lfq_gradient_is_finite_for_sure_assignments():
    quantizer, z = LFQ(bits=3, temperature=1e-3), latents(0, 16, 3) * 100
    variables = initial(quantizer, z)
    gradient = jax.jit(jax.grad(lambda z: sum(quantizer.apply(variables, z, False).losses.values())))(z)
    assert np.isfinite(gradient).all()
