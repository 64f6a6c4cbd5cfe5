"""T-Few's recipe end to end, on a tiny model and a few examples of one's own."""

import json

import jax
import numpy as np
import pytest

from prompt_tuning import train, tree
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve as config
from prompt_tuning.config.flags import parse_run
from prompt_tuning.errors import ConfigError, DataError
from prompt_tuning.run import steps
from tests import tiny_run

FILES = (
    "--gin_file=prompt_tuning/configs/models/t5_1_1_small.gin",
    "--gin_file=prompt_tuning/configs/runs/t_few.gin",
)
LABELS = {"g": "wonderful", "b": "boring", "n": "neither good nor bad"}
ROWS = [
    ("The river runs past the mill.", "n"),
    ("A great song at the end.", "g"),
    ("Nobody wanted to hear it.", "b"),
    ("The actors were even better.", "g"),
    ("A terrible story.", "b"),
    ("She reads in the garden.", "n"),
]

pytestmark = pytest.mark.loose_numerics(reason="optax adds Python floats to float32 arrays")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """A JSONL file of a few examples."""
    path = tmp_path_factory.mktemp("shots") / "32_seed.jsonl"
    path.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in ROWS))
    return path


@pytest.fixture
def resolve(inputs, shots, tmp_path):
    """Returns a function from macros to the resolved run in `tmp_path / folder`."""

    def build(folder="run", label_map=LABELS, **macros):
        settings = {
            "MODEL_DIR": str(tmp_path / folder),
            "TASK_FEATURE_LENGTHS": {"inputs": 16, "targets": 32},
            "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
            "TRAIN_STEPS_RELATIVE": 4,
            "WARMUP_STEPS": 1,
            "EVAL_PERIOD": 4,
            "BATCH_SIZE": 8,
            "tasks.from_files.name": "shots",
            "tasks.from_files.inputs": "review: {text}",
            "tasks.from_files.targets": "{label}",
            "tasks.from_files.label_map": label_map,
            "tasks.from_files.train": str(shots),
            "tasks.from_files.validation": str(shots),
            **macros,
        }
        flags = [*inputs.flags(**settings), "--gin.MIXTURE_OR_TASK_NAME=@tasks.from_files()"]
        ranked = "--gin.infer_eval/utils.DatasetConfig.mixture_or_task_name='shots_rank'"
        parsed = parse_run("train", [*FILES, *flags, ranked])
        read = config_files.read(parsed.gin_file, parsed.bindings, [])
        return config.resolve(read, train.train, command="train")

    return build


def _run(resolved, monkeypatch):
    """Runs it; returns its results, the frozen weights before and after, and the factors."""
    seen, loop = {}, train.loop

    def spy(run, *args, **kwargs):
        seen["before"] = jax.tree.map(np.array, run.frozen)
        results = loop(run, *args, **kwargs)
        seen["after"] = jax.tree.map(np.asarray, run.frozen)
        seen["factors"] = {p: np.asarray(x) for p, x in tree.flatten(run.state.trainable).items()}
        return results

    with monkeypatch.context() as patch:
        patch.setattr(train, "loop", spy)
        results = resolved.run()
    return results, seen


def test_a_run_trains_the_factors_alone_and_resumes_bit_for_bit(resolve, monkeypatch):
    results, whole = _run(resolve("whole"), monkeypatch)
    assert 0 <= results["shots_rank"]["accuracy"] <= 100
    jax.tree.map(np.testing.assert_array_equal, whole["before"], whole["after"])
    assert whole["factors"] and all(path.endswith("ia3_scaling") for path in whole["factors"])
    assert all(np.any(x != 1) for x in whole["factors"].values())
    # The rate falls to 0 at the end of the run: stopped in the middle, a run is still one of four steps.
    half = {"utils.create_learning_rate_scheduler.total_steps": 4}
    _run(resolve("parts", TRAIN_STEPS_RELATIVE=2, **half), monkeypatch)
    _, resumed = _run(resolve("parts", **half), monkeypatch)
    for path, factors in whole["factors"].items():
        np.testing.assert_array_equal(resumed["factors"][path], factors, err_msg=path)


@pytest.mark.slow
def test_microbatches_train_alike(resolve, monkeypatch):
    still = {"BATCH_SIZE": 16, "DROPOUT_RATE": 0.0, "ACTIVATION_DTYPE": "float32"}
    _, whole = _run(resolve("whole", **still), monkeypatch)
    cut = {"trainer.Trainer.num_microbatches": 2, **still}
    _, halves = _run(resolve("halves", **cut), monkeypatch)
    for path, factors in whole["factors"].items():
        np.testing.assert_allclose(halves["factors"][path], factors, atol=2e-5, err_msg=path)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        (
            {"label_map": None, "train.train.infer_eval_dataset_cfg": None},
            DataError,
            "task 'shots' have no choices",
        ),
        (
            {"TASK_FEATURE_LENGTHS": {"inputs": 16, "targets": 16}},
            DataError,
            r"Example 0 of train of 'shots' from .*32_seed.jsonl .*TASK_FEATURE_LENGTHS\['targets'\] = 16",
        ),
        ({"utils.DatasetConfig.pack": True}, ConfigError, "cannot be packed"),
        ({"TRAIN_STEPS_RELATIVE": None, "TRAIN_STEPS": 4}, ConfigError, "total_steps"),
    ],
)
def test_bad_input_is_refused_before_anything_compiles(resolve, monkeypatch, changes, error, words):
    monkeypatch.setattr(steps, "compiled", lambda *args: pytest.fail("compiled"))
    with pytest.raises(error, match=words):
        resolve(**changes).run()
