import contextlib
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import recipe

from jaxvid import checkpoint, parallel
from jaxvid import run as run_lib
from jaxvid.config import to_dict
from jaxvid.core import TrainState


def state_at(step: int, scale: float = 1.0) -> TrainState:
    weights = scale * jax.random.normal(jax.random.key(step), (64, 32))
    return TrainState(
        step=jnp.array(step, jnp.int32),
        key=jax.random.key(7),
        params={"net": {"kernel": weights, "half": weights.astype(jnp.bfloat16)}},
        opt_state={"net": (weights + 1, jnp.array(step))},
        collections={"net": {}},
        ema={},
        extra={"average": weights.mean()},
    )


def bits(state: TrainState) -> list[bytes]:
    raw = jax.device_get(state.replace(key=jax.random.key_data(state.key)))
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(raw)]


def mesh_of(count: int) -> jax.sharding.Mesh:
    return parallel.make_mesh(jax.devices()[:count])


def save(workdir: Path, *states: TrainState, devices: int = 1, keep: int = 5) -> None:
    with contextlib.closing(checkpoint.Checkpointer(workdir, keep)) as checkpointer:
        for state in states:
            checkpointer.save(jax.device_put(state, parallel.replicated(mesh_of(devices))))


def restore(workdir: Path, devices: int = 1, shard: bool = False, like: TrainState | None = None) -> TrainState | None:
    with contextlib.closing(checkpoint.Checkpointer(workdir, 5)) as checkpointer:
        abstract = jax.eval_shape(lambda: like or state_at(0))
        shardings = parallel.state_sharding(abstract, mesh_of(devices), shard)
        return checkpointer.restore(checkpoint.placed(abstract, shardings))


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_nothing_saved_gives_nothing(tmp_path: Path) -> None:
    assert restore(tmp_path) is None


@pytest.mark.parametrize(("before", "after"), [(1, 1), (8, 1), (1, 8)])
def test_a_state_comes_back_bit_for_bit_on_other_devices(tmp_path: Path, before: int, after: int) -> None:
    save(tmp_path, state_at(3), devices=before)
    restored = restore(tmp_path, devices=after)
    assert restored is not None and bits(restored) == bits(state_at(3))
    assert len(restored.params["net"]["kernel"].sharding.device_set) == after


def test_a_state_may_be_donated_while_it_is_saved(tmp_path: Path) -> None:
    donate = jax.jit(lambda s: jax.tree.map(lambda x: x * 0, s), donate_argnums=0)
    expected = bits(state_at(3))
    with contextlib.closing(checkpoint.Checkpointer(tmp_path, 2)) as checkpointer:
        state = jax.device_put(state_at(3), parallel.replicated(mesh_of(1)))
        checkpointer.save(state)
        donate(state.params)
    restored = restore(tmp_path)
    assert restored is not None and bits(restored) == expected


def flip_bit(folder: Path) -> None:
    file = largest_file(folder / "state")
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 4
    file.write_bytes(raw)


def truncate(folder: Path) -> None:
    file = largest_file(folder / "state")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose_manifest(folder: Path) -> None:
    for file in (folder / "state").rglob("manifest*"):
        file.unlink()


def garble_summary(folder: Path) -> None:
    for file in (folder / "summary").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:10])


def alter_summary(folder: Path) -> None:
    file = largest_file(folder / "summary")
    file.write_bytes(file.read_bytes().replace(b"kernel", b"kernal"))


def lose_state(folder: Path) -> None:
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize("damage", [flip_bit, truncate, lose_manifest, garble_summary, alter_summary, lose_state])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path: Path, caplog, damage) -> None:
    save(tmp_path, state_at(3), state_at(6))
    damage(tmp_path / "checkpoints" / "6")
    restored = restore(tmp_path)
    assert restored is not None and bits(restored) == bits(state_at(3))
    assert "checkpoints/6 is damaged" in caplog.text
    # Set aside, so that its step can be saved again.
    assert (tmp_path / "damaged_checkpoints" / "6-0").is_dir()
    save(tmp_path, state_at(6))
    again = restore(tmp_path)
    assert again is not None and bits(again) == bits(state_at(6))


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    save(tmp_path / "whole", state_at(3))
    unnoticed = []
    for trial in range(12):
        copy = tmp_path / str(trial)
        shutil.copytree(tmp_path / "whole", copy)
        file = largest_file(copy / "checkpoints" / "3" / "state")
        raw = bytearray(file.read_bytes())
        raw[int(np.random.default_rng(trial).integers(len(raw)))] ^= 1 << (trial % 8)
        file.write_bytes(raw)
        try:
            restored = restore(copy)
        except ValueError as error:
            assert "damaged" in str(error)
        else:
            # A flip in bytes that nobody reads harms nobody.
            unnoticed += [trial] if restored is None or bits(restored) != bits(state_at(3)) else []
    assert not unnoticed


def test_all_damaged_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    save(tmp_path, state_at(3))
    truncate(tmp_path / "checkpoints" / "3")
    with pytest.raises(ValueError, match=r"every checkpoint in .* is damaged .*delete the folder.*--workdir"):
        restore(tmp_path)


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path) -> None:
    save(tmp_path, state_at(3))
    shutil.copytree(tmp_path / "checkpoints" / "3", tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp")
    restored = restore(tmp_path)
    assert restored is not None and int(restored.step) == 3


def test_another_shape_is_named(tmp_path: Path) -> None:
    save(tmp_path, state_at(3))
    other = state_at(0)
    other = other.replace(params={"net": {**other.params["net"], "kernel": jnp.zeros((64, 16))}})
    with pytest.raises(ValueError, match=r"params/net/kernel as \[\[64, 32\], 'float32'\].*\[\[64, 16\], 'float32'\]"):
        restore(tmp_path, like=other)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    save(tmp_path, *(state_at(s) for s in (1, 2, 3)), keep=2)
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir() if p.name.isdigit()) == ["2", "3"]


def test_load_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no config.json"):
        run_lib.load(tmp_path)
    fields = to_dict(recipe("gan3d:dcgan"))
    del fields["model"]["generator"]["modulated"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    (tmp_path / "batch.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks a field, modulated, that the method .* Use the version that"):
        run_lib.load(tmp_path)
