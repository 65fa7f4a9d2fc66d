"""The one training loop. It never asks which method it runs."""

import collections
import contextlib
import functools
import itertools
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvid import cache as cache_lib
from jaxvid import conditions, data, parallel, pretrained, processes
from jaxvid import config as config_lib
from jaxvid.cache import Cache
from jaxvid.checkpoint import Checkpointer, abstract_state, described, placed, verify
from jaxvid.command import STOPPED
from jaxvid.core import Method, Metrics, TrainState, find_method, in_32_bits, make_method
from jaxvid.evaluate import suite
from jaxvid.evaluate.heldout import Scorer, evaluate, has_truth, make_eval
from jaxvid.evaluate.meter import Meter, with_weights
from jaxvid.evaluate.suite import Score
from jaxvid.files import local_path, locked
from jaxvid.recorder import Recorder
from jaxvid.run import PLACES, account, claim, refuse_exported
from jaxvid.shapes import expect

AHEAD = 2  # batches on the device before they are needed
LOCK = ".lock"  # in the work folder
COPIES = 4  # batches on the host at once, at least: three in the pipeline, and the one that shows the shapes
Item = TypeVar("Item")
Result = TypeVar("Result")


class NotFinite(Exception):
    """A metric is nan or inf; the newest checkpoint is from before that."""


class Interrupted(Exception):
    """SIGTERM, SIGHUP or Ctrl-C came, and the state has been saved since."""

    def __init__(self, step: int, signal_number: int):
        super().__init__(f"Stopped after step {step}, which is saved; the same command resumes there.")
        self.step, self.signal_number = step, signal_number

    def _render_traceback_(self) -> list[str]:
        """The lines that IPython prints instead of a traceback: an interrupted cell has not failed."""
        return [f"Stopped after step {self.step}, which is saved; running the cell again resumes there."]


class Stopped(KeyboardInterrupt):
    """Ctrl-C came outside of the loop, where nothing is to be saved, or came again."""

    def _render_traceback_(self) -> list[str]:
        """As that of Interrupted."""
        return [str(self)]


class Job(NamedTuple):
    """What stays the same during a run."""

    config: ConfigDict  # with what the data fill in: the class names and words of a condition
    mesh: Mesh
    method: Method  # made for the mode of `train.parallel`
    plain: Method  # made without a mapped axis: for initializing and evaluating
    train_source: data.Source
    eval_source: data.Source
    eval_batches: Callable[[], data.Batches]  # this process's rows of the held-out batches
    score: Callable[[TrainState], list[Score]]  # by the metrics of config.eval
    cache: Cache | None = None  # of tokens, where the training clips come from one

    def train_batches(self, start: int) -> data.Batches:
        """This process's rows of all batches from the `start`-th on."""
        train, share = self.config.train, (jax.process_index(), jax.process_count())
        return data.train_batches(
            self.train_source, train.batch_size, self.config.data.resolution, train.seed, start, train.workers,
            process_index=share[0], process_count=share[1],
        )  # fmt: skip


def prepare(config: ConfigDict) -> Job:
    """Builds what a run needs from its config, without computing anything yet.

    Raises ValueError: the config or the data cannot work; the message is one sentence.
    """
    mesh = parallel.make_mesh()
    config_lib.check(config, mesh.size)
    module = find_method(config.method)
    train_source, eval_source = (data.make_source(config.data, split) for split in ("train", "eval"))
    config = getattr(module, "complete", conditions.complete)(config, train_source)
    if cache := cache_lib.find(config, train_source):
        train_source = cache.tokens
    train_source, eval_source = conditions.wrap(config, train_source, train=True), conditions.wrap(config, eval_source)
    method, plain = make_method(config, parallel.axis_name(config.train.parallel)), make_method(config)
    eval_batches = functools.partial(
        data.eval_batches, eval_source, config.train.batch_size, config.data.resolution, config.eval.examples,
        process_index=jax.process_index(), process_count=jax.process_count(),
    )  # fmt: skip
    meter = make_meter(config, len(eval_source), has_truth(plain, eval_source))
    score = Scorer(meter, plain, eval_batches, mesh)
    return Job(config, mesh, method, plain, train_source, eval_source, eval_batches, score, cache)


def make_meter(config: ConfigDict, clips: int, truth: bool = True) -> Meter:
    """What the metrics of `config.eval` need of held-out data of so many clips, with a `truth` to compare with or not.

    Those of `config.eval.optional` are left out with a warning where their weights are not there, or they cannot work.
    Raises ValueError for others that cannot work.
    """
    metrics, size = suite.named(config.eval.metrics), [config.data.resolution] * 2
    settings = config.data.frames, size, {"held-out": min(clips, config.eval.examples)}, truth
    suite.check(metrics, *settings)
    able = []
    for name in with_weights(config.eval.optional):
        try:
            suite.check([name], *settings)
            able.append(name)
        except ValueError as error:
            warnings.warn(f"{name} is left out of the evaluations: {error}", stacklevel=2)
    everywhere = set.intersection(*map(set, processes.of_all(able)))  # the weights lie in the cache of each host
    metrics += [name for name in able if name in everywhere]
    return Meter(suite.named(metrics), suite.protocols(config.eval.protocols), intervals=False)


def check_alike(config: ConfigDict, sources: Mapping[str, data.Source]) -> None:
    """Raises ValueError where this process has another config, or other data, than process 0."""
    found = config_lib.flatten(config_lib.to_dict(config) | account(config.data, sources))
    mine = {name: value for name, value in found.items() if name.removeprefix("data.") not in PLACES}
    first = processes.of_first(lambda: mine)
    for name in sorted(mine.keys() | first.keys()):
        here, there = (fields.get(name, "(absent)") for fields in (mine, first))
        if here != there:
            here, there = map(config_lib.abbreviated, (here, there))
            raise ValueError(
                f"process {jax.process_index()} has {name} {here}, and process 0 {there}: give all processes one "
                "command line, the same data and one --workdir."
            )


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Raises Stopped in place of KeyboardInterrupt."""
    try:
        yield
    except KeyboardInterrupt:
        raise Stopped(STOPPED) from None


@stoppable()
@in_32_bits
def train(config: ConfigDict, workdir: str | Path) -> TrainState:
    """Trains, evaluates and saves until `config.train.steps`, resuming from the newest checkpoint in `workdir`.

    Args:
      config: of a recipe in `configs/`; `jaxvid.config.base()` documents the common fields.
      workdir: receives the config, checkpoints, metrics.jsonl, TensorBoard events, pictures and report.html.

    Returns:
      The state after the last step on all devices, sharded as `train.shard` says.

    Raises:
      ValueError: the config or the data cannot work, or `workdir` is in use, or holds a run with another config.
      NotFinite: a metric was not finite.
      Interrupted: a signal came.
      Stopped, a KeyboardInterrupt: Ctrl-C came before the first step, or a second time.
    """
    data.leave_if_rerun()
    config_lib.check_fields(config)
    workdir = Path(local_path(workdir))
    refuse_exported(workdir)
    job = prepare(pretrained.recall(config, workdir))
    config, sources = job.config, {"train": job.train_source, "eval": job.eval_source}
    check_alike(config, sources)
    size, rows = config.data.resolution, config.train.batch_size // jax.process_count()
    batches = COPIES * rows * config.data.frames * size * size * 3
    check_memory(f"reading batches of {rows:,} clips", batches, parallel.free_host_memory())
    with job.eval_batches() as batches:
        example = {name: value for name, value in next(batches).items() if name != "mask"}
    batch = parallel.put_batch(example, job.mesh)
    abstract = abstract_state(job.plain, described(batch))
    shardings = parallel.state_sharding(abstract, job.mesh, config.train.shard)
    with contextlib.ExitStack() as held:
        holder = processes.of_first(lambda: take(workdir, config, sources, held))
        lock = workdir / LOCK  # a folder of this machine alone may hold another run
        if not processes.wait_for(lambda: lock.is_file() and lock.read_text() == holder):
            raise ValueError(
                f"{workdir} is not the folder of process 0: give all processes one --workdir, which all see."
            )
        checkpointer = held.enter_context(contextlib.closing(Checkpointer(workdir, config.train.keep)))
        state = checkpointer.restore(placed(abstract, shardings))
        if state is None:
            state = parallel.make_init(job.plain.init, job.mesh, shardings)(jax.random.key(config.train.seed), batch)
            state = pretrained.adopt(state, job.plain.frozen)
        else:
            verify(state, job.plain.frozen)
        record = Recorder(workdir, config, int(state.step), described(batch), job.plain.headline)
        held.enter_context(contextlib.closing(record))
        record.introduce(job.mesh, state, [source.summary() for source in sources.values()])
        if job.cache:
            record.log(cache_lib.compare(job.cache, config, state, job.mesh))
        state = advance(job, state, checkpointer, record)
        record.finish(int(state.step))
    return state


def take(workdir: Path, config: ConfigDict, sources: Mapping[str, data.Source], held: contextlib.ExitStack) -> str:
    """Claims the work folder, see `run.claim`, and holds it until the stack is closed. Raises ValueError if in use.

    Returns what the lock says about this process and its machine.
    """
    claim(workdir, config, sources)
    held.enter_context(locked(workdir / LOCK))
    return (workdir / LOCK).read_text()


def advance(job: Job, state: TrainState, checkpointer: Checkpointer, record: Recorder) -> TrainState:
    """The loop itself: from `state` to the last step, saving and evaluating on the way."""
    config, mode = job.config, job.config.train.parallel
    start, end = int(state.step), config.train.steps
    eval_step = make_eval(job.plain.eval_step, job.mesh)
    put = functools.partial(parallel.put_batch, mesh=job.mesh, mode=mode)
    unlogged: list[tuple[int, Metrics]] = []
    with signals() as signal_at:
        if record.owes_evaluation(start):  # killed between the checkpoint and the evaluation of a step
            evaluation(job, eval_step, state, start, signal_at, record)
        if start >= end:
            return state
        with job.train_batches(start) as batches:
            on_device = ahead(until_ended(batches, lambda: signal_at(start)), put)
            first = list(itertools.islice(on_device, 1))
            train_step: Any = compiled(job, state, first[0], record) if first else None
            on_device = itertools.chain(first, on_device)
            # Operations one by one move constants to the device.
            guard = "disallow" if isinstance(train_step, jax.stages.Compiled) else "allow"
            record.clock.restart()
            for step in range(start + 1, end + 1):
                if (batch := record.clock.next(on_device)) is None:
                    break
                with jax.transfer_guard(guard):
                    state, metrics = train_step(state, batch)
                unlogged.append((step, metrics))
                evaluating = record.evaluates(step)
                saving = evaluating or step % config.train.save_every == 0 or signal_at(step)
                # Metrics are fetched one step late, so that the device always has the next step to work on.
                while len(unlogged) > (0 if saving else 1):
                    record.step(*finite(*unlogged.pop(0)))
                if not saving:
                    continue
                if state.step != step:
                    raise ValueError(f"train_step left state.step at {state.step} after step {step}: it has to add 1.")
                checkpointer.save(state)
                if evaluating and not signal_at(step):
                    evaluation(job, eval_step, state, step, signal_at, record)
                if stop := signal_at(step):
                    raise Interrupted(step, stop)
                record.clock.restart()
        if (step := int(state.step)) < end:  # the signal has ended worker processes of the data too
            for line in unlogged:
                record.step(*finite(*line))
            checkpointer.save(state)
            raise Interrupted(step, signal_at(step))
    return state


def until_ended(batches: Iterator[Item], signalled: Callable[[], int]) -> Iterator[Item]:
    """The batches, which end where a worker process has died of a signal that this process has got too."""
    try:
        yield from batches
    except ValueError:
        if not signalled():
            raise


def compiled(job: Job, state: TrainState, batch: Mapping[str, jax.Array], record: Recorder) -> Callable:
    """The training step, checked, and compiled for shapes as of this state and batch.

    Raises ValueError: it returns what it may not, or needs more memory than there is.
    """
    train = job.config.train
    shardings = parallel.state_sharding(state, job.mesh, True) if train.shard else None
    step = parallel.make_step(job.method.train_step, job.mesh, train.parallel, shardings)
    if jax.config.jax_disable_jit:  # type: ignore[attr-defined]  # for debugging: then nothing is compiled
        check_step(jax.eval_shape(step, state, batch), state)
        return step
    lowered = step.lower(state, batch)
    check_step(lowered.out_info, state)
    program = lowered.compile()
    if (analysis := program.memory_analysis()) is not None:
        made = analysis.output_size_in_bytes - analysis.alias_size_in_bytes + analysis.temp_size_in_bytes
        record.log_memory(analysis.argument_size_in_bytes + made)
        check_memory("a training step", made, parallel.free_memory())
    return program


def check_memory(what: str, needed: int, free: int | None) -> None:
    """Raises ValueError where something needs more bytes than there are, before they are taken."""
    if free is not None and needed > free:
        raise ValueError(
            f"{what} needs {needed / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are free: lower "
            "train.batch_size, data.frames or data.resolution, or the sizes of the model."
        )


def evaluation(
    job: Job, eval_step: Callable, state: TrainState, step: int, signal_at: Callable[[int], int], record: Recorder
) -> None:
    """Evaluates on the held-out clips and records what was found, unless a signal comes first."""
    with job.eval_batches() as batches:
        until_stopped = itertools.takewhile(lambda _: not signal_at(step), batches)
        found = evaluate(eval_step, state, until_stopped, job.mesh)
    if not signal_at(step):
        found = found.with_scores(job.score(state))
        record.evaluation(step, found, job.plain.warnings(found.scalars))


def check_step(found: Any, state: TrainState) -> None:
    """Raises ValueError, which names the entry, for shapes that a `train_step` may not return."""
    if not (isinstance(found, tuple) and [type(each) for each in found] == [TrainState, dict]):
        raise ValueError(f"train_step returned {type(found).__name__}, expected (TrainState, dict of metrics).")
    before, after = described(state), described(found[0])
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            was, now = (entries.get(name, "absent") for entries in (before, after))
            raise ValueError(f"train_step made of {name}, {was}, {now}: shapes and dtypes stay what init made them.")
    for name, value in found[1].items():
        expect("[]", **{f"the metric {name} of train_step": value})


def finite(step: int, metrics: Metrics) -> tuple[int, dict[str, float]]:
    """Fetches a step's metrics. Raises NotFinite, naming the first that is not."""
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise NotFinite(
                f"{name} is {value} at step {step}; all checkpoints are from before that. "
                "Lower optim.learning_rate or optim.clip in another --workdir, or look at the data of that step."
            )
    return step, values


def ahead(items: Iterable[Item], put: Callable[[Item], Result]) -> Iterator[Result]:
    """`put` of each item, done AHEAD items before it is asked for, so that transfers overlap with computing."""
    queue: collections.deque[Result] = collections.deque()
    for item in items:
        queue.append(put(item))
        if len(queue) > AHEAD:
            yield queue.popleft()
    yield from queue


@contextlib.contextmanager
def signals() -> Iterator[Callable[[int], int]]:
    """Yields a function of the step: the number of the signal that asks for the end of the run, or 0.

    A second Ctrl-C is not waited for. What `nohup` and its like have the process ignore stays ignored. Several
    processes agree on the step through JAX's preemption service, which knows SIGTERM: other signals become one.
    """
    several, received = jax.process_count() > 1, 0

    def receive(number: int, _: object) -> None:
        nonlocal received
        received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if several:
            os.kill(os.getpid(), signal.SIGTERM)

    def agreed(step: int) -> int:
        return signal.SIGTERM if multihost_utils.reached_preemption_sync_point(step) else 0

    ours = (signal.SIGINT, signal.SIGHUP, *(() if several else (signal.SIGTERM,)))
    heard = [number for number in ours if signal.getsignal(number) is not signal.SIG_IGN]
    main_thread = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, receive) for number in (heard if main_thread else ())}
    try:
        yield agreed if several else lambda step: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
