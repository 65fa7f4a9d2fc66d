"""PixelCNNs over frames, rows and columns of tokens, as networks of `models.prior`.

* `GatedPixelCNN` (van den Oord et al., 2016, "Conditional image generation with PixelCNN decoders", in three
  dimensions) sees every token before a place, where it has layers enough: see `reach`.
* `MaskedPixelCNN` (van den Oord et al., 2016, "Pixel recurrent neural networks") has a blind spot at any depth. With
  n = kernel // 2, a token that lies f frames before a place, r rows below it (negative: above) and c columns to its
  right is seen where r <= f * n and c <= 2 * f * n - r, and else never. On 4x6x6 tokens with a kernel of 3, 23 % of
  those before a place stay unseen.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax

from jaxvid.models.prior import Call, Context, Draw
from jaxvid.nn.conv import Triple, add_bias, conv


def convolve_back(x: jax.Array, kernel: jax.Array, axis: int, past: jax.Array) -> jax.Array:
    """Convolves [B,t,h,w,I] with a kernel [kt,kh,kw,I,O] whose last tap along an axis is the place itself.

    Along the other axes it is a convolution with SAME padding.

    Args:
      axis: 1, 2 or 3.
      past: [B,t,h,w,I], but along the axis what comes before x: one less than the kernel has taps.
    """
    length, taps = x.shape[axis], kernel.shape[axis - 1]
    longer = jnp.concatenate([past, x], axis)
    # The slices that the taps meet, side by side in the channels: as fast for one slice as for all.
    met = [lax.slice_in_dim(longer, tap, tap + length, axis=axis) for tap in range(taps)]
    parts = jnp.split(kernel, taps, axis - 1)
    return conv(jnp.concatenate(met, -1), jnp.concatenate(parts, 3))


class ConvBack(nn.Module):
    """`convolve_back` with a learned kernel and bias."""

    features: int
    kernel_size: Triple
    axis: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, past: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """[B,t,h,w,I] and its past, or None for zeros -> [B,t,h,w,features], and the past of the next x."""
        shape = (*self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if past is None:
            past = jnp.zeros(along(x.shape, self.axis, self.kernel_size[self.axis - 1] - 1), x.dtype)
        y = add_bias(convolve_back(x, kernel, self.axis, past), bias)
        return y, lax.slice_in_dim(jnp.concatenate([past, x], self.axis), x.shape[self.axis], None, axis=self.axis)


def along(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    """The shape with another size along an axis."""
    return (*shape[:axis], size, *shape[axis + 1 :])


class Gated(nn.Module):
    """A layer of one stack: tanh(a) * sigmoid(b), where a and b are a convolution of what came before, a projection of
    the same layer of the stack above, and one of the context's vector (eq. 4).
    """

    kernel_size: Triple
    axis: int
    residual: bool
    dtype: Any = None

    @nn.compact
    def __call__(
        self, x: jax.Array, vector: jax.Array, above: jax.Array | None, past: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """[B,t,h,w,W] -> the same; what stands before the gates [B,t,h,w,2W]; the past of the next x."""
        width = x.shape[-1]
        before, past = ConvBack(2 * width, self.kernel_size, self.axis, self.dtype, name="back")(x, past)
        before += nn.Dense(2 * width, use_bias=False, dtype=self.dtype, name="context")(vector)[:, None, None, None]
        if above is not None:
            before += nn.Dense(2 * width, use_bias=False, dtype=self.dtype, name="above")(above)
        a, b = jnp.split(before, 2, -1)
        gated = jnp.tanh(a) * nn.sigmoid(b)
        if self.residual:
            gated = x + nn.Dense(width, dtype=self.dtype, name="output")(gated)
        return gated, before, past


class Stack(nn.Module):
    """Gated layers that look back along one axis: 1 frames, 2 rows of a frame, 3 columns of a row.

    Along the axes after it they see everything within reach, along those before it nothing: the stack above does.
    """

    layers: int
    kernel: int
    axis: int
    dtype: Any = None

    def setup(self) -> None:
        back, around = self.kernel // 2 + 1, self.kernel
        size = {1: (back, around, around), 2: (1, back, around), 3: (1, 1, back)}[self.axis]
        self.gated = [Gated(size, self.axis, self.axis == 3, self.dtype) for _ in range(self.layers)]

    def __call__(
        self, x: jax.Array, vector: jax.Array, above: Any = None, pasts: Any = None
    ) -> tuple[jax.Array, list[jax.Array], list[jax.Array]]:
        """[B,t,h,w,W] -> the same; by layer, what the stack below needs, and the pasts of the next x."""
        found, following = [], []
        none = [None] * self.layers
        for layer, of_above, past in zip(self.gated, above or none, pasts or none, strict=True):
            x, before, past = layer(x, vector, of_above, past)
            found.append(before)
            following.append(past)
        return x, found, following


class GatedPixelCNN(nn.Module):
    """Three stacks: over frames, over the rows of a frame, over the columns of a row.

    Each reads the tokens shifted by one along its axis, so that no place sees itself: no kernel needs a mask.

    Attributes:
      layers: of each stack.
      kernel: an odd number; a layer looks kernel // 2 frames, rows and columns away.
    """

    layers: int
    kernel: int
    dtype: Any = None

    def setup(self) -> None:
        self.frames = self.over_frames()
        self.rows = Stack(self.layers, self.kernel, 2, self.dtype)
        self.columns = Stack(self.layers, self.kernel, 3, self.dtype)

    def over_frames(self) -> nn.Module:
        """The first stack."""
        return Stack(self.layers, self.kernel, 1, self.dtype)

    def reach(self) -> tuple[float, int]:
        """How many frames back, and how many rows and columns to each side, a place sees."""
        away = self.layers * (self.kernel // 2)
        return 1 + away, away

    def __call__(self, embedded: jax.Array, context: Context) -> jax.Array:
        """[B,t,h,w,W] -> features [B,t,h,w,W] of the places before each, of those within reach."""
        above = None
        for axis in (1, 2, 3):
            start = jnp.zeros_like(lax.slice_in_dim(embedded, 0, 1, axis=axis))
            shifted = jnp.concatenate([start, lax.slice_in_dim(embedded, 0, -1, axis=axis)], axis)
            features, above, _ = self.stack(axis, shifted + context.places, context.vector, above)
        return features

    def stack(self, axis: int, x: jax.Array, vector: jax.Array, above: Any = None, pasts: Any = None) -> Any:
        """One of the stacks, of all places or of some, see `Stack`."""
        return (self.frames, self.rows, self.columns)[axis - 1](x, vector, above, pasts)

    def pasts(self, axis: int, shape: Sequence[int], length: int) -> Any:
        """What comes before the first of `length` slices [B,t,h,w,W] along an axis, for `stack`."""
        nothing = jnp.zeros(along(shape, axis, self.kernel // 2), self.dtype or jnp.float32)
        return [nothing] * self.layers

    def generate(self, call: Call, context: Context, draw: Draw) -> jax.Array:
        """Tokens [B,t,h,w]; see `models.prior`. Each stack runs once for every slice along its own axis."""

        def slices(axis: int, places: jax.Array, above: Any, first: Any) -> tuple[jax.Array, jax.Array]:
            """Tokens [B,...] and embeddings [B,t,h,w,W] of all slices along an axis; `first` is their first place."""
            length, size = places.shape[axis], np.prod(places.shape[axis + 1 : -1], dtype=int)
            start = jnp.zeros((len(context.vector), *along(places.shape, axis, 1)[1:]), places.dtype)

            def one(carry: Any, index: jax.Array) -> tuple[Any, tuple[jax.Array, jax.Array]]:
                before, pasts = carry
                here, above_here = jax.tree.map(lambda x: lax.dynamic_slice_in_dim(x, index, 1, axis), (places, above))
                x, below, pasts = call("stack", axis, before + here, context.vector, above_here, pasts)
                if axis < 3:
                    tokens, embedded = slices(axis + 1, here, below, first + index * size)
                else:
                    tokens, embedded = draw(x[:, 0, 0, 0], first + index)
                    embedded = embedded[:, None, None, None].astype(before.dtype)
                return (embedded, pasts), (tokens, embedded)

            pasts = self.pasts(axis, start.shape, length)
            _, (tokens, embedded) = lax.scan(one, (start, pasts), jnp.arange(length))
            return jnp.moveaxis(tokens, 0, 1), jnp.moveaxis(embedded, 0, axis).squeeze(axis + 1)

        return slices(1, context.places, None, 0)[0]


class ConvMasked(nn.Module):
    """A convolution [B,t,h,w,W] -> the same, of the places before each in raster order.

    Attributes:
      center: whether of the place itself, too: mask "B", or else "A".
    """

    kernel: int
    center: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, of_window: bool = False) -> jax.Array:
        """With `of_window`, x is what the kernel covers at one place, and the result is [B,1,1,1,W]."""
        width, back = x.shape[-1], self.kernel // 2
        size = (back + 1, self.kernel, self.kernel)
        place = back * (size[1] * size[2] + size[2] + 1)  # its tap, counted in raster order
        mask = (np.arange(np.prod(size)) < place + self.center).reshape(*size, 1, 1)
        init = nn.initializers.variance_scaling(mask.size / mask.sum(), "fan_in", "truncated_normal")
        kernel = self.param("kernel", init, (*size, width, width)) * mask
        bias = self.param("bias", nn.initializers.zeros, (width,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if of_window:
            return (jnp.einsum("bthwi,thwio->bo", x, kernel) + bias)[:, None, None, None]
        past = jnp.zeros(along(x.shape, 1, back), x.dtype)
        return add_bias(convolve_back(x, kernel, 1, past), bias)


class MaskedLayer(nn.Module):
    """A residual layer of the places before each, and of the place itself."""

    kernel: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, vector: jax.Array, of_window: bool = False) -> jax.Array:
        """[B,t,h,w,W] -> the same; `of_window` as of `ConvMasked`."""
        width, n = x.shape[-1], self.kernel // 2
        y = ConvMasked(self.kernel, True, self.dtype, name="masked")(nn.relu(x), of_window)
        y += nn.Dense(width, use_bias=False, dtype=self.dtype, name="context")(vector)[:, None, None, None]
        y = nn.Dense(width, dtype=self.dtype, name="output")(nn.relu(y))
        return y + (x[:, -1:, n : n + 1, n : n + 1] if of_window else x)


class MaskedPixelCNN(nn.Module):
    """A convolution with mask A, then residual layers with mask B; the top of this file says what they cannot see.

    Attributes: those of `GatedPixelCNN`; `layers` counts the first convolution, too.
    """

    layers: int
    kernel: int
    dtype: Any = None

    def setup(self) -> None:
        self.first = ConvMasked(self.kernel, False, self.dtype)
        self.rest = [MaskedLayer(self.kernel, self.dtype) for _ in range(self.layers - 1)]

    def reach(self) -> tuple[int, int]:
        """How many frames back, and how many rows and columns to a side, a place sees outside of its blind spot."""
        away = self.layers * (self.kernel // 2)
        return away, away

    def __call__(self, embedded: jax.Array, context: Context) -> jax.Array:
        """[B,t,h,w,W] -> features [B,t,h,w,W] of places before each, of those outside of its blind spot."""
        x = self.first(embedded) + context.places
        for layer in self.rest:
            x = layer(x, context.vector)
        return x

    def step(
        self, inputs: Sequence[jax.Array], at: tuple[jax.Array, ...], context: Context
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Features [B,W] of the place at a frame, row and column; and the inputs of all layers, which it adds to.

        Args:
          inputs: by layer, [B,t+n,h+2n,w+2n,W] with n = kernel // 2 places of padding; those of the first are embedded
            tokens.
        """
        size = (1, 1, 1, context.places.shape[-1])
        here = lax.dynamic_slice(context.places, (0, *at, 0), (len(context.places), *size))
        x, found = self.first(self._window(inputs[0], at), of_window=True) + here, [inputs[0]]
        for layer, before in zip(self.rest, inputs[1:], strict=True):
            found.append(put(before, x, at, self.kernel // 2))
            x = layer(self._window(found[-1], at), context.vector, of_window=True)
        return x[:, 0, 0, 0], found

    def _window(self, x: jax.Array, at: tuple[jax.Array, ...]) -> jax.Array:
        """What a kernel covers at a place."""
        size = (self.kernel // 2 + 1, self.kernel, self.kernel)
        return lax.dynamic_slice(x, (0, *at, 0), (len(x), *size, x.shape[-1]))

    def generate(self, call: Call, context: Context, draw: Draw) -> jax.Array:
        """Tokens [B,t,h,w]; see `models.prior`. No layer computes a place twice (Ramachandran et al., 2017, "Fast
        generation for convolutional autoregressive models").
        """
        t, h, w, width = context.places.shape[1:]
        n = self.kernel // 2
        empty = jnp.zeros((len(context.vector), t + n, h + 2 * n, w + 2 * n, width), context.places.dtype)

        def one(inputs: list[jax.Array], place: jax.Array) -> tuple[list[jax.Array], jax.Array]:
            at = (place // (h * w), place // w % h, place % w)
            features, inputs = call("step", inputs, at, context)
            token, embedded = draw(features, place)
            return [put(inputs[0], embedded[:, None, None, None], at, n), *inputs[1:]], token

        _, tokens = lax.scan(one, [empty] * self.layers, jnp.arange(t * h * w))
        return tokens.reshape(t, h, w, -1).transpose(3, 0, 1, 2)


def put(x: jax.Array, value: jax.Array, at: tuple[jax.Array, ...], n: int) -> jax.Array:
    """x [B,t,h,w,W] with the value [B,1,1,1,W] at n places beyond a frame, row and column."""
    return lax.dynamic_update_slice(x, value.astype(x.dtype), (0, *(index + n for index in at), 0))
