"""Right answers and speed of every family on an accelerator, in 10 minutes: one table last, and all figures as JSON.

    python tests/benchmarks/accelerator.py [--output FOLDER] [--sections answers,tokenizers] [--minutes 9.5] [--smoke]

Each section runs in a process of its own, since XLA reads its flags once, and has a deadline: what it had measured by
then is kept. Sections stand in order of value, and the last ones are left out where --minutes are over. What cannot run
(a package is missing, memory runs out, a flag is unknown) is a row that says so. The section `trace` profiles the step
that takes most time beyond that of a matrix product of as many operations, into FOLDER/trace. `--smoke` runs everything
at tiny sizes on the CPU: its figures mean nothing.

Nothing is downloaded. Needs jaxvid's requirements; `peers`, and rows of `priors`, PyTorch. Where the sections up to
`trace` take all of the time, a second run with --sections takes the others; it is quicker where
JAX_COMPILATION_CACHE_DIR names a folder that stays.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))  # jaxvid of this clone, installed or not


class Section(NamedTuple):
    """A part of the run: its deadline in seconds, and XLA's flags by the name of each form to be compared."""

    seconds: float
    flags: dict[str, str] = {"": ""}


QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # to compile
COMMANDS = "--xla_gpu_enable_command_buffer="
SECTIONS = {
    "answers": Section(45),
    "tokenizers": Section(110),
    "loop": Section(120),
    "priors": Section(90),
    "translators": Section(80),
    "gans": Section(50),
    "vaes": Section(35),
    "evaluators": Section(40),
    "trace": Section(45),
    "forms": Section(40),
    "ceilings": Section(20),
    "launch": Section(60, {"default": "", "no command buffers": COMMANDS, "+CONVOLUTION": COMMANDS + "+CONVOLUTION"}),
    "layers": Section(50, {"default": "", "nhwc": "--xla_gpu_force_conv_nhwc=true"}),
    "deterministic": Section(50, {"default": "", "deterministic": "--xla_gpu_deterministic_ops=true"}),
    "peers": Section(80),
}
Row = dict[str, Any]


def main() -> None:
    arguments = parse()
    if arguments.section:
        run_section(arguments)
        return
    began, rows = time.monotonic(), []
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp())  # sections share compiled programs
    arguments.output = arguments.output or tempfile.mkdtemp()
    folder = Path(arguments.output)
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.sections.split(","):
        section = SECTIONS[name]
        forms = dict(list(section.flags.items())[:1]) if arguments.smoke else section.flags
        for form, flags in forms.items():
            left = 60 * arguments.minutes - (time.monotonic() - began)
            seconds = left if arguments.smoke else min(section.seconds / len(forms), left)
            found = (
                [{"what": "skipped: the time is over"}] if left < 5 else measure(name, flags, seconds, arguments, rows)
            )
            rows += [{"section": name, "form": form, **row} for row in found]
            # Rewritten after each section, so that a run that is cut off leaves what it had.
            (folder / "accelerator.json").write_text(json.dumps(rows, indent=1))
            print(f"{time.monotonic() - began:5.0f} s  {name} {form}: {len(found)} rows", flush=True)
    print_table(rows)
    print(f"\n{folder / 'accelerator.json'}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", help="folder for accelerator.json and the trace; default: a new temporary one")
    parser.add_argument("--minutes", type=float, default=9.5, help="after which no further section starts")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="in the order in which they run")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--section", help=argparse.SUPPRESS)  # of a process that this script starts
    parser.add_argument("--seconds", type=float, default=60.0, help=argparse.SUPPRESS)
    parser.add_argument("--traced", default="", help=argparse.SUPPRESS)  # the one row of it to profile
    arguments = parser.parse_args()
    for name in arguments.sections.split(","):
        if name not in SECTIONS:
            parser.error(f'there is no section "{name}", only {", ".join(SECTIONS)}')
    return arguments


def measure(name: str, flags: str, seconds: float, arguments: argparse.Namespace, before: list[Row]) -> list[Row]:
    """The rows of a section, run in a process of its own that is ended at its deadline."""
    own = ["--section", name, "--seconds", str(seconds)]
    if name == "trace":
        steps = [row for row in before if "MFU" in row]
        if not steps:
            return [{"what": "skipped: no step was measured"}]
        worst = max(steps, key=lambda row: row["ms"] * (1 - row["MFU"]))
        own = ["--section", worst["section"], "--traced", worst["what"], *own[2:]]
    own += ["--smoke"] if arguments.smoke else []
    own += ["--output", str(Path(arguments.output).resolve())]
    environment = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    if arguments.smoke:
        environment |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK}
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(
            [sys.executable, __file__, *own], env=environment, stdout=out, stderr=errors, text=True, cwd=HERE
        )
        try:
            child.wait(timeout=max(seconds, 1))
            end = "" if child.returncode == 0 else f"ended with {child.returncode}"
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
            end = f"stopped at its deadline of {seconds:.0f} s"
        out.seek(0)
        rows = [json.loads(line[len(MARK) :]) for line in out if line.startswith(MARK) and line.endswith("\n")]
        if end:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or [""])[-1]
            rows.append({"what": f"{end}: {last}"[:300] if last and "deadline" not in end else end})
    return rows


MARK = "row: "


def run_section(arguments: argparse.Namespace) -> None:
    """Runs a section in this process, printing each row as soon as it is known."""
    deadline = time.monotonic() + arguments.seconds
    for what, work in WORK[arguments.section](arguments):
        if arguments.traced not in ("", what):
            continue
        if time.monotonic() > deadline - 2:
            row: Row = {"what": what, "note": "left out: the section's time is over"}
        else:
            try:
                row = {"what": what, **work()}
            except ModuleNotFoundError as error:
                row = {"what": what, "note": f"skipped: needs {error.name}, which is not installed"}
            except Exception as error:  # out of memory, an unknown flag, ...: the next row may do
                row = {"what": what, "note": f"{type(error).__name__}: {' '.join(str(error).split())}"[:240]}
        print(MARK + json.dumps(row), flush=True)


def print_table(rows: list[Row]) -> None:
    """Prints a line for each row: its section, form, what it is of, and its figures."""
    print()
    for row in rows:
        place = f"{row['section']} {row['form']}".strip()
        figures = "  ".join(
            f"{name} {value:.3g}" if isinstance(value, float) else str(value) if name == "note" else f"{name} {value}"
            for name, value in row.items()
            if name not in ("section", "form", "what")
        )
        print(f"{place:<28} {row['what']:<44} {figures}")


Work = Iterator[tuple[str, Callable[[], Row]]]


def seconds_of(run: Callable[[int], Any], smoke: bool) -> float:
    """Median seconds of one of the steps that `run(count)` makes before it blocks: of 5 blocks of 0.1 s, or of one."""
    least, blocks = (0.0, 1) if smoke else (0.5, 5)
    start = time.perf_counter()
    run(1)
    once = time.perf_counter() - start
    count = max(1, round(least / blocks / max(once, 1e-5)))
    times = []
    for _ in range(blocks):
        start = time.perf_counter()
        run(count)
        times.append((time.perf_counter() - start) / count)
    return sorted(times)[blocks // 2]


@functools.cache
def product_rate(dtype: str, smoke: bool) -> float:
    """Operations a second of a large matrix product of random numbers."""
    import jax.numpy as jnp
    from timing import normal, repeated

    size = 256 if smoke else 8192
    square = normal(0, (size, size), dtype)
    return 2 * size**3 / seconds_of(repeated(jnp.matmul, square, square), smoke)


@functools.cache
def copy_rate(smoke: bool) -> float:
    """Bytes a second that a large copy reads and writes, together."""
    import jax
    from timing import normal

    add = jax.jit(lambda x: x + 1, donate_argnums=0)  # donated: results of many calls would fill the memory
    last = add(normal(0, (2**12 if smoke else 2**29,)))

    def copies(count: int) -> None:
        nonlocal last
        for _ in range(count):
            last = add(last)
        last.block_until_ready()

    return 2 * last.nbytes / seconds_of(copies, smoke)


def ceilings(arguments: argparse.Namespace) -> Work:
    """What the machine can do at most: matrix products and copies, on random numbers."""
    import jax

    device = jax.devices()[0]

    def machine() -> Row:
        return {"note": f"{device.device_kind}, JAX {jax.__version__}, Python {platform.python_version()}"}

    def product(dtype: str) -> Row:
        return {"TFLOP/s": 1e-12 * product_rate(dtype, arguments.smoke)}

    yield "machine", machine
    yield "matrix product, bfloat16", lambda: product("bfloat16")
    yield "matrix product, float32 (default precision)", lambda: product("float32")
    yield "read and write, bytes of both", lambda: {"TB/s": 1e-12 * copy_rate(arguments.smoke)}


def answers(arguments: argparse.Namespace) -> Work:
    """Relative errors ||found - right|| / ||right|| against float64 on the host."""
    import jax
    import numpy as np
    import reference

    from jaxvid.nn.conv import conv, conv_transpose
    from jaxvid.nn.norm import BatchNorm, GroupNorm
    from jaxvid.nn.quantize import _nearest, _statistics

    def error(found: Any, right: np.ndarray) -> float:
        return float(np.linalg.norm(np.asarray(found, np.float64) - right) / np.linalg.norm(right))

    def convolution(form: Callable, right: Callable, kernel: tuple[int, ...], strides: Any, size: int) -> Row:
        channels = 8 if arguments.smoke else 64
        draw = np.random.default_rng(0).standard_normal
        x = draw((2, 4, size, size, channels)).astype(np.float32)
        weights = draw((*kernel, channels, channels)).astype(np.float32)
        y, pull = jax.vjp(lambda x, k: form(x, k, strides), x, weights)
        gradient = draw(y.shape).astype(np.float32)
        names = ("forward", "by video", "by kernel")
        wanted = right(*(array.astype(np.float64) for array in (x, weights, gradient)), strides)
        return {name: error(a, b) for name, a, b in zip(names, (y, *pull(gradient)), wanted, strict=True)}

    def norm(module: Any, axes: tuple[int, ...], *train: bool) -> Row:
        # Flat backgrounds: a mean that is large against the deviation.
        x = (100 + np.random.default_rng(0).standard_normal((8, 4, 16, 16, 32))).astype(np.float32)
        y = module.init_with_output(jax.random.key(0), x, *train)[0]
        groups = x.astype(np.float64).reshape(8, 4, 16, 16, -1, 32 if train else 4)
        centered = groups - groups.mean(axes, keepdims=True)
        right = centered / np.sqrt(np.square(centered).mean(axes, keepdims=True) + module.epsilon)
        return {"mean/std 100": error(y, right.reshape(x.shape))}

    def nearest() -> Row:
        draw = np.random.default_rng(0).standard_normal
        rows, codes = (draw((n, 64)).astype(np.float32) for n in (4096, 1024))
        found = np.asarray(jax.jit(_nearest)(rows, codes))
        exact = np.square(codes.astype(np.float64)).sum(1) - 2 * rows.astype(np.float64) @ codes.T.astype(np.float64)
        return {"share of other codes": float((found != exact.argmin(1)).mean())}

    def statistics() -> Row:
        draw = np.random.default_rng(0)
        rows, indices = (100 + draw.standard_normal((4096, 64))).astype(np.float32), draw.integers(0, 512, 4096)
        counts, sums = jax.jit(lambda *x: _statistics(*x, 512, None))(rows, indices)
        right = np.zeros((512, 64))
        np.add.at(right, indices, rows.astype(np.float64))
        wrong = int((np.asarray(counts) != np.bincount(indices, minlength=512)).sum())
        return {"wrong counts": wrong, "sums": error(sums, right)}

    size = 4 if arguments.smoke else 16
    for kernel, strides in (((3, 3, 3), (1, 1, 1)), ((4, 4, 4), (2, 2, 2)), ((1, 4, 4), (1, 2, 2))):
        name = f"{'x'.join(map(str, kernel))} stride {max(strides)}"
        bound = kernel, strides, size
        yield f"conv {name}", lambda b=bound: convolution(conv, reference.conv, *b)
        yield f"transposed conv {name}", lambda b=bound: convolution(conv_transpose, reference.conv_transpose, *b)
    yield "BatchNorm", lambda: norm(BatchNorm(), (0, 1, 2, 3, 4), True)
    yield "GroupNorm", lambda: norm(GroupNorm(8), (1, 2, 3, 5))
    yield "nearest code", nearest
    yield "counts and sums of codes", statistics


def priors(arguments: argparse.Namespace) -> Work:
    """Priors over tokens: training steps, as a share of the product of their type (MFU); tokens that are drawn, with
    the transformer's cache as a share of the memory's rate; PyTorch's step; and attention in three forms.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.6")  # PyTorch needs some, too
    from priors import TINY, Size

    size = TINY if arguments.smoke else Size(batch=64)
    large = TINY if arguments.smoke else Size(batch=8, grid=(4, 32, 32), codes=4096)  # the tokens of vqvae:ucf101

    def step(family: str, size: Any, dtype: str) -> Row:
        from priors import train_step, workload
        from workloads import measured

        work = workload(size._replace(dtype=dtype), family)
        facts, run = measured(train_step(work), work.state, work.batch)
        seconds, rate = profiled(run, arguments), product_rate(dtype, arguments.smoke)
        return {**step_row(size, seconds, facts.pop("operations"), rate), **facts}

    def peer(dtype: str, compiled: bool) -> Row:
        import torch
        from peers import gpt
        from priors import random_tokens

        step, note = on_torch(
            lambda device: gpt(torch.from_numpy(random_tokens(size)).to(device), *size[2:6], compiled=compiled), dtype
        )
        return {**step_row(size, seconds_of(step, arguments.smoke)), "note": note}

    def drawn(family: str, batch: int, dtype: str) -> Row:
        from priors import bytes_a_place, sampling, workload

        work = workload(size._replace(batch=2 if arguments.smoke else batch, dtype=dtype), family)
        seconds = seconds_of(sampling(work), arguments.smoke)
        row: Row = {"tokens/s": len(work.batch["tokens"]) * size.places / seconds, "ms": 1e3 * seconds}
        if family == "maskgit":
            return row
        rate = size.places * bytes_a_place(work) / seconds
        return {**row, "ms a place": 1e3 * seconds / size.places, "of copy": rate / copy_rate(arguments.smoke)}

    what = f"batch {size.batch} of {size.places} tokens"
    yield f"transformer, {what}, bfloat16", lambda: step("transformer", size, "bfloat16")
    yield f"PyTorch's step, {what}, bfloat16", lambda: peer("bfloat16", False)
    for name in ("in chunks", "cudnn", "whole"):
        yield f"attention {name}, {what}, bfloat16", lambda n=name: attention(n, size, arguments.smoke)
    yield "sampling, transformer, batch 16, bfloat16", lambda: drawn("transformer", 16, "bfloat16")
    yield "sampling, transformer, batch 256, bfloat16", lambda: drawn("transformer", 256, "bfloat16")
    yield f"maskgit, {what}, bfloat16", lambda: step("maskgit", size, "bfloat16")
    yield "sampling, maskgit, batch 16, bfloat16", lambda: drawn("maskgit", 16, "bfloat16")
    if arguments.smoke:
        return
    yield f"transformer, batch {large.batch} of {large.places} tokens", lambda: step("transformer", large, "bfloat16")
    yield f"transformer, {what}, float32", lambda: step("transformer", size, "float32")
    yield "sampling, transformer, batch 16, float32", lambda: drawn("transformer", 16, "float32")
    yield f"PyTorch's step, {what}, float32", lambda: peer("float32", False)
    yield f"PyTorch's step, {what}, bfloat16, compiled", lambda: peer("bfloat16", True)


def step_row(size: Any, seconds: float, operations: float = 0.0, rate: float = 1.0) -> Row:
    row: Row = {"ms": 1e3 * seconds, "tokens/s": size.batch * size.places / seconds}
    return {**row, "TFLOP/s": 1e-12 * operations / seconds, "MFU": operations / seconds / rate} if operations else row


def attention(name: str, size: Any, smoke: bool) -> Row:
    """Causal attention of one layer, forward and its three gradients: that of `nn.attention`, and JAX's own.

    cuDNN takes heads of multiples of 8 channels: zeros are put behind them.
    """
    import jax
    import jax.numpy as jnp
    from timing import normal, repeated

    from jaxvid.nn.attention import attention as ours

    channels = size.width // size.heads
    inputs = [normal(i, (size.batch, size.places, size.heads, channels), jnp.bfloat16) for i in range(3)]

    def padded(*inputs: jax.Array) -> jax.Array:
        wide = [jnp.pad(x, [(0, 0)] * 3 + [(0, -channels % 8)]) for x in inputs]
        found = jax.nn.dot_product_attention(*wide, scale=1.0, is_causal=True, implementation="cudnn")
        return found[..., :channels]

    forms: dict[str, Callable] = {
        "in chunks": lambda *inputs: ours(*inputs, True),
        "cudnn": padded,
        "whole": lambda *inputs: jax.nn.dot_product_attention(*inputs, scale=1.0, is_causal=True),
    }

    def both_ways(*inputs: jax.Array) -> Any:
        y, pull = jax.vjp(forms[name], *inputs)
        return y, pull(y)

    return {"ms": 1e3 * seconds_of(repeated(both_ways, *inputs), smoke)}


class Step(NamedTuple):
    """A training step of a recipe."""

    recipe: str
    dtype: str = "bfloat16"
    fields: dict[str, Any] = {}

    def __str__(self) -> str:
        changed = [f"{name.split('.')[-1]} {value}" for name, value in self.fields.items()]
        return ", ".join([self.recipe, self.dtype, *changed])


SET = {"model.quantizer.warm_up": 0}  # as in most of a run: k-means sets the codebook in the first step alone
STEPS = {
    "tokenizers": (
        Step("vqvae:ucf101", fields={"model.remat": True, "train.batch_size": 64, **SET}),
        Step("vqvae:ucf101", fields={"model.remat": False, "train.batch_size": 16, **SET}),
        Step("vqvae", fields=SET),
        Step("vqvae", "float32", SET),
    ),
    "translators": (Step("cyclegan:256"), Step("stargan:256"), Step("pix2pix:256")),
    "gans": (Step("gan3d:dcgan"), Step("gan3d:128"), Step("gan3d:dcgan", "float32"), Step("gan_rnn")),
    "vaes": (Step("vae:frame"), Step("vae:grid"), Step("vae:frame", "float32"), Step("vae")),
}
TINY_STEPS = {
    "tokenizers": (Step("vqvae:tiny"),),
    "translators": (Step("cyclegan:tiny"), Step("stargan:tiny"), Step("pix2pix:tiny")),
    "gans": (Step("gan3d:tiny"),),
    "vaes": (Step("vae:tiny"),),
}


def steps(arguments: argparse.Namespace) -> Work:
    """Training steps: milliseconds, clips/s, share of the product of their type (MFU), memory, seconds of compilation.

    Operations are those of the program as it is written, without what is computed again to save memory.
    """

    def row(step: Step) -> Row:
        from workloads import measured_step, recipe

        config = recipe(step.recipe, {"model.dtype": step.dtype, **step.fields})
        facts, run = measured_step(config)
        seconds = profiled(run, arguments)
        rate = facts.pop("operations") / seconds
        return {
            "ms": 1e3 * seconds,
            "clips/s": config.train.batch_size / seconds,
            "TFLOP/s": 1e-12 * rate,
            "MFU": rate / product_rate(step.dtype, arguments.smoke),
            **facts,
        }

    for step in (TINY_STEPS if arguments.smoke else STEPS)[arguments.section]:
        yield str(step), lambda s=step: row(s)


def profiled(run: Callable[[int], Any], arguments: argparse.Namespace) -> float:
    """`seconds_of`; in the section `trace`, two steps more are written to the folder `trace`."""
    seconds = seconds_of(run, arguments.smoke)
    if arguments.traced:
        import jax

        with jax.profiler.trace(str(Path(arguments.output) / "trace")):
            run(2)
    return seconds


def translators(arguments: argparse.Namespace) -> Work:
    """`steps`, CycleGAN's with the literature's networks (its peer is among `peers`), and a translated video."""

    def row(dtype: str) -> Row:
        from translation import BLOCKS, SIZE, WIDTH, fields
        from workloads import measured_step, recipe

        sizes = (8, 1, 16) if arguments.smoke else (WIDTH, BLOCKS, SIZE)
        facts, run = measured_step(recipe("cyclegan", {**fields(*sizes), "model.dtype": dtype}))
        seconds = profiled(run, arguments)
        rate = facts.pop("operations") / seconds
        share = rate / product_rate(dtype, arguments.smoke)
        return {"ms": 1e3 * seconds, "TFLOP/s": 1e-12 * rate, "MFU": share, **facts}

    def video() -> Row:
        from translation import BLOCKS, VIDEO, WIDTH, translating

        shape = (1, 2, 16, 16, 3) if arguments.smoke else VIDEO
        run = translating(*((8, 1) if arguments.smoke else (WIDTH, BLOCKS)), shape)
        return {"frames/s": shape[1] / seconds_of(run, arguments.smoke)}

    yield from steps(arguments)
    for dtype in ("float32",) if arguments.smoke else ("bfloat16", "float32"):
        yield f"cyclegan of the literature, {dtype}", lambda d=dtype: row(d)
    yield "translating 640x360, float32", video


def evaluators(arguments: argparse.Namespace) -> Work:
    """Clips/s and images/s of the networks behind FVD and FID; float32 products have the highest precision."""

    def row(name: str, dtype: str) -> Row:
        import jax
        import jax.numpy as jnp
        from metrics import flops
        from timing import repeated

        from jaxvid.metrics.i3d import I3D
        from jaxvid.metrics.inception import Inception

        network: Any = I3D(dtype=dtype) if name == "I3D" else Inception(dtype=dtype)
        small, large = {"I3D": ((1, 9, 224, 224), (32, 16, 224, 224)), "Inception": ((1, 299, 299), (128, 299, 299))}[
            name
        ]
        shape = (*(small if arguments.smoke else large), 3)
        x = jax.random.uniform(jax.random.key(0), shape, minval=-1.0)
        shapes = jax.eval_shape(network.init, jax.random.key(1), x)
        variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
        seconds = seconds_of(repeated(network.apply, variables, x), arguments.smoke)
        rate = flops(network, variables, x) / seconds
        return {"ms": 1e3 * seconds, "clips or images/s": shape[0] / seconds, "TFLOP/s": 1e-12 * rate}

    for dtype in ("float32",) if arguments.smoke else ("float32", "bfloat16"):
        for name in ("I3D", "Inception"):
            yield f"{name}, {dtype}", lambda n=name, d=dtype: row(n, d)


def forms(arguments: argparse.Namespace) -> Work:
    """What has another form off the CPU, beside the CPU's: norms, and codebooks of the size of vqvae:ucf101."""
    import jax
    import jax.numpy as jnp
    from timing import normal, repeated

    from jaxvid.nn import norm, quantize

    rows, codes, dim = (64, 16, 4) if arguments.smoke else (64 * 4 * 32 * 32, 4096, 64)

    def codebook(form: Callable, *inputs: jax.Array) -> Row:
        compiled = jax.jit(form).lower(*inputs).compile()
        memory: Any = compiled.memory_analysis()
        seconds = seconds_of(repeated(form, *inputs), arguments.smoke)
        return {"ms": 1e3 * seconds, "MiB": memory.temp_size_in_bytes / 2**20}

    def group_norm(form: Callable) -> Row:
        x = normal(0, (2, 2, 4, 4, 16) if arguments.smoke else (16, 16, 64, 64, 256), jnp.bfloat16)
        chosen = norm._shift

        def normed(x: jax.Array) -> jax.Array:
            y = norm.GroupNorm(8).init_with_output(jax.random.key(0), x)[0]
            return jnp.sin(y.astype(jnp.float32)).sum()

        norm._shift = form
        try:
            return {"ms": 1e3 * seconds_of(repeated(jax.grad(normed), x), arguments.smoke)}
        finally:
            norm._shift = chosen

    z, embedding = normal(0, (rows, dim)), normal(1, (codes, dim))
    indices = jax.random.randint(jax.random.key(2), (rows,), 0, codes)
    for name, form in (("in blocks", quantize._nearest_by_blocks), ("at once", quantize._nearest_of_all)):
        yield f"nearest code, {name}", lambda f=form: codebook(f, z, embedding)
    for name, form in (("products", quantize._product_sums), ("scattered", jax.ops.segment_sum)):
        yield f"sums of codes, {name}", lambda f=form: codebook(lambda z, i: f(z, i, codes), z, indices)
    for name, form in (("products", quantize._product_counts), ("scattered", quantize._scattered_counts)):
        yield f"counts of codes, {name}", lambda f=form: codebook(lambda i: f(i, codes), indices[None])
    for name, form in (("centered", norm._mean_of_some), ("as it is", norm._no_shift)):
        yield f"GroupNorm and its gradient, bfloat16, {name}", lambda f=form: group_norm(f)


def launch(arguments: argparse.Namespace) -> Work:
    """Small models are bound by launches: steps one by one, and eight of them in one call."""

    def step(name: str, scanned: int) -> Row:
        import jax
        from workloads import recipe, started

        config = recipe(name)
        method, state, batch = started(config)

        def several(state: Any, batch: Any) -> Any:
            return jax.lax.scan(lambda state, _: method.train_step(state, batch), state, length=scanned)

        compiled = jax.jit(several if scanned else method.train_step, donate_argnums=0)

        def run(count: int) -> None:
            nonlocal state
            for _ in range(count):
                state, metrics = compiled(state, batch)
            jax.block_until_ready((state, metrics))

        run(1)
        return {"ms": 1e3 * seconds_of(run, arguments.smoke) / max(scanned, 1)}

    for name in ("vqvae:tiny",) if arguments.smoke else ("gan3d:dcgan", "vae:frame"):
        yield f"{name}, one step a call", lambda n=name: step(n, 0)
        scanned = 2 if arguments.smoke else 8
        yield f"{name}, {scanned} steps a call", lambda n=name, s=scanned: step(n, s)


def layers(arguments: argparse.Namespace) -> Work:
    """3-D convolutions in bf16, forward and both gradients, beside the sum of 2-D convolutions over time taps."""
    import jax
    import jax.numpy as jnp
    from timing import normal, repeated

    from jaxvid.nn.conv import conv, conv_transpose

    def taps(x: jax.Array, kernel: jax.Array, strides: Any) -> jax.Array:
        padded = jnp.pad(x, [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)])
        parts = [conv(padded[:, t : t + x.shape[1]], kernel[t : t + 1], strides) for t in range(3)]
        return parts[0] + parts[1] + parts[2]

    def layer(form: Callable, kernel: tuple[int, ...], strides: Any, channels: int) -> Row:
        batch, size = (1, 8) if arguments.smoke else (16, 32)
        x = normal(0, (batch, 8, size, size, channels), jnp.bfloat16)
        weights = normal(1, (*kernel, channels, channels), jnp.bfloat16)

        def both_ways(x: jax.Array, weights: jax.Array) -> Any:
            y, pull = jax.vjp(lambda x, k: form(x, k, strides), x, weights)
            return y, pull(y)

        y = jax.eval_shape(lambda x, k: form(x, k, strides), x, weights)
        places = min(y.size, x.size) // channels  # every tap meets every place of the coarser grid once
        operations = 3 * 2 * places * weights.size
        seconds = seconds_of(repeated(both_ways, x, weights), arguments.smoke)
        text = jax.jit(both_ways).lower(x, weights).compile().as_text()
        return {
            "ms": 1e3 * seconds,
            "TFLOP/s": 1e-12 * operations / seconds,
            "transposes": text.count(" transpose("),
            "copies": text.count(" copy("),
        }

    channels = 8 if arguments.smoke else 256
    yield "conv 3x3x3", lambda: layer(conv, (3, 3, 3), (1, 1, 1), channels)
    yield "conv 3x3x3, sum of 2-D convolutions", lambda: layer(taps, (3, 3, 3), (1, 1, 1), channels)
    yield "conv 4x4x4 stride 2", lambda: layer(conv, (4, 4, 4), (2, 2, 2), channels)
    yield "transposed conv 4x4x4 stride 2", lambda: layer(conv_transpose, (4, 4, 4), (2, 2, 2), channels // 2)


def deterministic(arguments: argparse.Namespace) -> Work:
    """Two runs of 20 steps: whether they end with the same bits, and what that costs."""

    def runs(name: str) -> Row:
        import jax
        import numpy as np
        from workloads import final_state, recipe

        config, count = recipe(name), 3 if arguments.smoke else 20
        first, second = (jax.tree.leaves(final_state(config, count)) for _ in range(2))
        same = all(np.array_equal(a, b, equal_nan=True) for a, b in zip(first, second, strict=True))
        return {"equal bits": same}

    def cost(name: str) -> Row:
        from workloads import recipe, training_step

        return {"ms": 1e3 * seconds_of(training_step(recipe(name)), arguments.smoke)}

    for name in ("vqvae:tiny",) if arguments.smoke else ("vqvae", "gan3d:dcgan"):
        yield f"{name}, twice", lambda n=name: runs(n)
        yield f"{name}, a step", lambda n=name: cost(n)


def on_torch(make: Callable[[str], Callable[[], Any]], dtype: str) -> tuple[Callable[[int], None], str]:
    """run(count) of the step that `make(device)` gives, warm, in bf16 by autocast or not; and what it ran on."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as JAX's default precision
    torch.backends.cudnn.benchmark = True
    one = make(device)

    def run(count: int) -> None:
        with torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16"):
            for _ in range(count):
                one()
        if device == "cuda":
            torch.cuda.synchronize()

    run(2)
    return run, f"PyTorch {torch.__version__} on {device}"


def peers(arguments: argparse.Namespace) -> Work:
    """PyTorch's steps of the same layers: channels last, in float32 and under bf16 autocast, compiled or not."""

    def step(name: str, dtype: str, compiled: bool) -> Row:
        import torch
        from peers import PEERS
        from workloads import random_video, recipe

        fields = {"train.batch_size": 2} if arguments.smoke else {}
        video = torch.from_numpy(random_video(recipe(name, fields)))
        run, note = on_torch(lambda device: PEERS[name](video.to(device), compiled=compiled), dtype)
        return {"ms": 1e3 * seconds_of(run, arguments.smoke), "note": note}

    def cyclegan(dtype: str) -> Row:
        import torch
        from peers import cyclegan as peer
        from translation import BLOCKS, SIZE, WIDTH, fields
        from workloads import random_batch, recipe

        width, blocks, size = (8, 1, 32) if arguments.smoke else (WIDTH, BLOCKS, SIZE)
        batch = random_batch(recipe("cyclegan", fields(width, blocks, size)))
        a, b = (torch.from_numpy(batch[name].copy()) for name in ("input", "video"))
        run, note = on_torch(lambda device: peer((a.to(device), b.to(device)), width, blocks), dtype)
        return {"ms": 1e3 * seconds_of(run, arguments.smoke), "note": note}

    for dtype in ("float32",) if arguments.smoke else ("bfloat16", "float32"):
        yield f"cyclegan of the literature, {dtype}", lambda d=dtype: cyclegan(d)
    for compiled in (False,) if arguments.smoke else (False, True):
        for name in ("vae:frame",) if arguments.smoke else ("gan3d:dcgan", "vae:frame"):
            for dtype in ("float32", "bfloat16"):
                what = f"{name}, {dtype}{', compiled' if compiled else ''}"
                yield what, lambda n=name, d=dtype, c=compiled: step(n, d, c)


def loop(arguments: argparse.Namespace) -> Work:
    """The training loop with its data, logs and transfers, beside the bare step."""

    def whole(name: str, count: int, fields: dict[str, Any]) -> Row:
        from loop import compare
        from workloads import recipe

        (found,), (bare,), (waiting,) = compare(name, 1, count, {**fields, **SET})
        frames = recipe(name).data.frames * found
        rates = {"clips/s": found, "bare clips/s": bare, "frames/s": frames}
        return {**rates, "time, loop / bare": bare / found, "waiting": waiting, "cores": os.cpu_count()}

    if arguments.smoke:
        yield "vqvae:tiny on records", lambda: whole("vqvae:tiny", 4, {})
        return
    large = {"train.batch_size": 64, "model.remat": True}
    yield "vqvae:ucf101 on records", lambda: whole("vqvae:ucf101", 40, large)
    yield "vqvae on records", lambda: whole("vqvae", 150, {})


WORK: dict[str, Callable[[argparse.Namespace], Work]] = {
    "answers": answers,
    "tokenizers": steps,
    "loop": loop,
    "priors": priors,
    "translators": translators,
    "gans": steps,
    "vaes": steps,
    "evaluators": evaluators,
    "forms": forms,
    "ceilings": ceilings,
    "launch": launch,
    "layers": layers,
    "deterministic": deterministic,
    "peers": peers,
}

if __name__ == "__main__":
    main()
