"""Several processes as one: what the first one finds, what all find, and an end for all where one of them fails."""

import contextlib
import itertools
import json
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state  # JAX exports neither its store of texts nor the barriers of its clients
from jax.experimental import multihost_utils

PATIENCE = 3600  # seconds for the answer of a process, which may be looking through its data
SIGHT = 60.0  # seconds until a shared folder shows what another process has written
Tree = TypeVar("Tree")
_questions = itertools.count()  # processes ask the same questions in the same order


def of_first(find: Callable[[], Any]) -> Any:
    """What process 0 finds, a value of JSON, for all processes; the others wait for it and compute nothing.

    Raises OSError where process 0 does not answer.
    """
    client, number = global_state.client, next(_questions)
    if client is None:
        return find()
    key = f"jaxvid/{number}"
    if global_state.process_id == 0:
        found = find()
        client.key_value_set(key, json.dumps(found))
        return found
    with _answered("process 0"):
        return json.loads(client.blocking_key_value_get(key, PATIENCE * 1000))


def of_all(value: Any) -> list[Any]:
    """The values of JSON that all processes have found, in their order. Raises OSError where one does not answer."""
    client, number = global_state.client, next(_questions)
    if client is None:
        return [value]
    key = f"jaxvid/{number}/"
    client.key_value_set(f"{key}{global_state.process_id}", json.dumps(value))
    with _answered("another process"):
        client.wait_at_barrier(f"jaxvid/{number}", PATIENCE * 1000)
        found = {int(name.rpartition("/")[2]): text for name, text in client.key_value_dir_get(key)}
    return [json.loads(found[process]) for process in sorted(found)]


def rows_of_all(rows: Tree) -> Tree:
    """The rows of all processes, in their order, on each of them: NumPy arrays [n, ..., d], whose n may differ."""
    if jax.process_count() == 1:
        return rows
    counts = of_all(len(jax.tree.leaves(rows)[0]))

    def padded(part: np.ndarray) -> np.ndarray:  # bytes, since JAX has no 64 bits
        raw = np.zeros((max(counts), *part.shape[1:]), part.dtype)
        raw[: len(part)] = part
        return raw.view(np.uint8)

    def whole(parts: np.ndarray, part: np.ndarray) -> np.ndarray:
        raw = np.concatenate([each[:count] for each, count in zip(parts, counts, strict=True)])
        return np.ascontiguousarray(raw).view(part.dtype)

    return jax.tree.map(whole, multihost_utils.process_allgather(jax.tree.map(padded, rows)), rows)


def wait_for(shown: Callable[[], bool]) -> bool:
    """Whether a shared folder shows what another process has written to it, within a minute."""
    until = time.monotonic() + SIGHT
    while not (found := shown()) and time.monotonic() < until:
        time.sleep(0.2)
    return found


@contextlib.contextmanager
def _answered(whom: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        why = str(error).partition("\n")[0][:160]
        raise OSError(f"{whom} does not answer ({why}): it has ended, or has waited for more than an hour.") from error


@contextlib.contextmanager
def together(
    ending: Callable[[BaseException], tuple[int, str]], alike: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    """Where one process fails, all of them end within seconds, with its sentence, instead of waiting for it for ever.

    One that is killed cannot say so: JAX ends the others when they have not heard of it for 100 seconds.

    Args:
      ending: the exit code and the sentence of an error; it raises again what is an error of the program.
      alike: exceptions that all processes raise at the same time.
    """
    client = global_state.client
    if client is None:
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(client, over), daemon=True)
    watcher.start()
    try:
        yield
    except alike:
        raise
    except BaseException as error:
        over.set()
        watcher.join()
        _fail(client, error, ending)
    finally:
        over.set()
        watcher.join()


def _fail(client: Any, error: BaseException, ending: Callable[[BaseException], tuple[int, str]]) -> None:
    try:
        code, sentence = ending(error)
    except BaseException:
        traceback.print_exc()
        code, sentence = 1, f"{type(error).__name__}: {error}"
    else:
        print(sentence, file=sys.stderr)
    with contextlib.suppress(RuntimeError):  # the coordinator is gone
        client.key_value_set(f"jaxvid/failed/{global_state.process_id}", json.dumps([code, sentence]))
    _leave(client, code)


def _watch(client: Any, over: threading.Event) -> None:
    """Ends this process as soon as another one says that it has failed; its main thread may wait in a reduction."""
    while not over.wait(1.0):
        with contextlib.suppress(RuntimeError):  # the coordinator is gone, which JAX itself notices
            for name, text in client.key_value_dir_get("jaxvid/failed/")[:1]:
                code, sentence = json.loads(text)
                print(f"Ended with process {name.rpartition('/')[2]}, which says: {sentence}", file=sys.stderr)
                _leave(client, code)


def _leave(client: Any, code: int) -> None:
    """Ends this process when all others do: the usual end would wait minutes for them."""
    with contextlib.suppress(RuntimeError):
        client.wait_at_barrier("jaxvid/left", 10_000)
    for child in multiprocessing.active_children():
        child.kill()
    if global_state.process_id == 0:
        time.sleep(1.0)  # the others end with noise where its coordinator ends before them
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
