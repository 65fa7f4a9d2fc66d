"""Descriptors of motion that ignore appearance: a companion of FVD that needs no network.

FVD depends mostly on single frames: it hardly changes when sharp frames move wrongly (Ge et al. 2024). The Frechet
distance between the `motion_features` of real and of fake clips, called Frechet motion distance here, depends on motion
almost alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxvid.shapes import expect

GRIDS = (1, 2, 4)  # windows per side of the frame; neighbors overlap by half
WAVES = ((2, 0), (0, 2), (2, 2), (2, -2))  # cycles per window, down and to the right
LAGS = (1, 2)  # frames
NOISE = 4.0  # gray levels, in each channel: contrast far below this counts as static


def motion_features(video: jax.Array) -> jax.Array:
    """Motion descriptors of clips: uint8 [B,T,H,W,C], T >= 2, any size -> float32 [B,60] in [-1, 1]. jittable.

    Let c_p(t) be the frame's local Fourier coefficient: its sum, in every channel, times a Hann window p and a plane
    wave with wave vector k. Where the content moves by v, c_p(t + lag) = c_p(t) exp(-i k.v lag). With sums over the
    channels, from |c_p|^2 in the two frames, energy e, and from their product, cross spectrum s,

        s_p(t) = c_p(t + lag) conj(c_p(t)) + noise,       e_p(t) = (|c_p(t + lag)|^2 + |c_p(t)|^2) / 2 + noise,

    each k and lag gives the coherence  sum_pt s_p(t) / sum_pt e_p(t),  real and imaginary part: the characteristic
    function of the clip's velocities, 1 where all is static. Each k also gives the steadiness, 1 for constant velocity,

        Re sum_pt s_p(t + 1) conj(s_p(t)) / sqrt(e_p(t + 1) e_p(t))  /  sum_pt sqrt(e_p(t + 1) e_p(t)),    lag = 1.

    Windows come 1, 2 and 4 per side, with waves of 1/2, 1/3 and 1/5 of the frame in four directions; lags are 1 and 2.
    Brightness, contrast, inverted or rotated colors and a symmetric blur cancel, up to rounding and to the `noise` of 4
    gray levels in e. In a clip of 2 frames, lag 2 is replaced by lag 1 and the steadiness is 1.

    Limits: displacements of more than half a wavelength alias, and waves in frames of less than 10 pixels. Windows are
    averaged: the place of a motion does not matter, and a single event, such as two frames swapped, has little weight.
    Strong noise lowers all coherences. Reversed clips differ only as far as their velocities and accelerations do.
    Velocities are in frame sizes per frame: compare clips of the same frame rate, field of view and T.

    Raises ValueError if video is not uint8 [B,T,H,W,C] with T >= 2.
    """
    expect("[B,T>=2,H,W,C]", "uint8", video=video)
    pixels = video.astype(jnp.float32)
    pixels = pixels - pixels.mean(axis=(1, 2, 3), keepdims=True)
    return jnp.stack([part for grid in GRIDS for wave in WAVES for part in _one_wave(pixels, grid, wave)], axis=-1)


def _one_wave(pixels: jax.Array, grid: int, wave: tuple[int, int]) -> list[jax.Array]:
    """Coherences, re and im for every lag, and steadiness, float32 [B] each."""
    frames, channels = pixels.shape[1], pixels.shape[-1]
    down, right = (_local_waves(n, grid, k) for n, k in zip(pixels.shape[2:4], wave, strict=True))
    coefficients = jnp.einsum("pi,btijc,qj->btpqc", down, pixels, right, precision=lax.Precision.HIGHEST)
    noise = NOISE**2 * channels * float(np.square(np.abs(down)).sum(1).mean() * np.square(np.abs(right)).sum(1).mean())
    energies = jnp.square(jnp.abs(coefficients)).sum(-1) + noise
    features = []
    for lag in (min(lag, frames - 1) for lag in LAGS):
        cross = (coefficients[:, lag:] * coefficients[:, :-lag].conj()).sum(-1) + noise
        energy = (energies[:, lag:] + energies[:, :-lag]) / 2
        coherence = cross.sum((1, 2, 3)) / energy.sum((1, 2, 3))
        features += [coherence.real, coherence.imag]
        if lag == 1:
            steadiness = _steadiness(cross, energy)
    return [*features, steadiness]


def _steadiness(cross: jax.Array, energy: jax.Array) -> jax.Array:
    """Float32 [B] from cross spectra and energies [B,T-1,P,P] of lag 1."""
    if cross.shape[1] == 1:
        return jnp.ones(len(cross))
    weights = jnp.sqrt(energy[:, 1:] * energy[:, :-1])
    products = (cross[:, 1:] * cross[:, :-1].conj()).real
    return (products / weights).sum((1, 2, 3)) / weights.sum((1, 2, 3))


def _local_waves(size: int, grid: int, cycles: int) -> np.ndarray:
    """complex64 [grid,size]: waves under Hann windows of 2 / (grid + 1) of the side."""
    length = 2 / (grid + 1)
    starts = np.arange(grid) * length / 2
    position = ((np.arange(size) + 0.5) / size - starts[:, None]) / length
    window = np.where((position > 0) & (position < 1), np.square(np.sin(np.pi * position)), 0)
    return (window * np.exp(-2j * np.pi * cycles * position) / (size * length)).astype(np.complex64)
