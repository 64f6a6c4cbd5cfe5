"""Saves and resumes the state of a run: `MODEL_DIR/checkpoint_{step}`, one directory a save.

A save is over when `save` returns: nothing is written behind training's back, so a process killed at any moment leaves
the checkpoints it had plus at most a temporary folder, which the next run removes.
"""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from etils import epath
from jax.experimental import multihost_utils

from prompt_tuning import tree
from prompt_tuning.checkpoints import file_digests, json_files, paths
from prompt_tuning.checkpoints.formats import run, t5x, t5x_orbax
from prompt_tuning.checkpoints.ledger import Ledger
from prompt_tuning.checkpoints.paths import STEP_PREFIX
from prompt_tuning.errors import CheckpointError, unreadable
from prompt_tuning.types import PyTree

# Orbax writes here and renames; on gs://, which cannot rename, it writes under the final name and marks it when done.
_TEMPORARY_DIR = re.compile(rf"{STEP_PREFIX}\d+\.orbax-checkpoint-tmp.*")
_UNSEALED = ".orbax-checkpoint-tmp-without-digests"
_FINISHED_MARK = "commit_success.txt"
# A damaged checkpoint is set aside under this name, for its owner to look at.
_DAMAGED_PREFIX = "damaged_"


class Checkpointer:
    """The checkpoints of one run.

    Opening a run's directory looks at its newest checkpoints. Damaged ones are set aside as
    `damaged_checkpoint_{step}`, so that the run goes on from the last sound one. All processes call it alike.

    Args:
      model_dir: Output folder of the run; created if missing; local or gs://.
      keep: Newest checkpoints kept; the best step of the ledger stays too. None keeps all.

    Attributes:
      ledger: The best steps by their metrics; they survive `keep`.

    Raises:
      CheckpointError: If there are checkpoints but all of them are damaged, or they are T5X's.
    """

    def __init__(self, model_dir: epath.PathLike, *, keep: int | None = 1):
        """Finds the newest sound checkpoint."""
        logging.get_absl_logger().addFilter(_is_news)
        # Orbax takes no relative paths.
        self._dir = paths.absolute(model_dir)
        self._keep = keep
        self._latest = self._find_latest()
        self.ledger = Ledger(self._dir)
        self._dir.mkdir(parents=True, exist_ok=True)
        # Not Orbax's CheckpointManager: it saves and cleans up in the background, and at every step asks JAX whether
        # the machine is about to be taken away. JAX compares the processes by the number that they ask with, and
        # answers yes to one number only; `preemption.Notice` asks with a count of its own: together they would miss it.
        self._orbax = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(
                **{
                    # Pinned, whatever Orbax's defaults become: formats/run.py reads this layout.
                    run.STATE_ITEM: ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=False),
                    run.METADATA_ITEM: ocp.JsonCheckpointHandler(),
                }
            )
        )

    def latest_step(self) -> int | None:
        """Returns the newest step that can be restored, None before the first save."""
        return self._latest

    def path(self, step: int) -> epath.Path:
        """Returns the directory of `step`."""
        return self._dir / f"{STEP_PREFIX}{step}"

    def save(self, step: int, state: PyTree, metadata: Mapping[str, Any]) -> None:
        """Writes a checkpoint and returns when it is complete; removes those no longer kept.

        Args:
          step: Updates applied to `state`. A step that exists already is left as it is.
          state: Any pytree of arrays; random state as raw uint32 key data.
          metadata: What belongs to the state and is not an array; stored as JSON.
        """
        if step in paths.steps_in(self._dir):
            logging.info("Checkpoint %d exists already", step)
            return
        arrays: dict[str, Any] = {}
        for name, leaf in _named_leaves(state).items():
            arrays[name] = leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)
            is_key = jax.dtypes.issubdtype(arrays[name].dtype, jax.dtypes.prng_key)
            assert not is_key, (
                "a state holds raw key data, which has one form on every version of JAX"
            )
        path = self.path(step)
        # Digests belong to a save: killed before they are written, it has a name that the next start removes. An object
        # store, which cannot rename, checks its objects itself.
        unsealed = path if paths.in_object_store(path) else path.with_name(path.name + _UNSEALED)
        self._orbax.save(
            unsealed,
            args=ocp.args.Composite(
                **{
                    run.STATE_ITEM: ocp.args.PyTreeSave(tree.unflatten(arrays)),
                    run.METADATA_ITEM: ocp.args.JsonSave(json.loads(json_files.encode(metadata))),
                }
            ),
        )
        if jax.process_index() == 0:
            file_digests.write(unsealed, without=_FINISHED_MARK)
            if unsealed != path:
                unsealed.rename(path)
        self._latest = step
        self._discard()

    def _discard(self) -> None:
        """Removes the checkpoints that are neither among the newest nor best by a metric."""
        if self._keep is None or jax.process_index() != 0:
            return
        for step in paths.steps_in(self._dir)[: -self._keep]:
            # What another program wrote is not this one's to remove.
            if step not in self.ledger.steps() and run.is_run_checkpoint(self.path(step)):
                self.path(step).rmtree()

    def restore(self, step: int, abstract_state: PyTree) -> tuple[PyTree, dict[str, Any]]:
        """Returns the state of `step` and its metadata.

        Args:
          step: A saved step.
          abstract_state: Same structure as the saved state, `jax.ShapeDtypeStruct` leaves; arrays land with their
            shardings (on the first device where a leaf has none).

        Raises:
          CheckpointError: If there is no such step, it is damaged, or its names, shapes or dtypes differ.
        """
        path = self.path(step)
        if not run.is_run_checkpoint(path):
            raise CheckpointError(
                f"No checkpoint of step {step} in {self._dir}",
                got=step,
                expected=f"one of {paths.steps_in(self._dir)}",
                fix="restore a step that exists",
            )
        wanted = _named_leaves(abstract_state)
        _check_same(path, wanted, run.open_state(path).shapes())
        # Its size was checked before, so that Orbax cuts and pads nothing.
        one_device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        restore_args = {
            name: ocp.ArrayRestoreArgs(
                dtype=leaf.dtype, sharding=leaf.sharding or one_device, global_shape=leaf.shape
            )
            for name, leaf in wanted.items()
        }
        args = ocp.args.PyTreeRestore(
            item=tree.unflatten(wanted), restore_args=tree.unflatten(restore_args)
        )
        try:
            restored = self._orbax.restore(path, args=ocp.args.Composite(**{run.STATE_ITEM: args}))
        except (ValueError, OSError) as e:
            fix = f"delete {path}: the run then goes on from the step before"
            raise unreadable(path, e, expected="a complete checkpoint", fix=fix) from e
        flat = tree.flatten(restored[run.STATE_ITEM])
        leaves = [flat[name] for name in wanted]
        state = jax.tree.unflatten(jax.tree.structure(abstract_state), leaves)
        return state, self.metadata(step)

    def metadata(self, step: int) -> dict[str, Any]:
        """Returns what `save` was given beside the state of `step`."""
        return run.read_metadata(self.path(step))

    def latest_metadata(self) -> dict[str, Any] | None:
        """Returns what `save` was given beside the newest state, None before the first save."""
        return None if self._latest is None else self.metadata(self._latest)

    def close(self) -> None:
        """Frees what Orbax holds; nothing may be saved afterwards."""
        self._orbax.close()

    def _find_latest(self) -> int | None:
        """The newest sound step; process 0 looks and decides for all."""
        latest = -1
        failure: CheckpointError | None = None
        # One process decides, so that all restore the same step whatever each of them sees.
        if jax.process_index() == 0:
            try:
                latest = self._look_for_latest()
            except CheckpointError as e:
                failure = e
        if jax.process_count() > 1:
            code = -2 if failure else latest
            latest = int(multihost_utils.broadcast_one_to_all(np.int32(code)))
        if failure:
            raise failure
        if latest == -2:
            raise CheckpointError(
                f"No checkpoint in {self._dir} can be used",
                got="the error that process 0 reports",
                expected="a sound checkpoint",
                fix="see the error of process 0",
            )
        return None if latest == -1 else latest

    def _look_for_latest(self) -> int:
        """The newest sound step, -1 if there are no checkpoints at all."""
        damaged: dict[int, str] = {}
        steps = paths.steps_in(self._dir)
        # Before anything is touched: a folder that is not a run's own is left exactly as it is.
        _refuse_t5x(self._dir, [self.path(step) for step in steps])
        # What saves that were killed have left; nothing else is ever removed.
        for path in list(self._dir.iterdir()) if self._dir.is_dir() else []:
            if _TEMPORARY_DIR.fullmatch(path.name):
                logging.info("Removing the unfinished checkpoint %s", path)
                path.rmtree()
        for step in reversed(steps):
            path = self.path(step)
            damage = run.find_damage(path)
            if damage is None:
                for bad in damaged:
                    _set_aside(self.path(bad))
                if _lacks_mark(path):
                    # Written elsewhere and copied here: without the mark Orbax would not restore it.
                    (path / _FINISHED_MARK).write_text(f"Found to be complete: {path}")
                return step
            damaged[step] = damage
            logging.warning("Passing over the damaged checkpoint %s: %s", path, damage)
        if all(_lacks_mark(self.path(step)) for step in damaged):
            # The first save was killed. Elsewhere that leaves a temporary name, and the run begins anew.
            for bad in damaged:
                _set_aside(self.path(bad))
            return -1
        newest = max(damaged)
        raise CheckpointError(
            f"Every checkpoint in {self._dir} is damaged",
            got=f"{STEP_PREFIX}{newest}: {damaged[newest]}",
            expected="at least one sound checkpoint",
            fix="restore one from a copy, or choose another MODEL_DIR to start anew",
        )


def _is_news(record: Any) -> bool:
    """Whether a line of the log is not the traceback that a thread of Orbax prints of what `save` then raises."""
    return "_SignalingThread.run() raised an exception" not in record.getMessage()


def _refuse_t5x(model_dir: epath.Path, checkpoints: Sequence[epath.Path]) -> None:
    """Raises CheckpointError if one of the checkpoints is T5X's."""
    for path in checkpoints:
        if t5x.is_t5x_checkpoint(path) or t5x_orbax.is_t5x_orbax_checkpoint(path):
            raise CheckpointError(
                f"MODEL_DIR {model_dir} holds checkpoints of T5X",
                got=path.name,
                expected="an empty folder, or one of an earlier run of this program",
                fix="choose another MODEL_DIR; T5X checkpoints go into INITIAL_CHECKPOINT_PATH",
            )


def _lacks_mark(path: epath.Path) -> bool:
    """Whether a checkpoint in an object store lacks the mark of a finished save; a copy from elsewhere does too."""
    return paths.in_object_store(path) and not (path / _FINISHED_MARK).exists()


def _set_aside(path: epath.Path) -> None:
    """Gives a damaged checkpoint a name that no run takes for a checkpoint, and that is free."""
    name = f"{_DAMAGED_PREFIX}{path.name}"
    free = (path.parent / (f"{name}_{i}" if i > 1 else name) for i in itertools.count(1))
    target = next(candidate for candidate in free if not candidate.exists())
    logging.warning("Setting the damaged checkpoint %s aside as %s", path, target.name)
    try:
        path.rename(target)
    except Exception as e:  # every file system raises its own
        raise CheckpointError(
            f"Cannot set the damaged checkpoint {path} aside",
            got=str(e),
            expected=f"to rename it to {target.name}",
            fix=f"move {path} out of the folder",
        ) from e


def _named_leaves(state: PyTree) -> dict[str, Any]:
    """The leaves by name, in the order of the tree: `trainable/encoder/...`, `opt_state/0/v/...`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    named = {
        jax.tree_util.keystr(key_path, simple=True, separator="/"): leaf
        for key_path, leaf in leaves
    }
    assert len(named) == len(leaves), "two leaves share a name"
    return named


def _check_same(
    path: epath.Path,
    wanted: Mapping[str, jax.ShapeDtypeStruct],
    stored: Mapping[str, tuple[tuple[int, ...], np.dtype]],
) -> None:
    """Raises CheckpointError unless names, shapes and dtypes agree."""
    expected = {name: (tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in wanted.items()}
    different = sorted(
        name for name in {*expected, *stored} if expected.get(name) != stored.get(name)
    )
    if different:
        first = different[:3]
        raise CheckpointError(
            f"The checkpoint {path} is of another run: {len(different)} of {len(expected)} leaves differ",
            got={name: stored.get(name) for name in first},
            expected=str({name: expected.get(name) for name in first}),
            fix="resume with the model, prompt length and optimizer it was saved with, or use another MODEL_DIR",
        )
