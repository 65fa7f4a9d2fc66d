"""What a run writes to its work folder, and prints while it trains."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import jax
from clu import parameter_overview
from jax.sharding import Mesh
from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import images, processes
from jaxvid.core import TrainState
from jaxvid.evaluate.heldout import Evaluation
from jaxvid.files import write_json
from jaxvid.progress import ProgressLine
from jaxvid.report import mark, report
from jaxvid.writer import Writer, read_history

Batch = TypeVar("Batch")
PATIENCE = 30.0  # seconds of training before its speed is judged
HUNGRY = 0.2  # the share of time spent waiting for data that is worth a word
WRITTEN = {
    "report.html": "curves, videos, histograms, config: open it in a browser",
    "samples": "originals beside what the model makes of them, per evaluation (PNG, GIF, MP4)",
    "metrics.jsonl": "one line of JSON per logged step",
    "tensorboard": "the same for tensorboard --logdir",
    "checkpoints": "for jaxvid.run.load, and to resume",
    "config.json": "the resolved config",
}


def sizes(params: Any) -> str:
    """The number of parameters, and of how many modules: "1,234 parameters, encoder 1,000, decoder 234"."""

    def count(part: Any) -> str:
        return f"{sum(leaf.size for leaf in jax.tree.leaves(part)):,}"

    modules = params
    while isinstance(modules, Mapping) and len(modules) == 1:
        (modules,) = modules.values()
    inner = modules.items() if isinstance(modules, Mapping) else ()
    return ", ".join([f"{count(params)} parameters", *(f"{name} {count(each)}" for name, each in inner)])


class Clock:
    """Speed, and the share of time spent waiting for data, since the last restart."""

    def __init__(self, batch_size: int):
        self._batch_size = batch_size
        self.trained = self.waited = self._last = 0.0  # seconds in all, less the first batch after each restart
        self.restart()

    def restart(self) -> None:
        """Forgets what was measured; evaluations and checkpoints do not count as training."""
        self._start, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def next(self, batches: Iterator[Batch]) -> Batch | None:
        """The next batch, or None; it counts as a step, and the time until it is there as waiting."""
        before = time.perf_counter()
        batch = next(batches, None)
        now = time.perf_counter()
        if self._steps:
            self.trained += now - self._last
            self.waited += now - before
        self._last = now
        self._waited += now - before
        self._steps += 1
        return batch

    def read(self) -> dict[str, float]:
        """Clips per second over all devices, and the share waited."""
        passed = max(time.perf_counter() - self._start, 1e-9)
        return {"clips_per_second": self._steps * self._batch_size / passed, "waiting": self._waited / passed}


class Recorder:
    """Writes metrics, pictures and the report of a run; silent on all processes but the first."""

    def __init__(self, workdir: Path, config: ConfigDict, start: int, batch: dict[str, list], headline: Sequence[str]):
        self._active = jax.process_index() == 0
        self._workdir, self._config, self._headline = workdir, config, headline
        self.clock = Clock(config.train.batch_size)
        if not self._active:
            return
        at_start = [line for line in read_history(workdir) if line["step"] == start]
        self._evaluated = any(name.startswith("eval/") for line in at_start for name in line)
        write_json(workdir / "config.json", config_lib.to_dict(config))
        write_json(workdir / "batch.json", batch)
        fields = config_lib.flatten(config_lib.to_dict(config))
        self._writer = Writer(workdir, start, config.train.get("wandb", ""), fields)
        self._progress = ProgressLine(config.train.steps, start)
        self._step, self._hungry = start, False
        mark(workdir / "report.html", "running")

    def log(self, text: str) -> None:
        """Prints a line of its own."""
        if self._active:
            self._progress.message(text)

    def introduce(self, mesh: Mesh, state: TrainState, sources: list[str]) -> None:
        """Prints devices, parameters and data, and from which step the run resumes."""
        first = mesh.devices.flat[0]
        self._parameters = parameter_overview.get_parameter_overview(state.params)  # of the report
        self.log(f"{mesh.size} x {first.device_kind} ({first.platform}) under {self._config.train.parallel}")
        self.log("\n".join(f"{player}: {sizes(params)}" for player, params in state.params.items()))
        self.log(f"train: {sources[0]}\neval:  {sources[1]}")
        if state.step > 0:
            self.log(f"Resuming from step {int(state.step)}.")

    def log_memory(self, needed: int) -> None:
        """Prints the bytes that a training step needs on each device."""
        self.log(f"memory of a training step: {needed / 2**20:,.0f} MiB on each device")

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows a step, and logs it if it is due."""
        if not self._active:
            return
        self._step, speed = step, self.clock.read()
        self._mind_data()
        if missing := set(self._headline) - metrics.keys():
            raise ValueError(f"the headline {missing.pop()} is no metric of train_step, only {', '.join(metrics)}.")
        self._progress.update(step, {name: metrics[name] for name in self._headline}, **speed)
        if step % self._config.train.log_every == 0:
            self._writer.write_scalars(step, {f"train/{name}": value for name, value in {**metrics, **speed}.items()})

    def _mind_data(self) -> None:
        """Says once that a run spends its time waiting for data, and what helps."""
        trained, waited = self.clock.trained, self.clock.waited
        if self._hungry or trained < PATIENCE or waited < HUNGRY * trained:
            return
        self._hungry, source = True, self._config.data
        convert = f"python -m jaxvid.data {source.path} --convert DIR, then data.name=records and data.path=DIR"
        workers = f"--config.train.workers={os.cpu_count() or 1}, say"
        help_ = convert if source.name == "folder" else workers
        self.log(f"warning: {waited / trained:.0%} of the time goes into waiting for data. What helps: {help_}.")

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation follows this step."""
        return step == self._config.train.steps or (step > 0 and step % self._config.eval.every == 0)

    def owes_evaluation(self, start: int) -> bool:
        """Whether the run was ended between the checkpoint that it resumes from and the evaluation due there."""
        return self.evaluates(start) and processes.of_first(lambda: not self._evaluated)

    def evaluation(self, step: int, found: Evaluation, warnings: Sequence[str] = ()) -> None:
        """Logs an evaluation, draws its videos, prints what looks wrong, and rewrites the report.

        Raises ValueError where the method's `warnings` returned no list of sentences.
        """
        if not isinstance(warnings, list | tuple):
            raise ValueError(f"warnings returned {type(warnings).__name__}, expected a list of sentences.")
        if not self._active:
            return
        self._writer.write_scalars(step, {f"eval/{name}": value for name, value in found.scalars.items()})
        self.log(f"evaluation at step {step}: " + ", ".join(f"{k} {v:.4g}" for k, v in sorted(found.scalars.items())))
        for warning in warnings:
            self.log(f"warning: {warning}")
        panels = [video[: self._config.eval.videos] for video in found.panels.values()]
        caption = " | ".join(found.panels)
        if panels:
            strip = images.film_strip(panels, list(found.panels), f"{caption}, step {step}")
            grid, stem = images.grid(panels), self._workdir / "samples" / f"step_{step:07d}"
            images.write_png(stem.with_suffix(".png"), strip)
            images.write_gif(stem.with_suffix(".gif"), grid, images.FPS)
            images.write_mp4(stem.with_suffix(".mp4"), grid, images.FPS)
            self._writer.write_image(step, "eval/videos", strip)
        self._report(step, found, warnings, caption)

    def _report(self, step: int, found: Evaluation, warnings: Sequence[str], caption: str) -> None:
        config = config_lib.flatten(config_lib.to_dict(self._config))
        report(
            self._workdir / "report.html",
            title=f"{self._config.method} on {self._config.data.name} {self._config.data.path}".strip(),
            step=step,
            total_steps=self._config.train.steps,
            history=read_history(self._workdir),
            videos=[(int(p.stem[5:]), p) for p in sorted((self._workdir / "samples").glob("step_*.mp4"))],
            video_caption=caption,
            histograms=found.histograms,
            profiles=found.profiles,
            warnings=warnings,
            config={name: config_lib.abbreviated(value) for name, value in config.items()},
            files={name: name for name in WRITTEN if name != "report.html"},
            parameters=self._parameters,
        )

    def finish(self, step: int) -> None:
        """Prints where everything is."""
        lines = [f"Finished at step {step}. Written to {self._workdir}:"]
        lines += [f"  {name:<14} {what}" for name, what in WRITTEN.items() if (self._workdir / name).exists()]
        self.log("\n".join(lines))

    def close(self) -> None:
        """Ends the progress line, closes the files, and says in the report where an unfinished run stopped."""
        if self._active:
            self._progress.close()
            self._writer.close()
            with contextlib.suppress(OSError):  # of a full disk, which is said already
                mark(self._workdir / "report.html", f"stopped at step {self._step}")
