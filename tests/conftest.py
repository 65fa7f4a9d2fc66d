"""Eight simulated devices for every test: one process stands for a whole pod."""

import importlib.util
import os
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest
from ml_collections import ConfigDict

# Before JAX starts: simulated CPU devices deadlock on few cores unless NPROC says there are at least twice as many.
os.environ.setdefault("NPROC", "16")
# Programs of tests take most of their time to compile: a third of it in this way.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
if version("jaxlib").startswith("0.10."):  # later ones do not know the flag
    QUICK += " --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("XLA_FLAGS", f"--xla_force_host_platform_device_count=8 {QUICK}")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # there are as many test workers as cores

# Many tests run the same programs, which a test worker and the processes that it starts compile once.
COMPILED = tempfile.TemporaryDirectory(prefix="jaxvid-tests-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = COMPILED.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos and reference numbers that stands beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip("needs the folder shared/ of real videos beside the repository")
    return SHARED


@pytest.fixture
def off_cpu(monkeypatch) -> None:
    """What is traced in the test has the form of GPUs and TPUs, where `lax.platform_dependent` chooses it."""
    import jax

    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *inputs, cpu, default: default(*inputs))


def recipe(name: str) -> ConfigDict:
    """The config of "vqvae" or "vqvae:tiny" from configs/."""
    stem, _, variant = name.partition(":")
    spec = importlib.util.spec_from_file_location(stem, ROOT / "configs" / f"{stem}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(variant)
    if "tokenizer" in config:  # as if it had been trained: runs/vqvae_prior is what vqvae:prior writes
        config.tokenizer.config = recipe(Path(config.tokenizer.path).name.replace("_", ":"))
    return config


@pytest.fixture(scope="session")
def gan_run(tmp_path_factory) -> Path:
    """A tiny class-conditional GAN after two steps: its work folder, for tests of the group "readme"."""
    from jaxvid.train import train

    config = recipe("gan3d:tiny")
    config.train.steps, config.eval.examples = 2, 8
    folder = tmp_path_factory.mktemp("runs") / "gan3d"
    train(config, folder)
    return folder
