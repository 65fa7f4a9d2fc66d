"""Tasks: which pixels are known, and what the others look like to the tokenizer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxvid import completion
from jaxvid.completion import TASKS, known_at_random
from jaxvid.tokens import filled

SIZE = (5, 8, 12)


def masks(task: str, count: int = 300) -> np.ndarray:
    drawn = jax.vmap(lambda key: jnp.broadcast_to(TASKS[task](key, SIZE), SIZE))(
        jax.random.split(jax.random.key(0), count)
    )
    return np.asarray(drawn, int)


def test_prediction_knows_any_number_of_first_frames() -> None:
    found = masks("prediction")
    assert not np.ptp(found, (2, 3)).any()
    counts = found[:, :, 0, 0].sum(1)
    assert set(counts) == {1, 2, 3, 4} and (np.bincount(counts)[1:] > 40).all()
    assert all(row[:count].all() for row, count in zip(found[:, :, 0, 0], counts, strict=True))


def test_interpolation_knows_both_ends() -> None:
    found = masks("interpolation")
    assert not np.ptp(found, (2, 3)).any()
    rows = {tuple(row) for row in found[:, :, 0, 0].tolist()}
    gaps = [(first, last) for first in range(1, 4) for last in range(first + 1, 5)]
    assert rows == {tuple(frame < first or frame >= last for frame in range(5)) for first, last in gaps}


@pytest.mark.parametrize("task", ["inpainting", "outpainting"])
def test_boxes_are_of_all_places_and_sizes_and_stand_still(task: str) -> None:
    found = masks(task) ^ (task == "inpainting")  # True in the box
    assert not np.ptp(found, 1).any()
    sizes = set()
    for box in found[:, 0]:
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert box.sum() == len(rows) * len(columns) > 0 and np.ptp(rows) == len(rows) - 1
        sizes.add((len(rows), len(columns)))
    assert {height for height, _ in sizes} == set(range(2, 7)) and {width for _, width in sizes} == set(range(3, 10))
    share = found[:, 0].mean(0)
    assert share.min() > 0 and share.max() < 0.9


def test_tasks_are_drawn_as_often() -> None:
    tasks = tuple(TASKS)
    found, known = jax.vmap(lambda key: known_at_random(key, tasks, SIZE))(jax.random.split(jax.random.key(1), 500))
    assert (np.bincount(found) > 60).all()
    assert not np.asarray(known)[found == 0].any() and np.asarray(known)[found > 0].any((1, 2, 3)).all()


def test_an_unknown_pixel_is_that_of_the_nearest_frame_or_the_average_color() -> None:
    generator = np.random.default_rng(0)
    video = generator.uniform(-1, 1, (2, 6, 3, 4, 3)).astype(np.float32)
    known = generator.random((2, 6, 3, 4)) < 0.3
    known[0, :, 1, 1] = False
    known[1] = False
    found = np.asarray(filled(jnp.asarray(video), jnp.asarray(known)))
    for clip, frame, row, column in np.ndindex(known.shape):
        there = np.flatnonzero(known[clip, :, row, column])
        if len(there):
            nearest = min(there, key=lambda other: (abs(other - frame), other))  # noqa: B023
            np.testing.assert_array_equal(found[clip, frame, row, column], video[clip, nearest, row, column])
        elif known[clip].any():
            np.testing.assert_allclose(found[clip, frame, row, column], video[clip][known[clip]].mean(0), rtol=1e-5)
    np.testing.assert_array_equal(found[1], 0)


@pytest.mark.parametrize(
    ("tasks", "frames", "sentence"),
    [
        (["generation"], 8, "expected a tuple"),
        ((), 8, "expected a tuple"),
        (("generation", "generation"), 8, "of different tasks"),
        (("generation", "inpaintin"), 8, "did you mean inpainting"),
        (("prediction",), 1, "prediction, which needs 2 frames, and data.frames is 1"),
        (("interpolation",), 2, "interpolation, which needs 3 frames"),
    ],
)
def test_tasks_that_cannot_work_are_named(tasks: tuple, frames: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        completion.check(tasks, frames)
