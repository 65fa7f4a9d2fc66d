"""An invertible preprocessor of video: frames fold into channels, and couplings predict one half from the other."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxvid.nn.conv import Conv, Triple, depth_to_space, space_to_depth
from jaxvid.shapes import expect

FOLDED: Triple = (2, 2, 2)  # frames, rows and columns that become channels
LIMIT = 0.5  # of every log-scale: no layer, nor its inverse, scales by more than exp(LIMIT)


class ActNorm(nn.Module):
    """exp(log_scale) x + shift, learned by channel (Kingma and Dhariwal, 2018, section 3.1).

    It starts as the identity, not at the statistics of the first batch: pixels are in [-1, 1] already.
    """

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B,T,H,W,C] -> the same shape, and the log-determinant []."""
        shift, log_scale = self.learned(x.shape[-1])
        return x * jnp.exp(log_scale) + shift, log_scale.sum() * (x[0].size // x.shape[-1])

    def inverse(self, y: jax.Array) -> jax.Array:
        """What `__call__` makes y of."""
        shift, log_scale = self.learned(y.shape[-1])
        return (y - shift) * jnp.exp(-log_scale)

    @nn.compact
    def learned(self, channels: int) -> tuple[jax.Array, jax.Array]:
        """Shift and log-scale [C], the latter within LIMIT."""
        shift = self.param("shift", nn.initializers.zeros, (channels,))
        return shift, bounded(self.param("log_scale", nn.initializers.zeros, (channels,)))


class Coupling(nn.Module):
    """The first half of the channels stays; the second is shifted by a function of it (Dinh et al., 2017, section 3.2).

    The function is two convolutions, 1x3x3 and 1x1x1: frames that predict each other are among the channels, and wider
    kernels were slower and no better in a short trial. The second starts at zero, and so the coupling as the identity.

    Attributes:
      width: channels between the two.
      scale: whether the second half is scaled too, by exp of a log-scale within LIMIT.
    """

    width: int
    scale: bool = False

    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B,T,H,W,C] with an even C -> the same shape, and the log-determinants [B]."""
        kept, moved = jnp.split(x, 2, -1)
        shift, log_scale = self.learned(kept)
        return jnp.concatenate([kept, moved * jnp.exp(log_scale) + shift], -1), log_scale.sum((1, 2, 3, 4))

    def inverse(self, y: jax.Array) -> jax.Array:
        """What `__call__` makes y of."""
        kept, moved = jnp.split(y, 2, -1)
        shift, log_scale = self.learned(kept)
        return jnp.concatenate([kept, (moved - shift) * jnp.exp(-log_scale)], -1)

    @nn.compact
    def learned(self, kept: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Half of the channels [B,T,H,W,C/2] -> shift and log-scale of the other half, of the same shape."""
        channels, zeros = kept.shape[-1], nn.initializers.zeros
        outputs = 2 * channels if self.scale else channels
        # GPUs and TPUs round products of float32 as well, and the inverse would see other roundings.
        with jax.default_matmul_precision("highest"):
            hidden = nn.silu(Conv(self.width, (1, 3, 3))(kept))
            learned = Conv(outputs, (1, 1, 1), kernel_init=zeros)(hidden)
        if not self.scale:
            return learned, jnp.zeros_like(learned)
        shift, log_scale = jnp.split(learned, 2, -1)
        return shift, bounded(log_scale)


class Invertible(nn.Module):
    """Video [B,T,H,W,C] -> [B,T/2,H/2,W/2,8C] of the same values, at first, and exactly back.

    Blocks of 2x2x2 pixels become channels, those of the earlier frame first; then `number` times `ActNorm`, `Coupling`
    and the channels in reverse. So the first coupling predicts the later frame of each two from the earlier one and
    leaves what is new in it, and the second moves the earlier frame by that: a learned lifting scheme.

    Computed in float32, whatever the type of the video: the inverse is exact to 1e-5.
    An odd `number` leaves the channels in reverse. Raises ValueError where a size is odd.
    """

    number: int = 4
    width: int = 128
    scale: bool = False
    remat: bool = False

    def setup(self) -> None:
        coupling = nn.remat(Coupling, methods=("__call__", "inverse")) if self.remat else Coupling
        self.norms = [ActNorm() for _ in range(self.number)]
        self.couplings = [coupling(width=self.width, scale=self.scale) for _ in range(self.number)]

    def __call__(self, video: jax.Array) -> tuple[jax.Array, jax.Array]:
        """[B,T,H,W,C] -> [B,T/2,H/2,W/2,8C], and the log of the determinant of the Jacobian [B], both float32."""
        expect("[B,T,H,W,C]", float, video=video)
        x, total = space_to_depth(video.astype(jnp.float32), FOLDED), jnp.zeros(len(video))
        for norm, coupling in zip(self.norms, self.couplings, strict=True):
            x, of_norm = norm(x)
            x, of_coupling = coupling(x)
            x, total = x[..., ::-1], total + of_norm + of_coupling
        return x, total

    def inverse(self, folded: jax.Array) -> jax.Array:
        """[B,T/2,H/2,W/2,8C] -> the video [B,T,H,W,C], float32, that `__call__` makes it of."""
        expect("[B,T,H,W,C]", float, folded=folded)
        x = folded.astype(jnp.float32)
        for norm, coupling in zip(reversed(self.norms), reversed(self.couplings), strict=True):
            x = norm.inverse(coupling.inverse(x[..., ::-1]))
        return depth_to_space(x, FOLDED)


def bounded(log_scale: jax.Array) -> jax.Array:
    """Any number -> within LIMIT, and near 0 the number itself."""
    return LIMIT * jnp.tanh(log_scale / LIMIT)
