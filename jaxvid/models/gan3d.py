"""The generator of 3-D convolutions: the layout of DCGAN (Radford et al., 2016; for video Vondrick et al., 2016)."""

from __future__ import annotations

import flax.linen as nn
import jax

from jaxvid.models.gan_blocks import Layers, Noise, joined


class Generator(nn.Module):
    """{"video": noise [B,noise]} and a condition [B,F] or None -> video [B,T,H,W,C], all painted from one code.

    Attributes:
      noise: how many normal numbers a video is made of.
    """

    layers: Layers
    noise: int = 100

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of one video's noise."""
        return {"video": (self.noise,)}

    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        code = joined(noise["video"], condition)
        return self.layers(code[:, None], self.layers.still(noise["video"], condition), train)
