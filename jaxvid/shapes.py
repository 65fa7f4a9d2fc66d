"""Checks of shapes and dtypes where a public function begins: a wrong argument is one line that names it."""

from typing import Any

import chex


def expect(layout: str, dtype: Any = None, /, **arguments: Any) -> None:
    """Checks that every argument has the layout, such as `expect("[B,T,H,W,3]", "uint8", video=video)`.

    A layout has an entry per axis: a letter for any size, "T>=2" for a least size, a number for that size, "1|3" for
    one of several, and at most one "..." for any number of axes; "[]" is a scalar. B, a batch, holds at least one
    example. A dtype is one, or its name, or `float` or `int` for any of that kind. Arguments are arrays or tracers,
    under the names that the caller knows them by. Only static properties are read: it works under `jit`, `grad` and
    `vmap`, and costs nothing once compiled.

    Raises ValueError: "video is float32 [8,64,64,3], expected uint8 [B,T,H,W,3]."
    """
    entries = layout.strip("[]").split(",") if layout != "[]" else []
    sizes = tuple(_size(entry) for entry in entries)
    wanted = f"{getattr(dtype, '__name__', dtype)} {layout}" if dtype is not None else layout
    batched = entries[:1] == ["B"]
    for name, array in arguments.items():
        try:
            chex.assert_shape([array], sizes)
            _assert_least_sizes(array, ["B>=1", *entries[1:]] if batched else entries)
            if dtype is not None:
                chex.assert_type([array], dtype)
        except AssertionError:
            least = ", of one example at least" if batched and getattr(array, "shape", ())[:1] == (0,) else ""
            raise ValueError(f"{name} is {_described(array)}, expected {wanted}{least}.") from None


def expect_equal(layout: str, dtype: Any = None, /, **arguments: Any) -> None:
    """As `expect`, and checks that all arguments have the same shape, so that none is broadcast."""
    expect(layout, dtype, **arguments)
    try:
        chex.assert_equal_shape(list(arguments.values()))
    except AssertionError:
        found = " and ".join(f"{name} {_described(array)}" for name, array in arguments.items())
        raise ValueError(f"The shapes differ: {found}, expected the same {layout}.") from None


def _size(entry: str) -> Any:
    """An axis as chex has it: None for any size, a number, a set of numbers, or an ellipsis."""
    if entry == "...":
        return ...
    numbers = entry.split("|")
    return {int(number) for number in numbers} if all(number.isdigit() for number in numbers) else None


def _assert_least_sizes(array: Any, entries: list[str]) -> None:
    for place, entry in enumerate(entries):
        if ">=" in entry:
            axis = place - len(entries) if "..." in entries[:place] else place
            if array.shape[axis] < int(entry.partition(">=")[2]):
                raise AssertionError


def _described(array: Any) -> str:
    if not hasattr(array, "shape"):
        return f"a {type(array).__name__}"
    return f"{array.dtype} [{','.join(map(str, array.shape))}]"
