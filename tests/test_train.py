"""Training runs of the shipped gin files, shrunk: what they leave, what they keep, how they resume and refuse."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from prompt_tuning import train, tree
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve as config
from prompt_tuning.config.flags import parse_run
from prompt_tuning.errors import CheckpointError, ConfigError, DataError, NonFiniteError
from tests import tiny_run
from tests.tiny_run import PROMPT_FILE, STEP

FILES = (
    "--gin_file=prompt_tuning/configs/models/t5_1_1_small_prompt.gin",
    "--gin_file=prompt_tuning/configs/prompts/from_sampled_vocab.gin",
    "--gin_file=prompt_tuning/configs/runs/prompt_finetune.gin",
)

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


def _builder(inputs, model_dir):
    """Returns a function from macros to the resolved training run in `model_dir`."""

    def build(*, files=FILES, **macros):
        settings = {
            "MODEL_DIR": str(model_dir),
            "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
            "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
            "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16},
            "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
            "TRAIN_STEPS_RELATIVE": 4,
            "EVAL_PERIOD": 2,
            "EVAL_STEPS": 1,
            "BATCH_SIZE": 8,
            "PROMPT_LENGTH": 4,
            "RANDOM_SEED": 3,
            "prompts.from_sample_of_embeddings.population_size": 200,
            **macros,
        }
        flags = parse_run("train", [*files, *inputs.flags(**settings)])
        parsed = config_files.read(flags.gin_file, flags.bindings, [])
        return config.resolve(parsed, train.train, command="train")

    return build


@pytest.fixture
def resolve(inputs, tmp_path):
    """Returns a function from macros to the resolved training run; MODEL_DIR is `tmp_path / run`."""
    return _builder(inputs, tmp_path / "run")


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run of four steps, and its frozen parameters before and after."""

    model_dir: pathlib.Path
    results: dict
    before: dict
    after: dict


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("finished") / "run"
    seen = {}

    def spy(run, *args, **kwargs):
        seen["before"] = {p: np.asarray(x).copy() for p, x in tree.flatten(run.frozen).items()}
        results = loop(run, *args, **kwargs)
        seen["after"] = {p: np.asarray(x) for p, x in tree.flatten(run.frozen).items()}
        return results

    loop = train.loop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "loop", spy)
        results = _builder(inputs, model_dir)().run()
    return Finished(model_dir, results, seen["before"], seen["after"])


def _prompt(model_dir: pathlib.Path, step: int) -> np.ndarray:
    return np.load(model_dir / "numpy_checkpoints" / f"checkpoint_{step}" / PROMPT_FILE)


def test_a_run_leaves_t5x_files_and_returns_its_metrics(finished):
    model_dir = finished.model_dir
    assert set(finished.results["taskless_super_glue_cb_v102"]) == {"mean_3class_f1", "accuracy"}
    left = {str(p.relative_to(model_dir)) for p in model_dir.rglob("*")}
    for name in (
        "config.gin",
        "model-info.txt",
        "checkpoint_4",
        f"numpy_checkpoints/checkpoint_2/{PROMPT_FILE}",
        f"numpy_checkpoints/checkpoint_4/{PROMPT_FILE}.json",
        "inference_eval/taskless_super_glue_cb_v102-metrics.jsonl",
        "inference_eval/taskless_super_glue_cb_v102-000004.jsonl",
        "inference_eval/taskless_super_glue_cb_v102",
        "training_eval/taskless_super_glue_cb_v102",
        "train",
    ):
        assert name in left, name
    assert _prompt(model_dir, 4).shape == (4, tiny_run.EMB_DIM)
    side_file = model_dir / "numpy_checkpoints/checkpoint_4" / f"{PROMPT_FILE}.json"
    side = json.loads(side_file.read_text())
    assert side["task"] == "taskless_super_glue_cb_v102"
    assert side["prompt_length"] == 4
    assert side["step"] == 4
    assert len(side["config_digest"]) == len(side["frozen_digest"]) == 64
    assert set(side["metrics"]["taskless_super_glue_cb_v102"]) == {"mean_3class_f1", "accuracy"}


def test_summaries_have_t5x_tags(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    tags = {}
    for run in ("train", "training_eval", "inference_eval"):
        folder = finished.model_dir / run
        folder = folder if run == "train" else folder / "taskless_super_glue_cb_v102"
        events = EventAccumulator(str(folder))
        events.Reload()
        tags[run] = set(events.Tags()["scalars"]) | set(events.Tags()["tensors"])
    common = {"loss", "loss_per_nonpadding_target_token", "cross_ent_loss", "z_loss", "accuracy"}
    assert common <= tags["training_eval"]
    assert (
        common
        | {
            "learning_rate",
            "timing/steps_per_second",
            "timing/seqs_per_second",
            "timing/target_tokens_per_second_per_core",
            "timing/examples_per_second",
            "timing/real_tokens_per_second",
            "padding_fraction",
            "timing/compilation_seconds",
            "timing/start_seconds",
            "timing/start/weights_seconds",
            "config",
        }
        <= tags["train"]
    )
    assert {"eval/accuracy", "eval/mean_3class_f1"} <= tags["inference_eval"]


def test_frozen_leaves_are_bit_identical_after_a_run_and_never_written(finished):
    before, after = finished.before, finished.after
    equal = [path for path, x in after.items() if np.array_equal(x, before[path])]
    assert len(equal) == len(before) > 20
    checkpoint = finished.model_dir / "checkpoint_4"
    size = sum(p.stat().st_size for p in checkpoint.rglob("*") if p.is_file())
    assert size < sum(x.nbytes for x in after.values()) / 2
    assert not np.array_equal(_prompt(finished.model_dir, 2), _prompt(finished.model_dir, 4))


def test_two_steps_beyond_the_t5x_checkpoint_and_two_more_equal_four(
    resolve, finished, tmp_path, capsys
):
    resolve(TRAIN_STEPS_RELATIVE=None, TRAIN_STEPS=STEP + 2).run()
    assert "= 2 updates" in capsys.readouterr().out
    assert (tmp_path / "run/checkpoint_2").exists()
    assert not (tmp_path / "run/checkpoint_4").exists()
    resolve(RANDOM_SEED=None).run()
    np.testing.assert_array_equal(_prompt(tmp_path / "run", 4), _prompt(finished.model_dir, 4))


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"utils.DatasetConfig.pack": True},
        {"train/utils.DatasetConfig.length_window": 3, "trainer.Trainer.num_microbatches": 2},
    ],
)
def test_grouped_and_packed_runs_resume_bit_for_bit(inputs, tmp_path, settings):
    """Five steps; and five that stop after the second, in the middle of a window."""
    settings = {**settings, "EVAL_PERIOD": 5, "partitioning.PjitPartitioner.num_partitions": 2}
    _builder(inputs, tmp_path / "whole")(TRAIN_STEPS_RELATIVE=5, **settings).run()
    for steps in (2, 5):
        _builder(inputs, tmp_path / "stopped")(TRAIN_STEPS_RELATIVE=steps, **settings).run()
    np.testing.assert_array_equal(_prompt(tmp_path / "stopped", 5), _prompt(tmp_path / "whole", 5))


def test_the_saved_config_runs_again_alone(finished, tmp_path):
    parsed = config_files.read(
        [str(finished.model_dir / "config.gin")],
        [(f"MODEL_DIR = '{tmp_path / 'again'}'", "--gin.MODEL_DIR")],
        [],
    )
    config.resolve(parsed, train.train, command="train").run()
    np.testing.assert_array_equal(_prompt(finished.model_dir, 4), _prompt(tmp_path / "again", 4))


def test_resuming_on_other_frozen_weights_is_refused(inputs, finished, tmp_path):
    from prompt_tuning.checkpoints.open import open_source
    from tests.checkpoints.t5x_writer import write_t5x_checkpoint

    model_dir = pathlib.Path(shutil.copytree(finished.model_dir, tmp_path / "run"))
    source = open_source(str(inputs.checkpoint))
    params = {path: source.read(path) for path in source.shapes()}
    params["encoder/layers_0/mlp/wo/kernel"] = params["encoder/layers_0/mlp/wo/kernel"] * 1.5
    other = write_t5x_checkpoint(tmp_path / f"checkpoint_{STEP}", params, STEP)
    with pytest.raises(CheckpointError, match="frozen weights are not those that checkpoint 4"):
        _builder(inputs, model_dir)(INITIAL_CHECKPOINT_PATH=str(other)).run()


def test_the_best_checkpoint_is_kept_beside_the_latest(resolve, tmp_path, monkeypatch):
    scores = iter([50.0, 90.0, 10.0])

    def stand_in(self, params, step):
        return {"task": {"accuracy": next(scores)}}

    monkeypatch.setattr(train.DecodingEval, "run", stand_in)
    resolve(TRAIN_STEPS_RELATIVE=6).run()
    kept = sorted(p.name for p in (tmp_path / "run").glob("checkpoint_*"))
    assert kept == ["checkpoint_4", "checkpoint_6"]
    assert json.loads((tmp_path / "run/best.json").read_text())["accuracy"]["step"] == 4


def test_a_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(resolve, tmp_path):
    run = resolve(TRAIN_STEPS_RELATIVE=4, EVAL_PERIOD=2)
    arguments = run.arguments()
    trainer = arguments["trainer"]
    # The learning rate counts from the step that the optimizer starts at.
    first = trainer.optimizer.restored_step
    explode = dataclasses.replace(
        trainer, learning_rate_fn=lambda step: jax.numpy.where(step < first + 2, 0.3, jax.numpy.nan)
    )
    with pytest.raises(NonFiniteError, match="Non-finite param_norm at step 3"):
        train.train(**{**arguments, "trainer": explode})
    assert [p.name for p in (tmp_path / "run").glob("checkpoint_*")] == ["checkpoint_2"]
    assert np.isfinite(_prompt(tmp_path / "run", 2)).all()


@pytest.mark.parametrize(
    ("macros", "text"),
    [
        ({"BATCH_SIZE": 16}, "BATCH_SIZE differs"),
        ({"RANDOM_SEED": 4}, "RANDOM_SEED differs"),
        ({"train/utils.DatasetConfig.length_window": 2}, "length_window differs"),
        ({"MIXTURE_OR_TASK_NAME": "taskless_super_glue_rte_v102"}, "MIXTURE_OR_TASK_NAME differs"),
    ],
)
def test_another_run_in_the_same_folder_is_refused_and_changes_nothing(
    inputs, finished, macros, text
):
    before = (finished.model_dir / "config.gin").read_text()
    with pytest.raises(ConfigError, match=text):
        _builder(inputs, finished.model_dir)(**macros).run()
    assert (finished.model_dir / "config.gin").read_text() == before


@pytest.mark.parametrize(
    ("macros", "error", "text"),
    [
        (
            {"MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v12"},
            DataError,
            "taskless_super_glue_cb_v102",
        ),
        (
            {"INITIAL_CHECKPOINT_PATH": "/nowhere/checkpoint_1"},
            CheckpointError,
            "/nowhere/checkpoint_1",
        ),
        ({"INITIAL_CHECKPOINT_PATH": None}, ConfigError, "INITIAL_CHECKPOINT_PATH is not set"),
        ({"EMBED_DIM": 64}, CheckpointError, "of another size"),
        ({"BATCH_SIZE": 12}, ConfigError, "12"),
        ({"TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 2}}, DataError, "targets"),
        (
            {"TRAIN_STEPS_RELATIVE": None, "TRAIN_STEPS": 500},
            ConfigError,
            "TRAIN_STEPS leaves nothing",
        ),
        ({"NUM_EMBEDDINGS": 16}, ConfigError, "vocabulary does not fit"),
        ({"trainer.Trainer.num_microbatches": 3}, ConfigError, "cannot be cut into microbatches"),
        ({"TRAINABLE_REGEX": ["nothing"]}, ConfigError, "No parameter is trainable"),
        (
            {"seqio.SentencePieceVocabulary.sentencepiece_model_file": "/nowhere/spiece.model"},
            DataError,
            "/nowhere/spiece.model",
        ),
        ({"partitioning.PjitPartitioner.num_partitions": 3}, ConfigError, "3"),
    ],
)
def test_bad_input_is_refused_before_anything_compiles(
    resolve, tmp_path, monkeypatch, macros, error, text
):
    def compiled(*args, **kwargs):
        raise AssertionError("compiled")

    monkeypatch.setattr(train, "compile_step", compiled)
    with pytest.raises(error) as caught:
        resolve(**macros).run()
    assert text in str(caught.value)
    assert "Fix: " in str(caught.value)
    assert not list(tmp_path.rglob("checkpoint_[0-9]"))
