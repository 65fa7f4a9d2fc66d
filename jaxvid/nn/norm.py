"""Normalization over video, with float32 statistics whatever the dtype of the video.

A variance is a difference of means of squares: where the mean is 100 standard deviations, as of a flat background,
float32 loses 4 of its 7 digits there. On GPUs and TPUs a number near the mean is subtracted first, which reads a
sixteenth of the video once more; on CPU it would take longer, and videos in [-1, 1] are centered well enough.

Sums are no products with ones, which GPUs round to TF32 and TPUs to bfloat16.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jaxvid.parallel import pmean

NORMS = ("group", "batch", "frame", "none")


class GroupNorm(nn.Module):
    """Group normalization (Wu and He 2018) of [B, ..., C] over all places and the channels of a group, per example.

    Equals `flax.linen.GroupNorm(groups)`. Raises ValueError where C is no multiple of `groups`.
    """

    groups: int = 32
    dtype: Any = None
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, channels = x.shape[0], x.shape[-1]
        if channels % self.groups:
            raise ValueError(f"GroupNorm needs channels in a multiple of groups={self.groups}, got {channels}.")
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        places = x.reshape(batch, -1, channels).astype(jnp.float32)
        places -= self._over_groups(_shift(places))[:, None]
        # Channel by channel first, along contiguous memory; what remains to be averaged over a group is tiny.
        mean, square = self._over_groups(jnp.stack(_moments(places)))
        factor = scale * lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0.0) + self.epsilon)
        return _affine(places, factor, bias - mean * factor).astype(self.dtype or x.dtype).reshape(x.shape)

    def _over_groups(self, values: jax.Array) -> jax.Array:
        """Values [...,C] averaged over the channels of each group: [...,C]."""
        channels = values.shape[-1]
        means = values.reshape(*values.shape[:-1], self.groups, -1).mean(-1)
        return jnp.repeat(means, channels // self.groups, axis=-1)


class BatchNorm(nn.Module):
    """Batch normalization (Ioffe and Szegedy 2015) of [B, ..., C] over examples and places.

    Equals `flax.linen.BatchNorm`. With `train` the statistics are those of the batch over all devices of `axis_name`
    and the running ones (collection `batch_stats`: `mean`, `var`, [C]) move towards them; else the running ones serve.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    dtype: Any = None
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        rows = x.reshape(1, -1, *channels).astype(jnp.float32)
        mean, var = running_mean.value, running_var.value
        if train:
            shift = pmean(_shift(rows), self.axis_name)
            rows -= shift[:, None]
            mean, square = pmean(_moments(rows), self.axis_name)
            mean, var = mean[0], jnp.maximum(square - jnp.square(mean), 0.0)[0]
            if not self.is_initializing():
                keep = self.momentum
                running_mean.value = keep * running_mean.value + (1 - keep) * lax.stop_gradient(mean + shift[0])
                running_var.value = keep * running_var.value + (1 - keep) * lax.stop_gradient(var)
        factor = scale * lax.rsqrt(var + self.epsilon)
        y = _affine(rows, factor[None], (bias - mean * factor)[None])
        return y.astype(self.dtype or x.dtype).reshape(x.shape)


class Deviation(nn.Module):
    """Features [B,...,C] -> [B,...,C+1]: the last says how much the features of a batch differ, everywhere the same.

    The standard deviation over the batch, averaged over all features (Karras et al., 2018, section 3): a discriminator
    that sees it notices where samples are too much alike. Without `train` a running average serves, as in batch norm
    (collection `batch_stats`: `deviation` []), so that an example is judged by itself.
    """

    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        running = self.variable("batch_stats", "deviation", jnp.zeros, ())
        deviation = running.value
        if train:
            rows = x.astype(jnp.float32)
            rows -= pmean(_shift(rows.reshape(1, len(x), -1)), self.axis_name).reshape(x.shape[1:])
            mean, square = pmean((rows.mean(0), jnp.square(rows).mean(0)), self.axis_name)
            deviation = jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0) + 1e-8).mean()
            if not self.is_initializing():
                running.value = 0.9 * running.value + 0.1 * lax.stop_gradient(deviation)
        return jnp.concatenate([x, jnp.broadcast_to(deviation, (*x.shape[:-1], 1)).astype(x.dtype)], -1)


class Normalization(nn.Module):
    """One of NORMS for [B,T,H,W,C].

    "group": 8 groups, no statistics over examples; "batch"; "frame": each channel of each frame by itself (instance
    normalization, Ulyanov et al. 2016), so that a frame does not depend on those beside it; or "none".
    """

    kind: str
    axis_name: str | None = None
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        if self.kind == "batch":
            return BatchNorm(axis_name=self.axis_name, dtype=self.dtype)(x, train)
        if self.kind == "frame":
            return GroupNorm(groups=x.shape[-1], dtype=self.dtype)(x.reshape(-1, *x.shape[2:])).reshape(x.shape)
        return GroupNorm(groups=8, dtype=self.dtype)(x) if self.kind == "group" else x


def _shift(rows: jax.Array) -> jax.Array:
    """A number near the mean over N of rows [B,N,C], [B,C], where it pays to subtract it first; 0 on CPU.

    Moments of what is left have the same derivatives, of every order, as those of a variance do not depend on a shift.
    """
    rows = lax.stop_gradient(rows)
    return lax.platform_dependent(rows, cpu=_no_shift, default=_mean_of_some)


def _no_shift(rows: jax.Array) -> jax.Array:
    return jnp.zeros((rows.shape[0], rows.shape[2]), rows.dtype)


def _mean_of_some(rows: jax.Array) -> jax.Array:
    """The mean [B,C] of every 16th row of [B,N,C], or of more where N is no multiple of 16.

    It lies within 4 standard deviations of the mean of all, whatever the rows are: a sixteenth of them that is further
    away, and what balances it, have a larger variance by themselves.
    """
    batch, count, channels = rows.shape
    step = next(step for step in (16, 4, 1) if count % step == 0)
    return rows.reshape(batch, -1, step, channels)[:, :, 0].mean(1)


def _moments(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Means [B,C] of rows [B,N,C] and of their squares."""
    return sum_over_rows(rows) / rows.shape[1], sum_over_rows(jnp.square(rows)) / rows.shape[1]


def sum_over_rows(rows: jax.Array) -> jax.Array:
    """Sums [B,N,C] over N: rows that lie far apart first, as XLA:CPU runs 2 to 4 times as fast as one sum."""
    return _summed_in_part(rows, 64).sum(1)


def _summed_in_part(rows: jax.Array, most: int) -> jax.Array:
    batch, count, channels = rows.shape
    parts = next(parts for parts in (most, 64, 16, 4, 1) if count % parts == 0)
    return rows.reshape(batch, parts, count // parts, channels).sum(1)


@jax.custom_vjp
def _affine(rows: jax.Array, factor: jax.Array, offset: jax.Array) -> jax.Array:
    """rows [B,N,C] * factor [B,C] + offset [B,C], with sums over N in its gradient that are products as well."""
    return rows * factor[:, None] + offset[:, None]


def _affine_forward(rows: jax.Array, factor: jax.Array, offset: jax.Array) -> tuple[jax.Array, tuple]:
    return _affine(rows, factor, offset), (rows, factor)


def _affine_backward(saved: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    rows, factor = saved
    # Fused with both sums, the product of few long examples takes XLA:CPU up to 40 times as long.
    products = lax.optimization_barrier(_summed_in_part(gradient * rows, 256))
    return gradient * factor[:, None], products.sum(1), sum_over_rows(gradient)


_affine.defvjp(_affine_forward, _affine_backward)
