"""What `parallel` knows of the devices."""

from types import SimpleNamespace

import jax
import pytest

from jaxvid import parallel


@pytest.mark.parametrize(("found", "expected"), [("9.0", 9.0), ("10.3", 10.3), ("gfx942", 0.0), (None, 0.0)])
def test_only_gpus_of_nvidia_have_a_compute_capability(monkeypatch, found, expected) -> None:
    monkeypatch.setattr(parallel, "platform", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(compute_capability=found)])
    assert parallel.compute_capability() == expected


def test_a_default_device_of_another_platform_has_its_forms() -> None:
    with jax.default_device("cpu"):  # a name, as jax.config takes it
        assert parallel.platform() == "cpu" and parallel.compute_capability() == 0.0
    with jax.default_device(jax.devices("cpu")[0]):
        assert parallel.platform() == "cpu" and parallel.compute_capability() == 0.0
