import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from prompt_tuning.checkpoints.formats import arrays, orbax_item, run, t5x
from prompt_tuning.checkpoints.formats.t5x_orbax import T5XOrbaxSource, is_t5x_orbax_checkpoint
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.errors import CheckpointError
from tests.checkpoints.run_states import save_steps
from tests.checkpoints.t5x_orbax_writer import write_t5x_orbax_checkpoint
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.checkpoints.tiny_params import make_unscanned

TABLE = "token_embedder/embedding"
either_way = pytest.mark.parametrize("use_ocdbt", [True, False])


@either_way
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reads_what_was_written(tmp_path, use_ocdbt, dtype):
    params = {path: x.astype(jnp.dtype(dtype)) for path, x in make_unscanned().items()}
    path = write_t5x_orbax_checkpoint(tmp_path / "any", params, 1100000, use_ocdbt=use_ocdbt)
    source = open_source(path)
    assert isinstance(source, T5XOrbaxSource)
    assert (source.kind, source.step, source.path) == ("t5x", 1100000, epath.Path(path))
    assert source.trainable_paths == frozenset() and source.settings is None
    assert source.shapes() == {k: (v.shape, v.dtype) for k, v in params.items()}
    for name, array in params.items():
        read = source.read(name)
        assert read.dtype == array.dtype
        np.testing.assert_array_equal(read, array)
    assert source.param_states.shapes() == {}


@either_way
def test_a_part_is_read_of_the_blocks_that_hold_it(tmp_path, use_ocdbt):
    params = make_unscanned()
    rows, width = params[TABLE].shape
    path = write_t5x_orbax_checkpoint(tmp_path / "checkpoint_7", params, 7, use_ocdbt=use_ocdbt)
    source = T5XOrbaxSource(f"{path}/")
    assert source.chunks(TABLE) == (rows // 2, width)
    if not use_ocdbt:
        # Its second block is lost: what lies in the first can still be read.
        (path / "state" / "target.token_embedder.embedding" / "1.0").unlink()
        with pytest.raises(CheckpointError, match=f"Cannot read {TABLE} of the T5X checkpoint"):
            source.read(TABLE)
    part = source.read(TABLE, (slice(1, rows // 2), slice(2, 5)))
    np.testing.assert_array_equal(part, params[TABLE][1 : rows // 2, 2:5])


@either_way
def test_optimizer_state_of_what_was_trained(tmp_path, use_ocdbt):
    params = make_unscanned()
    moments = {f"{TABLE}/{slot}": np.full((3,), i, np.float32) for i, slot in enumerate("mv")}
    path = write_t5x_orbax_checkpoint(
        tmp_path / "checkpoint_7", params, 7, use_ocdbt=use_ocdbt, moments=moments
    )
    states = T5XOrbaxSource(path).param_states
    assert set(states.shapes()) == set(moments)
    np.testing.assert_array_equal(states.read(f"{TABLE}/v"), moments[f"{TABLE}/v"])


@either_way
def test_moved_checkpoint_still_reads(tmp_path, use_ocdbt):
    params = make_unscanned()
    path = write_t5x_orbax_checkpoint(tmp_path / "checkpoint_7", params, 7, use_ocdbt=use_ocdbt)
    moved = path.rename(tmp_path / "elsewhere")
    np.testing.assert_array_equal(open_source(moved).read(TABLE), params[TABLE])


def test_the_newest_of_a_folder(tmp_path):
    for step in (9, 10):
        write_t5x_orbax_checkpoint(tmp_path / f"checkpoint_{step}", make_unscanned(), step)
    assert open_source(tmp_path, mode="latest").step == 10
    with pytest.raises(CheckpointError, match="2 checkpoint.*checkpoint_10"):
        open_source(tmp_path)


def test_without_a_recorded_step_the_name_tells(tmp_path):
    path = write_t5x_orbax_checkpoint(tmp_path / "checkpoint_7", make_unscanned(), 9)
    rewrite_leaves(path, lambda leaves: leaves.pop("('state', 'step')"))
    assert T5XOrbaxSource(path).step == 7


def test_it_is_no_run_of_this_program_and_the_other_way_round(tmp_path):
    theirs = write_t5x_orbax_checkpoint(tmp_path / "t5x" / "checkpoint_7", make_unscanned(), 7)
    assert is_t5x_orbax_checkpoint(theirs)
    assert not run.is_run_checkpoint(theirs) and not t5x.is_t5x_checkpoint(theirs)
    # Copied without the empty folder.
    (theirs / "dataset").rmdir()
    assert is_t5x_orbax_checkpoint(theirs)
    with pytest.raises(CheckpointError, match="holds checkpoints of T5X"):
        Checkpointer(theirs.parent)
    save_steps(tmp_path / "run", 1)
    ours = tmp_path / "run" / "checkpoint_1"
    assert not is_t5x_orbax_checkpoint(ours)
    shutil.rmtree(ours / "metadata")
    assert not is_t5x_orbax_checkpoint(ours)
    older = write_t5x_checkpoint(tmp_path / "checkpoint_7", make_unscanned(), 7)
    assert not is_t5x_orbax_checkpoint(older) and not is_t5x_orbax_checkpoint(tmp_path)


def rewrite_leaves(path, change):
    """Changes the list of leaves of a checkpoint."""
    file = path / "state" / "_METADATA"
    content = json.loads(file.read_text())
    change(content["tree_metadata"])
    file.write_text(json.dumps(content))


def lose_manifest(path):
    (path / "state" / "manifest.ocdbt").unlink()


def lose_data(path):
    for folder in (path / "state").glob("ocdbt.process_*"):
        shutil.rmtree(folder)
    shutil.rmtree(path / "state" / "d", ignore_errors=True)


def lose_leaves(path):
    (path / "state" / "_METADATA").unlink()


def cut_leaves(path):
    file = path / "state" / "_METADATA"
    file.write_text(file.read_text()[:300])


def keep_the_step_only(path):
    step = "('state', 'step')"
    rewrite_leaves(path, lambda leaves: [leaves.pop(k) for k in list(leaves) if k != step])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lose_manifest, "does not exist"),
        (lose_data, "target/encoder/|state/step"),
        (lose_leaves, "no file state/_METADATA"),
        (cut_leaves, "state/_METADATA: JSONDecodeError"),
        (keep_the_step_only, "no parameters under target, but state/step"),
    ],
)
def test_damage_is_an_error(tmp_path, damage, message):
    path = write_t5x_orbax_checkpoint(tmp_path / "checkpoint_7", make_unscanned(), 7)
    damage(path)
    with pytest.raises(CheckpointError, match="as a T5X checkpoint") as error:
        open_source(path)
    assert error.match(message) and error.match("download the checkpoint again")


def test_a_lost_array_is_an_error(tmp_path):
    path = write_t5x_orbax_checkpoint(
        tmp_path / "checkpoint_7", make_unscanned(), 7, use_ocdbt=False
    )
    shutil.rmtree(path / "state" / "target.token_embedder.embedding")
    with pytest.raises(CheckpointError, match=f"as a T5X checkpoint.*{TABLE}"):
        open_source(path)


def test_a_folder_without_arrays_names_what_is_accepted(tmp_path):
    (tmp_path / "state").mkdir()
    with pytest.raises(CheckpointError, match="a directory with state.*in either of T5X's formats"):
        open_source(tmp_path)


def test_names_in_object_stores():
    item = epath.Path("gs://bucket/run/checkpoint_7/state")
    name = "target.encoder.encoder_norm.scale"
    state = {"driver": "gcs", "bucket": "bucket", "path": "run/checkpoint_7/state/"}
    assert arrays.in_database(item, name) == {
        "driver": "ocdbt",
        "base": state,
        "path": "target.encoder.encoder_norm.scale/",
    }
    folder = {**state, "path": f"{state['path']}target.encoder.encoder_norm.scale/"}
    assert orbax_item._in_folder(item, name) == folder
