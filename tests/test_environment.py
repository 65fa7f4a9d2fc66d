"""Environments that people have: other variables, no home, small disks and memories, terminals that go away."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import own_method
import pytest
from conftest import ROOT, recipe

from jaxvid import checkpoint, config, data, files, parallel, processes, recorder, report, sample
from jaxvid import run as run_lib
from jaxvid import train as train_lib
from jaxvid.core import make_method
from jaxvid.data import pipeline
from jaxvid.data.synthetic import Synthetic
from jaxvid.main import main
from jaxvid.methods import vqvae
from jaxvid.train import train

PYTHON = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
STEMS = ("vqvae", "vae", "gan3d", "classifier", "transformer", "maskgit", "pix2pix", "cyclegan", "stargan")  # by method


def run_code(code: str, *arguments: str, **settings) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=PYTHON | settings, capture_output=True, text=True, timeout=120)


def small(steps: int = 3):
    """A run of the method of own_method: of a few operations."""
    settings = own_method.get_config()
    settings.method = "own_method"
    settings.train.steps = steps
    return settings


LASTING = """
import os, sys
from jaxvid.command import start
start()
for _ in range(3):
    print("x" * 100_000)
    print("y" * 100_000, file=sys.stderr, flush=True)
open(sys.argv[1], "w").write("the work went on")
"""


@pytest.mark.parametrize("redirection", ["2>&1 | head -c 1", "2>&-", ">&-", ">&- 2>&-", "2>/dev/full >/dev/full"])
def test_the_work_goes_on_when_nobody_reads(redirection: str, tmp_path: Path) -> None:
    (tmp_path / "code.py").write_text(LASTING)
    line = f"set -o pipefail; '{sys.executable}' '{tmp_path}/code.py' '{tmp_path}/out' {redirection}"
    done = subprocess.run(["bash", "-c", line], env=PYTHON, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "out").read_text() == "the work went on", done
    assert not any(word in done.stdout + done.stderr for word in ("Error", "Exception"))


def test_what_a_stream_cannot_encode_is_escaped() -> None:
    code = "from jaxvid.command import start; start(); print('\\u0416 \\udcff')"
    done = run_code(code, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "\\u0416 \\udcff\n")


INSTALLED = "import sys; from jaxvid.__main__ import console; sys.exit(console())"  # as the script `jaxvid` does


@pytest.mark.parametrize("words", [("-m", "jaxvid.main"), ("-m", "jaxvid", "train"), ("-c", INSTALLED, "train")])
def test_ctrl_c_while_a_command_imports_ends_it_in_a_line(words: tuple[str, ...]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-v", *words, "--help"],
        env=PYTHON, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:  # -v names every import
        if line.startswith("import 'jax.") or line.startswith("import 'jax'"):
            break
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(60) == 130 and "Stopped; nothing was written." in rest and "Traceback" not in rest


def test_a_lock_ends_with_the_process_that_holds_it(tmp_path: Path) -> None:
    code = f"""
from pathlib import Path
from jaxvid.files import locked
with locked(Path({str(tmp_path / ".lock")!r})):
    print("held", flush=True)
    input()
"""
    holder = subprocess.Popen(
        [sys.executable, "-c", code], env=PYTHON, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match=f"{tmp_path} is in use by process {holder.pid} on .*another --workdir"):
        train(small(), tmp_path)
    holder.kill()
    holder.communicate()
    assert int(train(small(), tmp_path).step) == 3


def test_a_folder_of_another_run_is_not_taken_for_that_of_process_0(tmp_path: Path, monkeypatch) -> None:
    for name, text in {"data.json": "{}", ".lock": "process 1 on here"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(train_lib, "take", lambda *_: "process 1 on another machine")  # as process 0 says
    monkeypatch.setattr(processes, "SIGHT", 0.0)
    with pytest.raises(ValueError, match="is not the folder of process 0: give all processes one --workdir, which all"):
        train(small(), tmp_path)


def test_a_file_system_without_locks_is_a_warning(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="cannot be locked .No locks available.: let one run alone write to it"):
        with files.locked(tmp_path / ".lock"):
            pass


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_remembered_and_one_that_is_ignored_stays_so(number: signal.Signals) -> None:
    with train_lib.signals() as signal_at:
        os.kill(os.getpid(), number)
        assert signal_at(1) == number
    before = signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with train_lib.signals() as signal_at:
            os.kill(os.getpid(), number)
            assert signal_at(1) == 0
    finally:
        signal.signal(number, before)


def test_the_report_of_a_stopped_run_says_so(tmp_path: Path, monkeypatch) -> None:
    def stopped() -> str:
        page = (tmp_path / "report.html").read_text()
        return page.partition('<p class="status running"><span><b>')[2].partition("</b>")[0]

    monkeypatch.setattr(train_lib.Recorder, "step", lambda self, step, metrics: setattr(self, "_step", step))
    monkeypatch.setattr(train_lib, "finite", lambda step, metrics: (step, {}) if step < 5 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(small(6), tmp_path)
    assert stopped() == "stopped at step 4"  # of the evaluation at step 3, and later
    monkeypatch.undo()
    report.mark(tmp_path / "report.html", "running")
    assert stopped() == "running"
    train(small(6), tmp_path)
    assert "<b>finished</b>" in (tmp_path / "report.html").read_text()


def test_a_run_without_jit_takes_the_same_steps(tmp_path: Path) -> None:
    expected = train(small(2), tmp_path / "jit")
    with jax.disable_jit():
        found = train(small(2), tmp_path / "eager")
    np.testing.assert_allclose(found.params["pixels"]["mean"], expected.params["pixels"]["mean"], atol=1e-6)
    assert int(found.step) == 2


@pytest.mark.parametrize("stem", STEMS)
def test_64_bits_change_no_method(stem: str) -> None:
    settings = recipe(f"{stem}:tiny")
    source = Synthetic(settings.data.frames, settings.data.resolution)
    settings = train_lib.conditions.complete(settings, source)
    clip = train_lib.conditions.wrap(settings, source)[0]
    numbers = {name: value for name, value in clip.items() if value.dtype.kind in "biuf"}
    batch = {name: jax.ShapeDtypeStruct((8, *value.shape), value.dtype) for name, value in numbers.items()}

    def shapes() -> dict[str, list]:
        method, keys = make_method(settings), jax.random.split(jax.random.key(0), 8)
        state = jax.eval_shape(method.init, keys[0], batch)
        found = {"state": state, "step": jax.eval_shape(method.train_step, state, batch)}
        found["eval"] = jax.eval_shape(method.eval_step, state, batch, keys[0])
        if method.sample:
            found["sample"] = jax.eval_shape(method.sample, state, batch, keys)
        return checkpoint.described(found)

    expected = shapes()
    with jax.enable_x64(True):
        assert shapes() == expected


def test_64_bits_change_no_number(tmp_path: Path) -> None:
    settings = recipe("vqvae:tiny")
    settings.train.steps, settings.eval.examples = 2, 8
    train(settings, tmp_path / "32")
    with jax.enable_x64(True):
        train(settings, tmp_path / "64")
        trained = run_lib.load(tmp_path / "64")
        video = np.random.default_rng(0).random((1, 8, 16, 16, 3))
        made = sample.reconstruct(trained, video.astype(np.float32), batch_size=1)
        encode, decode = vqvae.codec(trained.config, trained.state)
        assert decode(encode(video)).dtype == np.float32 and made.dtype == np.float32
    states = [run_lib.load(tmp_path / name).state for name in ("32", "64")]
    for one, other in zip(*(jax.tree.leaves(state.params) for state in states), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AssertionError(), "JAX_PLATFORMS is cuda, and JAX finds no such device here: set JAX_PLATFORMS=cpu"),
        (RuntimeError("Unable to initialize backend 'tpu': no lib. (set JAX_PLATFORMS='' to ...)"), "here (Unable"),
    ],
)
def test_devices_that_are_not_there_are_a_sentence_in_every_command(
    error, words, monkeypatch, tmp_path, capsys
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", fail)
    from jaxvid.evaluate.__main__ import main as evaluate

    assert main(["main", "--config", str(ROOT / "configs/vqvae.py:tiny"), "--workdir", str(tmp_path)]) == 2
    assert evaluate(["--real", str(tmp_path), "--fake", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and words in lines[0] and "set JAX_PLATFORMS=''" not in lines[0]


def test_processes_that_cannot_find_each_other_are_told_the_variables(monkeypatch, tmp_path, capsys) -> None:
    def fail(**_: object) -> None:
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    words = ["--config", str(ROOT / "configs/vqvae.py:tiny"), "--workdir", str(tmp_path / "x"), "--distributed"]
    assert main(["main", *words]) == 2 and not (tmp_path / "x").exists()
    error = capsys.readouterr().err
    assert all(f"JAX_{name}" in error for name in ("COORDINATOR_ADDRESS=HOST:PORT", "NUM_PROCESSES", "PROCESS_ID"))


def test_what_cannot_fit_in_memory_is_said_before_it_is_taken(tmp_path: Path, monkeypatch) -> None:
    free = parallel.free_host_memory()
    assert free is None or 2**20 < free < 2**50
    settings = small()
    settings.train.batch_size = 10**9  # 16x16x8 frames of 3 bytes: 5.6 TiB
    if free is not None:
        with pytest.raises(ValueError, match="batches of 1,000,000,000 clips needs 22,888.2 GiB .* lower train.batch"):
            train(settings, tmp_path)
    monkeypatch.setattr(parallel, "free_memory", lambda: 1000)
    with pytest.raises(ValueError, match="a training step needs 0.0 GiB of memory, and 0.0 GiB are free"):
        train(small(), tmp_path)


def test_waiting_for_data_is_said_once_with_the_way_out(tmp_path: Path, monkeypatch, capsys) -> None:
    now = [0.0]
    monkeypatch.setattr(recorder.time, "perf_counter", lambda: now[0])

    def batches(wait: float):
        while True:
            now[0] += wait
            yield {}

    for source, words in (("folder", "python -m jaxvid.data clips --convert DIR"), ("synthetic", "train.workers=")):
        for wait, said in ((0.1, 0), (0.3, 1)):
            settings = small(100)
            settings.data.update(name=source, path="clips")
            record = recorder.Recorder(tmp_path / f"{source}{wait}", settings, 0, {}, ())
            waiting = batches(wait)
            for step in range(1, 90):
                record.clock.next(waiting)
                now[0] += 1 - wait
                record.step(step, {})
            record.close()
            text = capsys.readouterr().err
            assert text.count("of the time goes into waiting for data") == said
            assert text.count(f"warning: {wait:.0%} of the time") == said and text.count(words) == said


class Deadly(Synthetic):
    """A source whose reader dies of a signal, or ends with the exit code below 0."""

    def __init__(self, number: int):
        super().__init__(8, 16)
        self.number = number

    def __getitem__(self, index: int):
        os.kill(os.getpid(), self.number) if self.number > 0 else os._exit(-self.number)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGBUS, ("/dev/shm", "--shm-size=8g", "train.workers=0")),
        (signal.SIGKILL, ("SIGKILL", "want of memory", "lower train.workers")),
        (-pipeline.UNGUARDED, ("run your script too", 'put that part under `if __name__ == "__main__":`')),
    ],
)
def test_a_worker_that_dies_is_a_sentence(number: int, words: tuple[str, ...]) -> None:
    with data.train_batches(Deadly(number), 2, 16, seed=0, workers=1) as batches:
        with pytest.raises(ValueError) as error:
            next(batches)
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value)


def test_a_worker_that_runs_the_script_of_its_user_ends_where_it_trains(tmp_path: Path, monkeypatch) -> None:
    def leave(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit, match=str(pipeline.UNGUARDED)):
        train(small(), tmp_path / "run")
    with pytest.raises(SystemExit, match=str(pipeline.UNGUARDED)):
        data.train_batches(Synthetic(8, 16), 2, 16, seed=0, workers=1)
    assert not (tmp_path / "run").exists()


def test_an_interrupt_before_the_first_step_is_a_line_in_a_notebook(tmp_path: Path, monkeypatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train_lib, "prepare", interrupted)
    with pytest.raises(KeyboardInterrupt) as stopped:
        train(small(), tmp_path)
    assert stopped.value._render_traceback_() == ["Stopped; what was written before stays."]


def test_a_frozen_player_without_its_sha256_is_a_sentence() -> None:
    reference = config.ConfigDict({"path": "runs/x", "step": 3})
    with pytest.raises(ValueError, match=r"config.json has no tokenizer.sha256, .* put back the config.json"):
        checkpoint.verify(train_lib.TrainState(*[{}] * 7), {"tokenizer": reference})


def test_a_damaged_checkpoint_is_one_line_and_a_whole_one_none(tmp_path: Path) -> None:
    train(small(6), tmp_path)
    code = "import gc, sys; from jaxvid import run; print(int(run.load(sys.argv[1]).state.step)); gc.collect()"
    whole = run_code(code, str(tmp_path))
    assert (whole.stdout, whole.stderr) == ("6\n", "")
    newest = [file for file in (tmp_path / "checkpoints" / "6" / "state").rglob("*") if file.is_file()]
    largest = max(newest, key=lambda file: file.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    damaged = run_code(code, str(tmp_path))
    assert damaged.stdout == "3\n" and damaged.stderr.count("\n") == 1, damaged.stderr
    assert "checkpoints/6 is damaged: its arrays cannot be read. Trying the one before." in damaged.stderr


def test_without_a_home_there_is_no_cache_and_no_folder_of_that_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user id that nobody knows
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    with pytest.raises(FileNotFoundError, match="set HOME or XDG_CACHE_HOME"):
        files.cache_folder()
    with pytest.raises(ValueError, match="~/x cannot be found, .* write the path out"):
        files.local_path("~/x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "jaxvid"


def test_paths_are_expanded_and_addresses_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert files.local_path("~/a") == f"{tmp_path}/a" and files.local_path(Path("~x")) == "~x"
    assert files.local_path("C:/a") == "C:/a" and files.local_path("a:b") == "a:b"
    for address in ("gs://bucket/x", "s3://bucket", "hdfs:///x"):
        with pytest.raises(ValueError, match="is no path of this machine"):
            train(small(), address)
        with pytest.raises(ValueError, match="is no path of this machine"):
            run_lib.load(address)
    assert list(tmp_path.iterdir()) == []
    train(small(), "~/run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_name_that_is_not_utf_8_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no name in UTF-8, which checkpoints need: name another --workdir"):
        train(small(), os.fsdecode(bytes(tmp_path) + b"/\xff"))


def test_a_full_disk_is_a_sentence_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a.json could not be written: No space left on device."):
        with files.replacing(tmp_path / "a.json"):
            Path("/dev/full").write_text("x")


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_a_benchmark_needs_no_pytest(path: Path) -> None:
    code = "import runpy, sys; sys.modules['pytest'] = None; sys.path.insert(0, sys.argv[2])\n"
    code += "runpy.run_path(sys.argv[1], run_name='imported')"
    done = run_code(code, str(path), str(path.parent))
    if "No module named 'torch'" in done.stderr:
        pytest.skip("PyTorch, which the extra bench installs, is not here")
    assert done.returncode == 0, done.stderr[-500:]


def test_logs_of_a_project_go_to_weights_and_biases_too(tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    assert wandb.run is None
    settings = small(6)
    settings.train.wandb = "jaxvid-tests"
    train(settings, tmp_path)
    assert list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb")) and wandb.run is None


def test_warnings_of_the_library_are_none(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(small(), tmp_path)
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 3
