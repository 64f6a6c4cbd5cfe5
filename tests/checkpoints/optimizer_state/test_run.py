"""A run that goes on from another run's checkpoint takes over its optimizer, step included."""

import dataclasses

import jax
import numpy as np
import pytest

from prompt_tuning import tree
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.checkpoints.optimizer_state import run
from prompt_tuning.errors import CheckpointError
from prompt_tuning.run import optimizer_start
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.schedules import create_learning_rate_scheduler
from prompt_tuning.training.state import TrainState
from prompt_tuning.training.trainer import Trainer

WIDE = "decoder/logits_dense/kernel"
SMALL = "encoder/encoder_norm/scale"
SHAPES = {WIDE: (130, 140), SMALL: (130,)}
STEP, RESTORED_STEP = 3, 5


def trainer(**changes):
    settings = {"restored_step": None, **changes}
    return Trainer(Adafactor(**settings), create_learning_rate_scheduler(warmup_steps=2))


def params():
    rng = np.random.default_rng(0)
    return {path: rng.normal(size=shape).astype(np.float32) for path, shape in SHAPES.items()}


@pytest.fixture
def saved(tmp_path):
    """(checkpoint of a run of some updates, its optimizer state)."""
    tx = Adafactor(restored_step=RESTORED_STEP).make(lambda step: 0.01)
    flat = params()
    opt_state = tx.init(tree.unflatten(flat))
    for scale in range(1, STEP + 1):
        grads = tree.unflatten({path: scale * x for path, x in flat.items()})
        _, opt_state = tx.update(grads, opt_state, tree.unflatten(flat))
    rng = jax.random.key_data(jax.random.key(0))
    state = TrainState(np.int32(STEP), tree.unflatten(flat), opt_state, rng)
    state = jax.tree.map(jax.numpy.asarray, state)
    checkpointer = Checkpointer(str(tmp_path), keep=None)
    metadata = {"step": STEP, "restored_step": RESTORED_STEP, "trainable_regex": [".*"]}
    checkpointer.save(STEP, state, metadata)
    checkpointer.close()
    return tmp_path / f"checkpoint_{STEP}", opt_state


def wanted():
    return {path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in SHAPES.items()}


def test_moments_and_steps_go_on(saved):
    path, opt_state = saved
    source = open_source(path)
    started, restored = optimizer_start.starting_from(trainer(), source, wanted())
    assert restored is not None
    assert started.optimizer.restored_step == restored.step == STEP + RESTORED_STEP
    assert started.learning_rate_fn(0) == trainer().learning_rate_fn(STEP + RESTORED_STEP)
    tx = started.optimizer.make(started.learning_rate_fn)
    fresh = jax.tree.map(jax.numpy.asarray, tx.init(tree.unflatten(params())))
    found = optimizer_start.restore_moments(fresh, restored, wanted())
    moments = [leaf for leaf in jax.tree.leaves(opt_state) if np.ndim(leaf)]
    same = [leaf for leaf in jax.tree.leaves(found) if np.ndim(leaf)]
    assert len(moments) == len(same) == 6
    for left, right in zip(moments, same, strict=True):
        np.testing.assert_array_equal(left, right)
    assert sum(float(np.abs(leaf).sum()) > 0 for leaf in same) == 3


def test_what_a_run_did_not_train_starts_fresh(saved, capsys):
    path, _ = saved
    source = open_source(path)
    more = {**SHAPES, "encoder/other/scale": (4,)}
    assert run.find_run_optimizer_state(source, more) is None
    assert run.find_run_optimizer_state(source, {}) is None
    assert run.find_run_optimizer_state(None, SHAPES) is None
    _, restored = optimizer_start.starting_from(trainer(restored_step=0), source, wanted())
    assert restored is None
    assert "Optimizer" not in capsys.readouterr().out


def test_another_factoring_is_refused(saved):
    path, _ = saved
    started, restored = optimizer_start.starting_from(
        trainer(factored=False), open_source(path), wanted()
    )
    assert restored is not None
    tx = dataclasses.replace(started.optimizer).make(started.learning_rate_fn)
    fresh = jax.tree.map(jax.numpy.asarray, tx.init(tree.unflatten(params())))
    with pytest.raises(CheckpointError, match="factored otherwise"):
        optimizer_start.restore_moments(fresh, restored, wanted())
