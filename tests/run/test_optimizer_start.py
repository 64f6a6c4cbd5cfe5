"""Which step and which second moments an optimizer starts with, and where they land."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from prompt_tuning import tree
from prompt_tuning.checkpoints.manager import Checkpointer
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.commands import convert
from prompt_tuning.errors import CheckpointError, ConfigError
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.prompts.config import PromptConfig
from prompt_tuning.run import start as initialization
from prompt_tuning.run.identity import check_same_run
from prompt_tuning.run.optimizer_start import starting_from
from prompt_tuning.training.adafactor import Adafactor
from prompt_tuning.training.schedules import create_learning_rate_scheduler
from prompt_tuning.training.trainer import Trainer
from tests.checkpoints.t5x_writer import write_t5x_checkpoint
from tests.helpers import tiny_config

PROMPT = "encoder/prompt/prompt/prompt"
STEP = 700
WARMUP = create_learning_rate_scheduler("constant * linear_warmup", 1.0, warmup_steps=1000)


@functools.cache
def _model(prompt=None, **overrides) -> EncoderDecoderModel:
    config = tiny_config(emb_dim=16, mlp_dim=32, head_dim=4, dropout_rate=0.0, **overrides)
    vocabulary = seqio.ByteVocabulary()
    return EncoderDecoderModel(T5(config, prompt), vocabulary, vocabulary)


@pytest.fixture(scope="module")
def write(tmp_path_factory):
    """Returns a function that gives a T5X checkpoint of the model, written once, and what it holds of moments."""

    @functools.cache
    def written(**settings):
        return _write(tmp_path_factory.mktemp("source"), **settings)

    return written


def _write(path, *, prompt=None, without=(), moments=True):
    """A T5X checkpoint of the model; its second moments are all different numbers."""
    rng = np.random.default_rng(0)
    params = {
        p: rng.normal(size=s.shape).astype("f") for p, s in _model(prompt).param_shapes.items()
    }
    slots = {}
    for name, x in params.items():
        if name not in without:
            slots |= {f"{name}/{slot}": np.zeros((1,), "f") for slot in ("v_row", "v_col", "m")}
            slots[f"{name}/v"] = rng.uniform(1, 2, x.shape).astype("f")
    folder = path / f"checkpoint_{STEP}"
    write_t5x_checkpoint(folder, params, STEP, moments=slots if moments else None)
    return open_source(folder), slots


def _trainer(restored_step):
    return Trainer(Adafactor(restored_step=restored_step), WARMUP)


def _start(model, trainer, source, model_dir, partitioner=None):
    trainer, state = starting_from(trainer, source, model.param_shapes)
    start = initialization.initialize(
        model,
        partitioner or PjitPartitioner(),
        trainer.optimizer.make(trainer.learning_rate_fn),
        source=source,
        frozen_dtype="float32",
        trainable_regex=(".*",),
        checkpointer=Checkpointer(model_dir),
        rng=jax.random.key(0),
        optimizer_state=state,
    )
    return trainer, start


def _second_moments(opt_state):
    (factored,) = [part for part in opt_state["unstacked"] if hasattr(part, "v_row")]
    return tree.flatten(factored.v)


def test_none_restores_the_moments_and_the_step(write, tmp_path, capsys):
    source, slots = write()
    trainer, start = _start(_model(), _trainer(None), source, tmp_path / "run")
    v = _second_moments(start.state.opt_state)
    assert len(v) == len(slots) // 4 > 40
    for path, array in v.items():
        np.testing.assert_array_equal(array, slots[f"{path}/v"], err_msg=path)
    assert trainer.optimizer.restored_step == STEP and int(start.state.step) == 0
    # The learning rate counts from there, as in T5X.
    assert float(trainer.learning_rate_fn(jnp.int32(5))) == pytest.approx(0.705)
    assert f"checkpoint_{STEP}, at step {STEP}" in capsys.readouterr().out


def test_without_a_stored_state_it_starts_fresh_and_says_so(write, tmp_path, capsys):
    source, _ = write(moments=False)
    trainer, start = _start(_model(), _trainer(None), source, tmp_path / "run")
    assert not any(np.any(x) for x in _second_moments(start.state.opt_state).values())
    assert trainer.optimizer.restored_step == 0
    assert float(trainer.learning_rate_fn(jnp.int32(5))) == pytest.approx(0.005)
    assert "Optimizer starts fresh" in capsys.readouterr().out


@pytest.mark.parametrize("restored_step", [0, 1_100_000])
def test_a_given_step_starts_there_with_moments_of_zero(write, tmp_path, restored_step):
    source, _ = write()
    trainer, start = _start(_model(), _trainer(restored_step), source, tmp_path / "run")
    assert not any(np.any(x) for x in _second_moments(start.state.opt_state).values())
    assert trainer.optimizer.restored_step == restored_step


def test_random_weights_start_fresh():
    trainer, state = starting_from(_trainer(None), None, _model().param_shapes)
    assert state is None and trainer.optimizer.restored_step == 0


def test_a_new_prompt_beside_restored_weights_starts_at_zero(write, tmp_path):
    source, slots = write()
    model = _model(PromptConfig(4))
    trainer, start = _start(model, _trainer(None), source, tmp_path / "run")
    v = _second_moments(start.state.opt_state)
    np.testing.assert_array_equal(v.pop(PROMPT), np.zeros((4, 16)))
    assert all(np.array_equal(x, slots[f"{path}/v"]) for path, x in v.items())
    assert trainer.optimizer.restored_step == STEP


def test_a_prompt_alone_has_nothing_to_restore_unless_it_is_stored(write):
    source, _ = write()
    shapes = {PROMPT: jax.ShapeDtypeStruct((4, 16), jnp.float32)}
    trainer, state = starting_from(_trainer(None), source, shapes)
    assert state is None and trainer.optimizer.restored_step == 0
    stored, slots = write(prompt=PromptConfig(4))
    trainer, state = starting_from(_trainer(None), stored, shapes)
    assert state is not None and trainer.optimizer.restored_step == STEP
    v = state.read_slot(PROMPT, (4, 16), "v", (4, 16))
    np.testing.assert_array_equal(v, slots[f"{PROMPT}/v"])


def test_half_a_state_stops_the_run(write):
    source, _ = write(without=("decoder/logits_dense/kernel",))
    with pytest.raises(CheckpointError, match="1 of 52 have none.*decoder/logits_dense/kernel"):
        starting_from(_trainer(None), source, _model().param_shapes)


@pytest.mark.parametrize("scan_layers", [False, True])
def test_restored_moments_land_where_the_slots_live(write, tmp_path, scan_layers):
    source, _ = write()
    model, partitioner = _model(scan_layers=scan_layers), PjitPartitioner(num_partitions=2)
    _, restored = _start(model, _trainer(None), source, tmp_path / "a", partitioner)
    _, fresh = _start(model, _trainer(0), source, tmp_path / "b", partitioner)
    pairs = list(
        zip(
            jax.tree.leaves(restored.state.opt_state),
            jax.tree.leaves(fresh.state.opt_state),
            strict=True,
        )
    )
    assert all(a.sharding == b.sharding and a.dtype == b.dtype for a, b in pairs)
    split = [a for a, _ in pairs if not a.sharding.is_fully_replicated]
    assert len(split) > 5
    assert all(np.asarray(a).min() >= 1.0 for a in split)


def test_a_schedule_offset_needs_a_step_to_count_from(write):
    source, _ = write()
    trainer = Trainer(Adafactor(restored_step=None, step_offset=STEP), WARMUP)
    started, _ = starting_from(trainer, source, _model().param_shapes)
    assert started.optimizer.step_offset == started.optimizer.restored_step == STEP
    with pytest.raises(ConfigError, match="step_offset"):
        starting_from(trainer, None, _model().param_shapes)


def test_a_run_goes_on_from_the_step_it_started_at():
    class Stored:
        def latest_step(self):
            return 3

        def metadata(self, step):
            return {"task": "t", "batch_size": 4, "seed": 1, "restored_step": STEP}

    same = {"task": "t", "batch_size": 4, "seed": 1, "restored_step": STEP}
    check_same_run(Stored(), same)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="adafactor.Adafactor.restored_step differs.*got 0"):
        check_same_run(Stored(), {**same, "restored_step": 0})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("recorded", "step"), [({"restored_step": 70}, 70), ({}, 0)])
def test_a_resumed_run_counts_on_from_where_it_started(write, capsys, recorded, step):
    source, _ = write()
    trainer, state = starting_from(_trainer(None), source, _model().param_shapes, resumed=recorded)
    assert state is None and trainer.optimizer.restored_step == step
    assert capsys.readouterr().out == ""


def test_converted_weights_have_lost_the_optimizer_state(write, tmp_path):
    source, _ = write()
    convert.convert(str(source.path), str(tmp_path / "converted"))
    converted = open_source(tmp_path / "converted")
    shapes = _model().param_shapes
    with pytest.raises(ConfigError, match="no optimizer state.*restored_step = 0"):
        starting_from(_trainer(None), converted, shapes)
    assert starting_from(_trainer(0), converted, shapes)[0].optimizer.restored_step == 0
    resumed = starting_from(_trainer(None), converted, shapes, resumed={"restored_step": STEP})
    assert resumed[0].optimizer.restored_step == STEP
