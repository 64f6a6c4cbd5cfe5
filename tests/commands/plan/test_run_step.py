"""The planned step is the run's own: same arrays, and nothing of it has to exist."""

import jax
import pytest

from prompt_tuning import evaluate, train
from prompt_tuning.commands.plan import run_step
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve
from prompt_tuning.config.flags import parse_run
from prompt_tuning.data.batch_shapes import BatchShapes
from prompt_tuning.errors import ConfigError
from prompt_tuning.run import steps as compiled_steps
from prompt_tuning.run.start import split_paths
from prompt_tuning.types import TASK
from tests import tiny_run

CONFIGS = "prompt_tuning/configs"
TRAIN_FILES = (
    f"{CONFIGS}/models/t5_1_1_small_prompt.gin",
    f"{CONFIGS}/prompts/from_class_labels.gin",
    f"{CONFIGS}/runs/prompt_finetune.gin",
)
LENGTHS = {"inputs": 32, "targets": 16}
TINY = {**tiny_run.TINY_SIZES, "TASK_FEATURE_LENGTHS": LENGTHS, "BATCH_SIZE": 8}

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


class Seen(Exception):
    """Carries the arguments of a step that was about to be compiled."""


class Recorded:
    """Stands for a jitted step."""

    def lower(self, *args):
        raise Seen(*args)

    def __call__(self, *args):
        raise Seen(*args)


def read(files=TRAIN_FILES, mode=None, **settings):
    bindings = [(f"{name} = {value!r}", name) for name, value in settings.items()]
    return run_step.read_run(files, bindings, mode=mode)


def described(arrays):
    return jax.tree.map(lambda x: (x.shape, x.dtype.name, x.sharding), arrays)


def settings_of_run(inputs, tmp_path, **macros):
    return {
        "MODEL_DIR": str(tmp_path / "run"),
        "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
        "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
        "CLASS_LABELS": ["a"],
        "TRAIN_STEPS": tiny_run.STEP + 7,
        "PROMPT_LENGTH": 4,
        "partitioning.PjitPartitioner.num_partitions": 2,
        **TINY,
        **macros,
    }


@pytest.mark.parametrize(
    ("files", "macros"),
    [
        (TRAIN_FILES, {"utils.RestoreCheckpointConfig.dtype": "int8"}),
        (
            (f"{CONFIGS}/models/t5_1_1_small.gin", f"{CONFIGS}/runs/model_finetune.gin"),
            {"CLASS_LABELS": None, "PROMPT_LENGTH": None},
        ),
        (
            (f"{CONFIGS}/models/t5_1_1_small.gin", f"{CONFIGS}/runs/t_few.gin"),
            {"CLASS_LABELS": None, "PROMPT_LENGTH": None, "TRAIN_STEPS_RELATIVE": 7},
        ),
    ],
)
def test_the_planned_arrays_are_those_of_the_run(inputs, tmp_path, monkeypatch, files, macros):
    settings = settings_of_run(inputs, tmp_path, **macros)
    settings = {name: value for name, value in settings.items() if value is not None}
    monkeypatch.setattr(compiled_steps, "train_step", lambda *args: Recorded())
    # What is planned is the batch before its padding is cut off.
    monkeypatch.setattr(BatchShapes, "fit", lambda self, batch: batch)
    flags = parse_run(
        "train",
        [*(f"--gin_file={f}" for f in files), *inputs.flags(**settings)],
    )
    parsed = config_files.read(flags.gin_file, flags.bindings, [])
    with pytest.raises(Seen) as seen:
        resolve.resolve(parsed, train.train, command="train").run()
    state, frozen, batch = seen.value.args

    run = run_step.read_run(files, flags.bindings)
    partitioner = run.partitioner.on(jax.devices())
    planned_state, planned_frozen, _ = run_step.abstract_training(run, partitioner)
    assert described(planned_state) == described(state)
    assert described(planned_frozen) == described(frozen)
    assert described(run_step.abstract_batch(run, partitioner)) == described(batch)
    assert run.num_steps == 7
    assert run_step.bytes_per_core((state, frozen)) == run_step.argument_bytes(run, jax.devices())


def test_the_planned_parameters_of_evaluation_are_those_it_loads(inputs, tmp_path, monkeypatch):
    files = (f"{CONFIGS}/models/t5_1_1_small_prompt.gin", f"{CONFIGS}/runs/prompt_eval.gin")
    settings = {
        "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
        "CHECKPOINT_PATH": str(inputs.checkpoint),
        "EVAL_OUTPUT_DIR": str(tmp_path),
        "utils.DatasetConfig.split": "validation",
        "prompts.Prompt.length": 4,
        **TINY,
    }
    rng = "prompts.Prompt.prompt_init = @prompt_init/linen.initializers.uniform()"
    monkeypatch.setattr(compiled_steps, "predict_step", lambda *args: Recorded())
    flags = parse_run("eval", [*(f"--gin_file={f}" for f in files), *inputs.flags(**settings)])
    bindings = [*flags.bindings, (rng, rng)]
    parsed = config_files.read(flags.gin_file, bindings, [])
    with pytest.raises(Seen) as seen:
        resolve.resolve(parsed, evaluate.evaluate, command="eval").run()
    params, batch, _ = seen.value.args

    run = run_step.read_run(files, bindings)
    assert run.mode == "decode"
    partitioner = run.partitioner.on(jax.devices())
    assert described(run_step.abstract_params(run, partitioner)) == described(params)
    # A batch is as wide as its examples need, and planned for the widest that can come.
    ((name, tokens),) = batch.items()
    planned = run_step.abstract_batch(run, partitioner)[name]
    assert (len(tokens), tokens.dtype) == (len(planned), planned.dtype)
    assert tokens.sharding == planned.sharding and tokens.shape[1] <= planned.shape[1]


def test_a_step_needs_no_folder_task_checkpoint_vocabulary_or_number_of_steps():
    run = read(**TINY)
    assert (run.mode, run.batch_size, run.lengths, run.num_steps) == ("train", 8, LENGTHS, None)
    assert run.trainable_regex == (".*/prompt/.*",)
    assert run_step.step_on(run, jax.devices()).weight_bytes > 0


@pytest.mark.parametrize("mode", ["eval", "decode"])
def test_a_training_run_has_steps_of_evaluation_too(mode):
    run = read(mode=mode, **TINY)
    assert (run.mode, run.batch_size, run.lengths) == (mode, 8, LENGTHS)
    step = run_step.step_on(run, jax.devices())
    assert step.optimizer_bytes == 0
    assert step.batch_bytes == 4 * (32 + 3 * 16)


def test_a_method_that_tells_tasks_apart_has_a_number_for_each_row():
    files = (*TRAIN_FILES[:2], f"{CONFIGS}/methods/mpt.gin", *TRAIN_FILES[2:])
    run = read(files, **TINY, METHOD_TASKS=["a", ["b", "c"]])
    assert run_step.abstract_batch(run, run.partitioner)[TASK].shape == (8,)
    # What each task has is trained with the prompt.
    trainable, _ = split_paths(run.model, run.trainable_regex)
    assert {path.rpartition("/")[2] for path in trainable} == {
        "prompt",
        "task_columns",
        "task_rows",
    }


def test_packed_rows_come_with_segments_and_positions():
    run = read(**TINY, **{"utils.DatasetConfig.pack": True})
    batch = run_step.abstract_batch(run, run.partitioner)
    assert {"encoder_segment_ids", "decoder_positions", "encoder_prompt_positions"} <= set(batch)
    assert len(batch) == 9
    # A row has room for a prompt and the longest inputs.
    assert run.model.prompt is not None
    length = LENGTHS["inputs"] + run.model.prompt.length
    assert {x.shape[1] for n, x in batch.items() if n.startswith("encoder_")} == {length}
    # Without training, or a prompt, there are no places for one.
    assert not read(mode="eval", **TINY, **{"utils.DatasetConfig.pack": True}).is_packed


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"TRAIN_STEPS": 1_130_000, "INITIAL_CHECKPOINT_PATH": "/x/checkpoint_1100000"}, 30_000),
        ({"TRAIN_STEPS": 30_000, "INITIAL_CHECKPOINT_PATH": "/x/weights"}, 30_000),
        ({"TRAIN_STEPS_RELATIVE": 5, "INITIAL_CHECKPOINT_PATH": "/x/checkpoint_1100000"}, 5),
    ],
)
def test_steps_of_a_t5x_checkpoint_are_taken_off(settings, steps):
    assert read(**TINY, **settings).num_steps == steps


@pytest.mark.parametrize(
    ("files", "mode", "settings", "text"),
    [
        (TRAIN_FILES, None, {**TINY, "TASK_FEATURE_LENGTHS": None}, "TASK_FEATURE_LENGTHS"),
        (TRAIN_FILES[:2], None, TINY, "say nothing about `prompt-tuning train`"),
        (
            (f"{CONFIGS}/models/t5_1_1_small_prompt.gin", f"{CONFIGS}/runs/prompt_infer.gin"),
            "train",
            TINY,
            "do not train",
        ),
    ],
)
def test_what_is_missing_is_named(files, mode, settings, text):
    with pytest.raises(ConfigError, match=text):
        read(files, mode, **settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"BATCH_SIZE": 6}, "BATCH_SIZE does not divide over 8"),
        ({"trainer.Trainer.num_microbatches": 3}, "microbatches"),
        ({"partitioning.PjitPartitioner.num_partitions": 3}, "num_partitions does not divide"),
    ],
)
def test_what_cannot_be_spread_is_refused_as_by_the_run(settings, text):
    run = read(**{**TINY, **settings})
    for fn in (run_step.step_on, run_step.argument_bytes):
        with pytest.raises(ConfigError, match=text):
            fn(run, jax.devices())
