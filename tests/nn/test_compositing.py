"""Compositing: where the foreground is, and what it hides."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxvid.nn import compositing

FULL = math.log(2.0)  # the size at which an image fills the frame


def posed(image: jax.Array, size: tuple[int, int], *poses: list[float]) -> jax.Array:
    return compositing.warp(image[None], jnp.asarray([poses]), size)[0]


def test_an_image_is_placed_by_pixels_quarter_turns_and_doublings() -> None:
    image = jax.random.normal(jax.random.key(0), (6, 6, 2))
    quarter = math.pi / 2
    same, right, down, turned = posed(
        image, (6, 6), [0, 0, FULL, 0], [1 / 3, 0, FULL, 0], [0, 2 / 3, FULL, 0], [0, 0, FULL, quarter]
    )
    np.testing.assert_allclose(same, image, atol=1e-5)
    np.testing.assert_allclose(right, jnp.pad(image[:, :-1], ((0, 0), (1, 0), (0, 0))), atol=1e-5)
    np.testing.assert_allclose(down, jnp.pad(image[:-2], ((2, 0), (0, 0), (0, 0))), atol=1e-5)
    np.testing.assert_allclose(turned, jnp.rot90(image, -1), atol=1e-5)  # clockwise
    flat = posed(jnp.ones((6, 6, 1)), (12, 12), [0, 0, 0, 0])[0, ..., 0]  # fills the middle half of each side
    np.testing.assert_allclose(flat, np.pad(np.ones((6, 6)), 3), atol=1e-5)


def test_the_gradient_between_the_corners_is_a_plane_where_they_are() -> None:
    corners = jnp.asarray([[0.0, 1.0], [2.0, 3.0]])[None, ..., None]
    found = compositing.color_gradient(corners, (4, 5))[0, 0, ..., 0]
    row, column = np.meshgrid((np.arange(4) + 0.5) / 4, (np.arange(5) + 0.5) / 5, indexing="ij")
    np.testing.assert_allclose(found, 2 * row + column, atol=1e-6)


def test_warping_interpolates_as_scipy_does() -> None:
    image = jax.random.normal(jax.random.key(0), (5, 5, 1))
    pose = [0.2, -0.3, FULL + 0.4, 0.7]  # larger than the frame, so that a pixel is narrower than one of the image
    y, x = np.meshgrid(*((np.arange(n) + 0.5) * 2 / n - 1 for n in (8, 8)), indexing="ij")
    turn = np.exp(-1j * pose[3]) / (np.exp(pose[2]) / 2)
    at = (x - pose[0] + 1j * (y - pose[1])) * turn
    coordinates = [(part + 1) * 5 / 2 - 0.5 for part in (at.imag, at.real)]
    expected = jax.scipy.ndimage.map_coordinates(image[..., 0], coordinates, order=1)
    np.testing.assert_allclose(posed(image, (8, 8), pose)[0, ..., 0], expected, atol=1e-5)


def test_the_foreground_hides_as_much_as_its_mask_says_and_has_no_dark_edge() -> None:
    background = jax.random.uniform(jax.random.key(0), (1, 1, 6, 6, 3))
    image, pose = jnp.ones((1, 6, 6, 3)), jnp.asarray([[[0.0, 0.0, FULL, 0.0], [0.15, 0.0, 0.3, 0.4]]])
    half = compositing.composite(background, image, jnp.full((1, 6, 6, 1), 0.5), pose)
    np.testing.assert_allclose(half[:, :1], (background + 1) / 2, atol=1e-5)
    white = compositing.composite(jnp.ones_like(background), image, jnp.ones((1, 6, 6, 1)), pose)
    np.testing.assert_allclose(white, 1.0, atol=1e-5)


def test_bounded_poses_stay_in_the_frame() -> None:
    poses = compositing.bounded_poses(jnp.asarray([[0.0] * 4, [9.0] * 4, [-9.0] * 4]))
    side = np.exp(poses[:, 2]) / 2  # in frames
    np.testing.assert_allclose(poses[:, :2], [[0, 0], [1, 1], [-1, -1]], atol=1e-5)
    np.testing.assert_allclose(side, [0.370, 1.007, 0.136], atol=1e-3)
    np.testing.assert_allclose(poses[:, 3], [0, 9, -9])
