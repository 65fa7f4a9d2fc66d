"""The generator of 3-D convolutions: the layout of DCGAN (Radford et al., 2016; for video Vondrick et al., 2016)."""

import flax.linen as nn
import jax

from jaxvid.models.gan_blocks import Compositor, Noise, concatenate
from jaxvid.shapes import expect


class Generator(nn.Module):
    """{"video": noise [B,noise]} and a condition [B,F] or None -> video [B,T,H,W,C], rendered from one code."""

    preserve_adopted_names = True  # a submodule's own name leads to its parameters

    compositor: Compositor
    noise: int = 100  # how many normal numbers a video is made of

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """By name, the shape of one video's noise."""
        return {"video": (self.noise,)}

    def __call__(self, noise: Noise, condition: jax.Array | None, train: bool) -> jax.Array:
        """Noise and condition -> video in [-1, 1], float32."""
        video_noise = noise["video"]
        expect(f"[B,{self.noise}]", float, noise=video_noise)
        static_codes = self.compositor.static_codes(video_noise, condition)
        return self.compositor(concatenate(video_noise, condition)[:, None], static_codes, train)
