"""Vector quantizers behind one interface: `quantizer(z, train) -> Quantized`, and `lookup(indices)` back to z space.

The state of a quantizer lives in the collection "codebook", so that a restored run continues and never starts over;
it changes only where `train` is true. Distances, entropies, losses and statistics are float32 for any dtype of z.
`axis_name` names the mapped axis of devices that share the batch, one contiguous slice each; it is None under jit.

Off the CPU nothing is scattered, which is slow on TPUs and adds in an order of its own on GPUs: counts and sums are
products with one-hot rows. Distances and one-hot rows are made for BLOCK codes at a time, whatever the size of the
codebook; blocks of codes, not of rows, as those may be spread over devices.
"""

import math
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.scipy.special import entr

from jaxvid.parallel import pmean, psum
from jaxvid.shapes import expect

KMEANS_ITERATIONS = 5
SMOOTHING = 1e-5  # rows added to every code (Laplace), so that a code without any keeps a finite embedding
BLOCK = 256  # codes that are compared with all rows at once, off the CPU
JOINT_BITS = 10  # LFQ: groups of up to this many bits have their joint distribution computed exactly
Scalars = dict[str, jax.Array]


class Quantized(NamedTuple):
    """What a quantizer makes of z [..., D]."""

    quantized: jax.Array  # [..., D], dtype of z; the gradient passes straight through to z
    indices: jax.Array  # [...] int32 in [0, codebook_size)
    losses: Scalars  # float32, already weighted: add them to the objective
    metrics: Scalars  # float32; `perplexity` in [1, codebook_size] is that of the codes in this batch


class EMAVectorQuantizer(nn.Module):
    """Codebook learned by exponential moving averages (van den Oord et al. 2017, appendix A.1).

    The first training batch sets it by k-means. With `warm_up`, so does each of the first warm_up + 1, and z passes the
    first warm_up unquantized: an encoder that starts with a small number of codes learns to use no more.

    A code whose average rows per step fall below `revive_below` times the fair share (rows / codes) starts anew with
    that share, from a row of z drawn in proportion to its squared error, as in k-means++ (Arthur and Vassilvitskii
    2007): where codes are missing, not where they abound. The metric `dead_codes` counts them.

    Both draw from the random stream "quantizer", which is to be the same on every device. Collection "codebook":
    `embedding` and `cluster_sum` [codes, dim], `cluster_size` [codes], `step` [], the training batches seen.
    Raises ValueError for codes, dim, decay or warm_up out of range, or where the last axis of z is not `dim`.
    """

    codes: int
    dim: int
    decay: float = 0.99
    commitment: float = 0.25
    revive_below: float = 0.05
    warm_up: int = 0
    axis_name: str | None = None

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        return self.codes

    def setup(self) -> None:
        _check_codebook(self.codes, self.dim, self.commitment)
        if not 0 <= self.decay < 1 or self.warm_up < 0:
            found = f"decay={self.decay} and warm_up={self.warm_up}"
            raise ValueError(f"A codebook needs 0 <= decay < 1 and warm_up >= 0, got {found}.")
        shape, normal = (self.codes, self.dim), nn.initializers.normal(1.0)
        self.embedding = self.variable("codebook", "embedding", lambda: normal(self.make_rng("params"), shape))
        self.cluster_size = self.variable("codebook", "cluster_size", jnp.zeros, shape[:1])
        self.cluster_sum = self.variable("codebook", "cluster_sum", jnp.zeros, shape)
        self.step = self.variable("codebook", "step", jnp.zeros, (), jnp.int32)

    def __call__(self, z: jax.Array, train: bool) -> Quantized:
        rows, embedding, metrics = _rows(z, self.dim), self.embedding.value, {}
        fixed, learning = lax.stop_gradient(rows), train and not self.is_initializing()
        if learning:
            key = self.make_rng("quantizer")
            kmeans = partial(_kmeans, codes=self.codes, axis_name=self.axis_name)
            embedding = lax.cond(self.step.value <= self.warm_up, kmeans, lambda *_: embedding, fixed, key)
        indices = _nearest(fixed, embedding)
        if learning:
            metrics["dead_codes"] = self._learn(fixed, indices, embedding, jax.random.fold_in(key, 1))
        values = embedding[indices]
        if train:
            values = jnp.where(self.step.value <= self.warm_up, fixed, values)  # counted already: 1 after the first
        losses = {"commitment": self.commitment * jnp.mean(jnp.square(rows - values))}
        return _finish(self, z, rows, values, indices, losses, metrics)

    def lookup(self, indices: jax.Array) -> jax.Array:
        """Embeddings [..., dim], float32, of codes [...]."""
        return self.embedding.value[indices]

    def _learn(self, rows: jax.Array, indices: jax.Array, embedding: jax.Array, key: jax.Array) -> jax.Array:
        """Moves the averages towards this batch, revives dead codes, and returns how many there were."""
        fair_share = rows.shape[0] * psum(1, self.axis_name) / self.codes
        # In the warm-up a batch replaces the averages, which would keep empty codes alive.
        decay = jnp.where(self.step.value <= self.warm_up, 0.0, self.decay)
        counts, sums = _statistics(rows, indices, self.codes, self.axis_name)
        size = decay * self.cluster_size.value + (1 - decay) * counts
        total = decay * self.cluster_sum.value + (1 - decay) * sums
        smoothed = (size + SMOOTHING) / (size.sum() + self.codes * SMOOTHING) * size.sum()
        dead = size < self.revive_below * fair_share
        errors = jnp.square(rows - embedding[indices]).sum(-1)
        fresh = _random_rows(rows, errors, self.codes, key, self.axis_name)
        self.embedding.value = jnp.where(dead[:, None], fresh, total / smoothed[:, None])
        self.cluster_size.value = jnp.where(dead, fair_share, size)
        self.cluster_sum.value = jnp.where(dead[:, None], fair_share * fresh, total)
        self.step.value += 1
        return dead.sum().astype(jnp.float32)


class VectorQuantizer(nn.Module):
    """Codebook learned by gradients (van den Oord et al. 2017, eq. 3): the parameter `embedding` [codes, dim].

    Raises ValueError for a codebook without codes, or where the last axis of z is not `dim`.
    """

    codes: int
    dim: int
    commitment: float = 0.25
    axis_name: str | None = None

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        return self.codes

    def setup(self) -> None:
        _check_codebook(self.codes, self.dim, self.commitment)
        uniform = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
        self.embedding = self.param("embedding", uniform, (self.codes, self.dim))

    def __call__(self, z: jax.Array, train: bool) -> Quantized:
        rows = _rows(z, self.dim)
        indices = _nearest(lax.stop_gradient(rows), lax.stop_gradient(self.embedding))
        values = _embedded(self.embedding, indices)
        losses = {
            "codebook": jnp.mean(jnp.square(lax.stop_gradient(rows) - values)),
            "commitment": self.commitment * jnp.mean(jnp.square(rows - lax.stop_gradient(values))),
        }
        return _finish(self, z, rows, values, indices, losses, {})

    def lookup(self, indices: jax.Array) -> jax.Array:
        """Embeddings [..., dim], float32, of codes [...]."""
        return self.embedding[indices]


class FSQ(nn.Module):
    """Finite scalar quantization (Mentzer et al. 2023, section 3.1 and appendix A.1): bounded channels, then rounded.

    z has one channel per entry of `levels`: project it before. Values lie in [-1, 1]; nothing is learned or lost.
    Raises ValueError for fewer than 2 levels, or where the last axis of z is not len(levels).
    """

    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    axis_name: str | None = None

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        return math.prod(self.levels)

    def setup(self) -> None:
        levels = self.levels if isinstance(self.levels, tuple) else ()
        if not levels or any(not isinstance(level, int) or level < 2 for level in levels):
            raise ValueError(f"FSQ needs a tuple of at least 2 levels in every channel, got levels={self.levels}.")

    def __call__(self, z: jax.Array, train: bool) -> Quantized:
        levels = np.array(self.levels, np.int32)
        reach = (levels - 1) * (1 - 1e-3) / 2
        offset = np.where(levels % 2, 0.0, 0.5)  # an even number of levels is centered on a half
        bounded = jnp.tanh(_rows(z, len(levels)) + np.tan(offset / reach)) * reach - offset
        digits = jnp.round(lax.stop_gradient(bounded)).astype(jnp.int32) + levels // 2
        indices = (digits * _place_values(self.levels)).sum(-1, dtype=jnp.int32)
        return _finish(self, z, bounded / (levels // 2), self.lookup(indices), indices, {}, {})

    def lookup(self, indices: jax.Array) -> jax.Array:
        """Values [..., len(levels)], float32, of codes [...]."""
        half = np.array(self.levels, np.int32) // 2
        digits = indices[..., None] // _place_values(self.levels) % np.array(self.levels, np.int32)
        return (digits - half).astype(jnp.float32) / half


class LFQ(nn.Module):
    """Lookup-free quantization (Yu et al. 2023, MAGVIT-v2, section 3.1): one bit per channel, its sign.

    The entropy loss makes each assignment sure and their average over the batch diverse: it is the mean entropy of
    p(code | z) = softmax(-|z - code|^2 / temperature) less `diversity` times the entropy of the mean, in nats; the
    latter is that of the joint distribution up to 10 bits, and beyond them a sum over equal groups of bits. Its weight
    falls linearly from `anneal_from * entropy_weight` to `entropy_weight` over `anneal_steps` training batches, which
    `step` [] in the collection "codebook" counts. Raises ValueError for bits outside 1 to 24, a temperature or
    anneal_steps that is not positive, or where the last axis of z is not `bits`.
    """

    bits: int
    commitment: float = 0.25
    entropy_weight: float = 0.1
    diversity: float = 1.0
    temperature: float = 1.0
    anneal_from: float = 3.0
    anneal_steps: int = 2000
    axis_name: str | None = None

    @property
    def codebook_size(self) -> int:
        """The number of codes."""
        return 2**self.bits

    def setup(self) -> None:
        if not 1 <= self.bits <= 24:
            raise ValueError(f"LFQ takes 1 to 24 bits, got bits={self.bits}.")
        if self.temperature <= 0 or self.anneal_steps <= 0:
            raise ValueError(
                f"LFQ needs a positive temperature and anneal_steps, got {self.temperature} and {self.anneal_steps}: "
                "anneal_from=1 keeps the entropy weight constant."
            )
        self.step = self.variable("codebook", "step", jnp.zeros, (), jnp.int32)

    def __call__(self, z: jax.Array, train: bool) -> Quantized:
        rows = _rows(z, self.bits)
        indices = ((rows > 0) << np.arange(self.bits)).sum(-1, dtype=jnp.int32)
        values = self.lookup(indices)
        # The squared distances to the two values of a bit differ by 4 z, whatever the other bits are.
        log_odds = 4 * rows / self.temperature
        probabilities = jax.nn.sigmoid(log_odds)
        sure = pmean(jnp.mean((jax.nn.softplus(log_odds) - log_odds * probabilities).sum(-1)), self.axis_name)
        groups = jnp.array_split(probabilities, -(-self.bits // JOINT_BITS), axis=-1)
        diverse = jnp.stack([_entropy(pmean(_mean_joint(group), self.axis_name)) for group in groups]).sum()
        progress = jnp.minimum(self.step.value / self.anneal_steps, 1.0)
        weight = self.entropy_weight * (self.anneal_from + (1 - self.anneal_from) * progress)
        if train and not self.is_initializing():
            self.step.value += 1
        losses = {
            "entropy": weight * (sure - self.diversity * diverse),
            "commitment": self.commitment * jnp.mean(jnp.square(rows - values)),
        }
        return _finish(self, z, rows, values, indices, losses, {"sample_entropy": sure, "batch_entropy": diverse})

    def lookup(self, indices: jax.Array) -> jax.Array:
        """Values -1 or 1 [..., bits], float32, of codes [...]; bit i of a code belongs to channel i."""
        return (indices[..., None] >> np.arange(self.bits) & 1) * 2.0 - 1.0


def _check_codebook(codes: int, dim: int, commitment: float) -> None:
    if codes < 1 or dim < 1:
        raise ValueError(f"A codebook needs at least 1 code of at least 1 dimension, got codes={codes} and dim={dim}.")
    if not 0 <= commitment < math.inf:
        raise ValueError(f"The weight of the commitment loss is {commitment}, expected 0 or more, and finite.")


def _rows(z: jax.Array, dim: int) -> jax.Array:
    """z [..., dim] as float32 rows [N, dim]."""
    expect("[...,D>=1]", float, z=z)
    if z.shape[-1] != dim:
        raise ValueError(f"This quantizer takes z with a last axis of {dim}, got shape {z.shape}: project z before it.")
    return z.reshape(-1, dim).astype(jnp.float32)


def _finish(
    module: EMAVectorQuantizer | VectorQuantizer | FSQ | LFQ,
    z: jax.Array,
    continuous: jax.Array,
    values: jax.Array,
    indices: jax.Array,
    losses: Scalars,
    metrics: Scalars,
) -> Quantized:
    """Values [N,D] in the shape and dtype of z, with the gradient of `continuous` [N,D], and the codes' perplexity."""
    quantized = lax.stop_gradient(values) + (continuous - lax.stop_gradient(continuous))
    used = code_counts(indices, module.codebook_size).astype(jnp.float32)
    perplexity = jnp.exp(_entropy(pmean(used / indices.size, module.axis_name)))
    return Quantized(
        quantized.reshape(z.shape).astype(z.dtype),
        indices.reshape(z.shape[:-1]),
        losses,
        {"perplexity": perplexity, **metrics},
    )


def _nearest(rows: jax.Array, embedding: jax.Array) -> jax.Array:
    """Index [N] of the nearest embedding [codes, D] to each row [N, D], the first of equals."""
    return lax.platform_dependent(rows, embedding, cpu=_nearest_of_all, default=_nearest_by_blocks)


def _nearest_of_all(rows: jax.Array, embedding: jax.Array) -> jax.Array:
    distances = _distances(rows, embedding, jnp.square(embedding).sum(-1))
    # A minimum, then the first index that reaches it: XLA:CPU vectorises these, but no argmin.
    codes = jnp.arange(embedding.shape[0], dtype=jnp.int32)
    return jnp.where(distances == distances.min(-1, keepdims=True), codes, codes.size - 1).min(-1)


def _nearest_by_blocks(rows: jax.Array, embedding: jax.Array) -> jax.Array:
    """The nearest of each block of codes, then the nearest of those: [N, BLOCK] distances are in memory at a time."""
    blocks = _blocks(embedding), _blocks(jnp.square(embedding).sum(-1), jnp.inf)

    def nearest(block: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        distances = _distances(rows, *block)
        return distances.min(-1), distances.argmin(-1).astype(jnp.int32)

    distances, places = lax.map(nearest, blocks)  # [blocks, N]
    block = distances.argmin(0).astype(jnp.int32)
    return block * BLOCK + jnp.take_along_axis(places, block[None], 0)[0]


def _distances(rows: jax.Array, embedding: jax.Array, norms: jax.Array) -> jax.Array:
    """Squared distances [N, codes] of rows [N, D] to embeddings with squared norms [codes], less the rows' own."""
    return norms - 2 * jnp.matmul(rows, embedding.T, precision=lax.Precision.HIGHEST)


def _blocks(codes: jax.Array, fill: float = 0) -> jax.Array:
    """[codes, ...] -> [blocks, BLOCK, ...], filled up."""
    missing = -len(codes) % BLOCK
    padded = jnp.pad(codes, [(0, missing)] + [(0, 0)] * (codes.ndim - 1), constant_values=fill)
    return padded.reshape(-1, BLOCK, *codes.shape[1:])


def code_counts(indices: jax.Array, codes: int) -> jax.Array:
    """How often each of so many codes is among indices [..., N]: int32 [..., codes]. Exact up to 2^24 times."""
    rows = indices.reshape(-1, indices.shape[-1])
    found = lax.platform_dependent(
        rows, cpu=partial(_scattered_counts, codes=codes), default=partial(_product_counts, codes=codes)
    )
    return found.reshape(*indices.shape[:-1], codes)


def _scattered_counts(rows: jax.Array, codes: int) -> jax.Array:
    return jax.vmap(lambda row: jnp.zeros(codes, jnp.int32).at[row].add(1))(rows)


def _product_counts(rows: jax.Array, codes: int) -> jax.Array:
    """The table of first and second digits, of a square root of codes each: a product of [N, sqrt(codes)] twice.

    Products of 0 and 1 are exact in bfloat16, and so are their sums in float32.
    """
    base = math.isqrt(codes - 1) + 1
    digits = (jax.nn.one_hot(digit, base, dtype=jnp.bfloat16) for digit in (rows // base, rows % base))
    table = jnp.einsum("bni,bnj->bij", *digits, preferred_element_type=jnp.float32)
    return table.reshape(len(rows), -1)[:, :codes].astype(jnp.int32)


def _code_sums(rows: jax.Array, indices: jax.Array, codes: int) -> jax.Array:
    """Sum [codes, D] of the rows [N, D] with each index [N]."""
    scattered, products = partial(jax.ops.segment_sum, num_segments=codes), partial(_product_sums, codes=codes)
    return lax.platform_dependent(rows, indices, cpu=scattered, default=products)


def _product_sums(rows: jax.Array, indices: jax.Array, codes: int) -> jax.Array:
    """As products of one-hot rows and bfloat16, summed in float32.

    A float32 number is the sum of three of bfloat16, of 8 bits each, so that nothing is rounded before the sum. TPUs
    take six products for one of the highest precision, and GPUs have no fast ones of float32.
    """
    parts, rest = [], rows
    for _ in range(3):  # reduce_precision, as XLA leaves casts there and back out
        parts.append(lax.reduce_precision(rest, exponent_bits=8, mantissa_bits=7))
        rest = rest - parts[-1]
    stacked = jnp.concatenate(parts, 1).astype(jnp.bfloat16)

    def sums(block: jax.Array) -> jax.Array:
        chosen = (indices[:, None] == block).astype(jnp.bfloat16)
        return jnp.einsum("nk,nd->kd", chosen, stacked, preferred_element_type=jnp.float32)

    found = lax.map(sums, _blocks(jnp.arange(codes, dtype=indices.dtype), -1))
    return found.reshape(-1, 3, rows.shape[1])[:codes].sum(1)


@jax.custom_vjp
def _embedded(embedding: jax.Array, indices: jax.Array) -> jax.Array:
    """Rows [N, D] of an embedding [codes, D], with a gradient that is not scattered off the CPU."""
    return embedding[indices]


_embedded.defvjp(
    lambda embedding, indices: (embedding[indices], (indices, len(embedding))),
    lambda saved, gradient: (_code_sums(gradient, *saved), None),
)


def _statistics(rows: jax.Array, indices: jax.Array, codes: int, axis_name: str | None) -> tuple[jax.Array, jax.Array]:
    """Number [codes] and sum [codes, D] of the rows of every code, over all devices."""
    counts = code_counts(indices, codes).astype(jnp.float32)
    return psum((counts, _code_sums(rows, indices, codes)), axis_name)


def _random_rows(rows: jax.Array, weights: jax.Array, count: int, key: jax.Array, axis_name: str | None) -> jax.Array:
    """Rows [count, D] of the whole batch, drawn in proportion to their weights [N]: the same ones on every device."""
    everywhere = weights if axis_name is None else lax.all_gather(weights, axis_name, tiled=True)
    cumulative = jnp.cumsum(everywhere)
    drawn = jax.random.uniform(key, (count,)) * cumulative[-1]
    chosen = jnp.minimum(jnp.searchsorted(cumulative, drawn, side="right"), everywhere.size - 1)
    if axis_name is None:
        return rows[chosen]
    here = chosen - rows.shape[0] * lax.axis_index(axis_name)
    own = (here >= 0) & (here < rows.shape[0])
    return psum(jnp.where(own[:, None], rows[here], 0.0), axis_name)


def _kmeans(rows: jax.Array, key: jax.Array, codes: int, axis_name: str | None) -> jax.Array:
    """Lloyd's iterations from random rows [N, D] to centers [codes, D]; a center that no row is near to stays."""

    def iterate(_: int, centers: jax.Array) -> jax.Array:
        counts, sums = _statistics(rows, _nearest(rows, centers), codes, axis_name)
        return jnp.where(counts[:, None] > 0, sums / jnp.maximum(counts, 1.0)[:, None], centers)

    return lax.fori_loop(
        0, KMEANS_ITERATIONS, iterate, _random_rows(rows, jnp.ones(rows.shape[0]), codes, key, axis_name)
    )


def _place_values(levels: tuple[int, ...]) -> np.ndarray:
    """What one step of each channel adds to a code: 1, levels[0], levels[0] * levels[1], ..."""
    return np.cumprod([1, *levels[:-1]], dtype=np.int32)


def _mean_joint(probabilities: jax.Array) -> jax.Array:
    """Joint distribution [2**bits] of independent bits that are 1 with probabilities [N, bits], averaged over N."""

    def joint(bits: jax.Array) -> jax.Array:
        table = jnp.ones((bits.shape[0], 1))
        for p in jnp.split(bits, bits.shape[1], axis=1):
            table = jnp.concatenate([table * (1 - p), table * p], axis=1)
        return table

    low, high = jnp.split(probabilities, [probabilities.shape[1] // 2], axis=1)
    products = jnp.matmul(joint(low).T, joint(high), precision=lax.Precision.HIGHEST)
    return products.ravel() / probabilities.shape[0]


def _entropy(probabilities: jax.Array) -> jax.Array:
    """Entropy in nats of a distribution [K]; its gradient stays finite where a probability is 0."""
    return entr(jnp.maximum(probabilities, jnp.finfo(jnp.float32).tiny)).sum()
