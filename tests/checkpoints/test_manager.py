import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from prompt_tuning.checkpoints import file_digests
from prompt_tuning.checkpoints.formats import run
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.errors import CheckpointError
from prompt_tuning.partitioning import PjitPartitioner
from tests.checkpoints.run_states import (
    State,
    assert_equal,
    files_of,
    make_state,
    names,
    save_steps,
    to_abstract,
)
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.checkpoints.tiny_params import make_unscanned
from tests.helpers import REPO

PROMPT = "encoder/prompt/prompt/prompt"


def save_to(directory, step):
    save_steps(directory, step)
    return directory / f"checkpoint_{step}"


def test_nothing_saved_yet(tmp_path):
    checkpointer = Checkpointer(tmp_path / "new")
    assert checkpointer.latest_step() is None
    assert checkpointer.ledger.best == {}
    with pytest.raises(CheckpointError, match="No checkpoint of step 3"):
        checkpointer.restore(3, to_abstract(make_state(0)))


def test_saved_state_comes_back(tmp_path):
    save_steps(tmp_path, 0, 10)
    checkpointer = Checkpointer(tmp_path)
    assert checkpointer.latest_step() == 10
    state = make_state(10)
    restored, metadata = checkpointer.restore(10, to_abstract(state))
    assert_equal(restored, state)
    assert isinstance(restored, State)
    assert metadata == {"step": 10} == checkpointer.metadata(10)


def test_restored_arrays_have_the_shardings_asked_for(tmp_path):
    weights = {"w": jnp.arange(64, dtype=jnp.float32).reshape(8, 8), "s": jnp.float32(3)}
    Checkpointer(tmp_path).save(1, weights, {})
    for num_partitions in (1, 4):
        mesh = PjitPartitioner(num_partitions=num_partitions).mesh
        spec = jax.sharding.PartitionSpec("data", "model")
        sharding = jax.sharding.NamedSharding(mesh, spec)
        abstract = {
            "w": jax.ShapeDtypeStruct((8, 8), jnp.float32, sharding=sharding),
            "s": jax.ShapeDtypeStruct((), jnp.float32),
        }
        restored, _ = Checkpointer(tmp_path).restore(1, abstract)
        assert restored["w"].sharding == sharding
        assert len(restored["s"].sharding.device_set) == 1
        np.testing.assert_array_equal(np.asarray(restored["w"]), np.asarray(weights["w"]))


def test_key_data_and_bfloat16_and_metadata_types(tmp_path):
    state = {"key": jax.random.key_data(jax.random.key(7)), "x": jnp.ones((3,), jnp.bfloat16) / 3}
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, state, {"dtype": jnp.dtype("bfloat16"), "n": np.int64(4), "t": (1, 2)})
    restored, metadata = checkpointer.restore(1, to_abstract(state))
    assert {k: x.dtype for k, x in restored.items()} == {k: x.dtype for k, x in state.items()}
    for name in ("key", "x"):
        np.testing.assert_array_equal(np.asarray(restored[name]), np.asarray(state[name]))
    assert run.open_state(checkpointer.path(1)).shapes()["key"] == ((2,), np.dtype("uint32"))
    assert metadata == {"dtype": "bfloat16", "n": 4, "t": [1, 2]}
    with pytest.raises(AssertionError, match="raw key data"):
        checkpointer.save(2, {"key": jax.random.key(7)}, {})


def test_another_run_is_an_error(tmp_path):
    save_steps(tmp_path, 10)
    checkpointer = Checkpointer(tmp_path)
    with pytest.raises(CheckpointError, match=r"of another run.*\(5, 8\).*\(6, 8\)"):
        checkpointer.restore(10, to_abstract(make_state(10, shape=(6, 8))))
    sgd = make_state(10).replace(opt_state=())
    with pytest.raises(CheckpointError, match="of another run.*opt_state/"):
        checkpointer.restore(10, to_abstract(sgd))


def test_only_the_newest_stay_and_directories_have_t5x_names(tmp_path):
    save_steps(tmp_path, 1, 2, 3, keep=1)
    assert names(tmp_path) == ["checkpoint_3"]
    save_steps(tmp_path, 4, 5, keep=2)
    assert names(tmp_path) == ["checkpoint_4", "checkpoint_5"]
    save_steps(tmp_path, 6, 7, keep=None)
    assert names(tmp_path) == [f"checkpoint_{i}" for i in (4, 5, 6, 7)]


def test_saving_a_step_again_changes_nothing(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    checkpointer.save(1, make_state(1), {"first": True})
    checkpointer.save(1, make_state(2), {"first": False})
    assert checkpointer.metadata(1) == {"first": True}


def test_best_step_survives(tmp_path):
    checkpointer = Checkpointer(tmp_path, keep=1)
    for step, value in [(1, 0.5), (2, 0.9), (3, 0.7), (4, float("nan")), (5, 0.9)]:
        checkpointer.save(step, make_state(step), {})
        checkpointer.ledger.record(step, "accuracy", value)
    assert names(tmp_path) == ["best.json", "checkpoint_2", "checkpoint_5"]
    best = {"name": "accuracy", "step": 2, "value": 0.9, "higher_is_better": True}
    assert checkpointer.ledger.best == {"accuracy": best}
    # The ledger outlives the process.
    resumed = Checkpointer(tmp_path, keep=1)
    assert resumed.ledger.best == {"accuracy": best}
    assert resumed.latest_step() == 5
    resumed.save(6, make_state(6), {})
    assert names(tmp_path) == ["best.json", "checkpoint_2", "checkpoint_6"]
    resumed.ledger.record(6, "accuracy", 0.95)
    resumed.save(7, make_state(7), {})
    assert names(tmp_path) == ["best.json", "checkpoint_6", "checkpoint_7"]


def test_metrics_are_apart(tmp_path):
    checkpointer = Checkpointer(tmp_path)
    for step, accuracy, score in [(1, 1.0, 0.1), (2, 3.0, 0.3), (3, 2.0, 0.4)]:
        checkpointer.ledger.record(step, "accuracy", accuracy)
        checkpointer.ledger.record(step, "f1", score)
    best = checkpointer.ledger.best
    assert {name: entry["step"] for name, entry in best.items()} == {"accuracy": 2, "f1": 3}
    assert checkpointer.ledger.steps() == {2, 3}


def test_damaged_ledger_is_begun_anew(tmp_path):
    Checkpointer(tmp_path).ledger.record(1, "f1", 0.5)
    (tmp_path / "best.json").write_text("{")
    assert Checkpointer(tmp_path).ledger.best == {}


@pytest.mark.parametrize("how", ["delete", "truncate"])
@pytest.mark.parametrize(
    "pattern",
    ["metadata/metadata", "state/_METADATA", "state/manifest.ocdbt", "state/d/*", "largest"],
)
def test_damaged_newest_falls_back(tmp_path, how, pattern):
    # Large enough for the values to lie in a file of their own.
    shape = (64, 64)
    save_steps(tmp_path, 1, 2, keep=3, shape=shape)
    newest = tmp_path / "checkpoint_2"
    if pattern == "largest":
        victims = [max(files_of(newest), key=lambda p: p.stat().st_size)]
    else:
        victims = list(newest.glob(pattern))
    assert victims
    for victim in victims:
        if how == "delete":
            victim.unlink()
        else:
            victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    checkpointer = Checkpointer(tmp_path, keep=3)
    assert checkpointer.latest_step() == 1
    restored, _ = checkpointer.restore(1, to_abstract(make_state(1, shape=shape)))
    assert_equal(restored, make_state(1, shape=shape))
    assert names(tmp_path) == ["checkpoint_1", "damaged_checkpoint_2"]
    # The run comes by the same step again.
    checkpointer.save(2, make_state(2, shape=shape), {})
    assert_equal(
        checkpointer.restore(2, to_abstract(make_state(2, shape=shape)))[0],
        make_state(2, shape=shape),
    )


def test_all_damaged_is_an_error(tmp_path):
    save_steps(tmp_path, 1)
    shutil.rmtree(tmp_path / "checkpoint_1" / "state")
    with pytest.raises(CheckpointError, match="Every checkpoint.*is damaged.*checkpoint_1"):
        Checkpointer(tmp_path)
    assert names(tmp_path) == ["checkpoint_1"]


def test_nothing_is_touched_where_t5x_wrote(tmp_path):
    save_steps(tmp_path, 8)
    (tmp_path / "checkpoint_9.orbax-checkpoint-tmp").mkdir()
    (tmp_path / "checkpoint_10").mkdir()
    write_t5x_checkpoint(tmp_path / "checkpoint_7", make_unscanned(), 7)
    before = files_of(tmp_path), names(tmp_path)
    with pytest.raises(CheckpointError, match="holds checkpoints of T5X.*INITIAL_CHECKPOINT_PATH"):
        Checkpointer(tmp_path)
    assert (files_of(tmp_path), names(tmp_path)) == before


def test_folders_of_others_outlast_the_run(tmp_path):
    (tmp_path / "checkpoint_1").mkdir()
    (tmp_path / "checkpoint_1" / "model.bin").write_bytes(b"x")
    (tmp_path / "checkpoint_1.tmp").mkdir()
    (tmp_path / "notes.orbax-checkpoint-tmp").mkdir()
    shutil.copytree(save_to(tmp_path / "other", 2), tmp_path / "checkpoint_2")
    shutil.rmtree(tmp_path / "other")
    save_steps(tmp_path, 3, 4)
    others = ["checkpoint_1", "checkpoint_1.tmp", "notes.orbax-checkpoint-tmp"]
    assert names(tmp_path) == sorted([*others, "checkpoint_4"])


def test_setting_aside_takes_a_free_name(tmp_path):
    save_steps(tmp_path, 1)
    for _ in range(2):
        (tmp_path / "checkpoint_2").mkdir()
        assert Checkpointer(tmp_path).latest_step() == 1
    assert names(tmp_path) == ["checkpoint_1", "damaged_checkpoint_2", "damaged_checkpoint_2_2"]


def test_relative_model_dir(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_steps("run", 1)
    assert Checkpointer("run").latest_step() == 1
    assert names(tmp_path / "run") == ["checkpoint_1"]


_SAVES_FOREVER = """
import sys
from tests.checkpoints.run_states import make_state
from prompt_tuning.checkpoints.manager import Checkpointer
checkpointer = Checkpointer(sys.argv[1], keep=1)
step = (checkpointer.latest_step() or 0) + 1
while True:
    checkpointer.save(step, make_state(step), {"step": step})
    print(step, flush=True)
    step += 1
"""


@pytest.mark.slow
def test_killed_at_any_moment_leaves_a_sound_checkpoint(tmp_path):
    rng = np.random.default_rng(0)
    reached = 0
    env = {**os.environ, "PYTHONPATH": str(REPO)}
    leftovers = 0
    for _ in range(8):
        command = [sys.executable, "-c", _SAVES_FOREVER, str(tmp_path)]
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = int(process.stdout.readline())
            time.sleep(rng.uniform(0, 0.3))
            process.send_signal(signal.SIGKILL)
            told = max([told, *map(int, process.stdout.read().split())])
        leftovers += any("tmp" in name for name in names(tmp_path))
        assert told > reached
        checkpointer = Checkpointer(tmp_path)
        reached = checkpointer.latest_step()
        # A save that was told of is never lost; one more may have been complete before it was told of.
        assert reached in (told, told + 1)
        state, metadata = checkpointer.restore(reached, to_abstract(make_state(0)))
        assert_equal(state, make_state(reached))
        assert metadata == {"step": reached}
        assert not any("tmp" in name or "damaged" in name for name in names(tmp_path))
        checkpointer.close()
    print(f"{leftovers} of 8 kills hit a save that was under way; reached step {reached}")


def test_temporary_folder_of_a_killed_save_is_removed(tmp_path):
    save_steps(tmp_path, 1)
    shutil.copytree(tmp_path / "checkpoint_1", tmp_path / "checkpoint_2.orbax-checkpoint-tmp")
    (tmp_path / "checkpoint_2.orbax-checkpoint-tmp" / "commit_success.txt").unlink(missing_ok=True)
    checkpointer = Checkpointer(tmp_path)
    assert checkpointer.latest_step() == 1
    assert names(tmp_path) == ["checkpoint_1"]


def test_a_save_that_is_killed_before_its_digests_is_none(tmp_path, monkeypatch):
    save_steps(tmp_path, 1)
    checkpointer = Checkpointer(tmp_path)

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(file_digests, "write", killed)
        checkpointer.save(2, make_state(2), {"step": 2})
    assert len(names(tmp_path)) == 2 and "checkpoint_2" not in names(tmp_path)
    checkpointer = Checkpointer(tmp_path)
    assert names(tmp_path) == ["checkpoint_1"] and checkpointer.latest_step() == 1
    checkpointer.save(2, make_state(2), {"step": 2})
    assert file_digests.are_in(epath.Path(tmp_path) / "checkpoint_2")


def test_prompt_checkpoint_is_small(tmp_path):
    # Random numbers throughout: a fresh optimizer's zeros would compress to nothing.
    state = jax.tree.map(
        lambda x: jax.random.uniform(jax.random.key(0), x.shape, x.dtype) if x.ndim == 2 else x,
        make_state(1, shape=(100, 512)),
    )
    raw = sum(x.nbytes for x in jax.tree.leaves(state))
    assert raw > 400_000
    Checkpointer(tmp_path).save(1, state, {"step": 1})
    size = sum(p.stat().st_size for p in files_of(tmp_path / "checkpoint_1"))
    print(f"{size} bytes on disk for {raw} bytes of state")
    assert size < 2**20
