import contextlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

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


def save(workdir: Path, *states: TrainState, devices: int = 1, shard: bool = False, keep: int = 5) -> None:
    with contextlib.closing(checkpoint.Checkpointer(workdir, keep)) as checkpointer:
        for state in states:
            checkpointer.save(jax.device_put(state, parallel.state_sharding(state, mesh_of(devices), shard)))


def restore(workdir: Path, devices: int = 1, shard: bool = False, like: TrainState | None = None) -> TrainState | None:
    with contextlib.closing(checkpoint.Checkpointer(workdir, 5)) as checkpointer:
        abstract = jax.eval_shape(lambda: like or state_at(0))
        shardings = parallel.state_sharding(abstract, mesh_of(devices), shard)
        return checkpointer.restore(checkpoint.placed(abstract, shardings))


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_nothing_saved_gives_nothing(tmp_path: Path) -> None:
    assert restore(tmp_path) is None


@pytest.mark.parametrize(
    ("before", "after"), [((1, False), (8, True)), ((8, False), (1, False)), ((8, True), (4, True))]
)
def test_a_state_comes_back_bit_for_bit_on_other_devices(tmp_path: Path, before: tuple, after: tuple) -> None:
    save(tmp_path, state_at(3), devices=before[0], shard=before[1])
    restored = restore(tmp_path, *after)
    assert restored is not None and bits(restored) == bits(state_at(3))
    assert len(restored.params["net"]["kernel"].sharding.device_set) == after[0]
    assert restored.params["net"]["kernel"].is_fully_replicated
    assert restored.opt_state["net"][0].is_fully_replicated is not after[1]


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


LEAVES = {
    "float32": np.linspace(-1, 1, 96, dtype=np.float32).reshape(8, 4, 3),
    "bfloat16": np.linspace(-1, 1, 40).astype(jnp.bfloat16).reshape(8, 5),
    "int32": np.arange(-8, 8, dtype=np.int32),
    "uint32": np.array([2**32 - 1, 5], np.uint32),
    "uint8": np.arange(16, dtype=np.uint8),
    "bool": np.array([True, False, True, True]),
    "scalar": np.float32(np.pi),
    "empty": np.zeros((0, 3), np.float32),
}


def summed(leaf: np.ndarray) -> list[int]:
    """The two sums in Python's own integers."""
    words = [int.from_bytes(np.asarray(value).tobytes(), sys.byteorder) for value in np.asarray(leaf).reshape(-1)]
    return [sum(words) % 2**32, sum((word ^ word >> 15) * (2 * i + 1) for i, word in enumerate(words)) % 2**32]


def test_the_sums_are_those_of_the_words_however_they_are_distributed() -> None:
    key = jax.random.key(5)
    leaves = LEAVES | {"key": key}
    mesh = mesh_of(8)
    expected = [summed(leaves[name]) if name != "key" else summed(jax.random.key_data(key)) for name in sorted(leaves)]

    def put(leaf: Any, sharded: bool) -> jax.Array:
        axes = jnp.shape(leaf)
        spec = jax.sharding.PartitionSpec(*["data"][: int(sharded and bool(axes) and axes[0] in (8, 16))])
        return jax.device_put(leaf, jax.sharding.NamedSharding(mesh, spec))

    for sharded in (False, True):
        tree = {name: put(leaf, sharded) for name, leaf in leaves.items()}
        program = jax.jit(checkpoint.sums, out_shardings=parallel.replicated(mesh)).lower(tree).compile()
        assert np.asarray(program(tree)).tolist() == expected
        assert not re.search(r"all-gather|all-to-all|collective-permute", program.as_text())
    assert "all-reduce" in program.as_text()


def test_the_sums_notice_flipped_bits_and_swapped_words() -> None:
    program, rng = jax.jit(checkpoint.sums), np.random.default_rng(0)
    whole = np.asarray(program(LEAVES))
    for trial in range(60):
        name = sorted(set(LEAVES) - {"empty"})[trial % 7]
        damaged = {**LEAVES, name: np.array(LEAVES[name])}
        raw = damaged[name].reshape(-1).view(np.uint8)
        raw[rng.integers(len(raw))] ^= 1 if name == "bool" else 1 << rng.integers(8)
        assert ((np.asarray(program(damaged)) != whole).all(1) == [each == name for each in sorted(LEAVES)]).all()
    # Numbers of both signs, the other way around: every word changes places with one that differs in its sign alone.
    swapped = {**LEAVES, "float32": LEAVES["float32"][::-1, ::-1, ::-1].copy()}
    assert (np.asarray(program(swapped)) != whole).sum() == 1


def test_a_checkpoint_with_another_digest_is_restored_with_a_warning(tmp_path: Path, monkeypatch, caplog) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SUMS", "digests")
        save(tmp_path, state_at(3))
    restored = restore(tmp_path)
    assert restored is not None and bits(restored) == bits(state_at(3))
    assert "Checkpoint 3 was written by a version whose digest is another: it is not verified." in caplog.text


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
