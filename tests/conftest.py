"""Eight simulated devices for every test; one test process stands for a whole pod."""

import os
from pathlib import Path

import pytest

# Before JAX starts: simulated CPU devices deadlock on few cores unless NPROC says there are at least twice as many.
os.environ.setdefault("NPROC", "16")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real videos and reference numbers that stands beside the repository; skips where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared data folder {SHARED.name}/ beside the repository")
    return SHARED
