"""T5X's own programs run this package's module through configs/t5x, and agree with this package's programs.

Every program runs in a process of its own with one device. T5X is no requirement: without it, all of this is skipped.
"""

import dataclasses
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from prompt_tuning.checkpoints.formats.t5x_orbax import T5XOrbaxSource
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.params.names import PROMPT_PATH
from tests.helpers import REPO, SHARED, requires_shared
from tests.tiny_run import EMB_DIM, PROMPT_FILE, STEP, TINY_SIZES

pytest.importorskip(
    "t5x", reason="T5X is not installed (docs/t5x/inside_t5x.md says how to have it)"
)
pytestmark = [pytest.mark.slow, requires_shared]

assert SHARED is not None or not pytestmark
GOLDEN_SET = (SHARED or pathlib.Path()) / "golden"
CHECKPOINT = GOLDEN_SET / "t5x_checkpoint" / f"checkpoint_{STEP}"
STEPS, MORE_STEPS, ROWS = 20, 4, 16
# Those of the reference numbers: 1e-4 relative for losses, 1e-3 for a prompt that ran free for 20 steps.
LOSS_TOLERANCE, PROMPT_TOLERANCE, SCORE_TOLERANCE = 1e-4, 1e-3, 1e-5


@dataclasses.dataclass(frozen=True)
class Programs:
    """Starts both families of programs on the same model, task and vocabulary.

    Attributes:
      folder: Where runs may write.
      vocabulary: A SentencePiece model of 256 pieces.
    """

    folder: pathlib.Path
    vocabulary: pathlib.Path

    def t5x(self, program: str, files: Sequence[str], **macros: object) -> None:
        """Runs `python -m t5x.{program}` with files of configs/t5x."""
        names = [f"t5x/{name}.gin" for name in ("t5_1_1_prompt", *files)]
        names.insert(1, "models/sizes/small.gin")
        self._run([f"t5x.{program}"], names, macros)

    def ours(self, program: str, files: Sequence[str], **macros: object) -> None:
        """Runs `python -m prompt_tuning {program}`."""
        names = ["models/t5_1_1_prompt.gin", *(f"{name}.gin" for name in files)]
        self._run(["prompt_tuning", program], names, macros)

    def _run(self, command: list[str], files: list[str], macros: dict[str, object]) -> None:
        settings = {
            **TINY_SIZES,
            "NUM_ENCODER_LAYERS": 2,
            "NUM_DECODER_LAYERS": 2,
            "ACTIVATION_DTYPE": "float32",
            "DROPOUT_RATE": 0.0,
            "PROMPT_LENGTH": 6,
            "TASK_FEATURE_LENGTHS": {"inputs": 24, "targets": 8},
            "MIXTURE_OR_TASK_NAME": "stored_batches",
            "MIXTURE_OR_TASK_MODULE": "tests.inside_t5x_task",
            "seqio.SentencePieceVocabulary.sentencepiece_model_file": str(self.vocabulary),
            **macros,
        }
        env = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])),
            "XLA_FLAGS": "--xla_force_host_platform_device_count=1",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "false",
            "STORED_BATCHES": str(GOLDEN_SET / "batches_cycle.npz"),
            "VOCABULARY_MODEL": str(self.vocabulary),
        }
        done = subprocess.run(
            [
                *(sys.executable, "-m", *command),
                *(f"--gin_file=prompt_tuning/configs/{name}" for name in files),
                *(f"--gin.{name}={value!r}" for name, value in settings.items()),
            ],
            env=env,
            # Nothing is found because it lies in the current folder.
            cwd=self.folder,
            timeout=300,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]


EVALUATION = {"utils.DatasetConfig.split": "validation", "utils.DatasetConfig.batch_size": 4}


def _training(model_dir: pathlib.Path, steps: int) -> dict[str, object]:
    return {
        "MODEL_DIR": str(model_dir),
        "INITIAL_CHECKPOINT_PATH": str(CHECKPOINT),
        "TRAIN_STEPS": STEP + steps,
        "BATCH_SIZE": 4,
        "EVAL_PERIOD": 4,
        "EVAL_STEPS": 1,
        "RANDOM_SEED": 0,
        "train/utils.DatasetConfig.shuffle": False,
    }


def _losses(model_dir: pathlib.Path) -> np.ndarray:
    """The losses of all training steps, in order, as logged for TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util import tensor_util

    events = EventAccumulator(str(model_dir / "train"), size_guidance={"tensors": 0})
    events.Reload()
    logged = {
        e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors("loss")
    }
    steps = sorted(logged)
    assert steps == list(range(steps[0], steps[0] + len(steps)))
    return np.asarray([logged[step] for step in steps])


def _rows(path: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _compare_losses(ours: np.ndarray, other: np.ndarray) -> None:
    print(np.c_[ours, other, np.abs(ours - other) / other])
    np.testing.assert_allclose(ours, other, rtol=LOSS_TOLERANCE)


@pytest.fixture(scope="module")
def programs(tmp_path_factory, tiny_vocabulary) -> Programs:
    found = importlib.util.find_spec("prompt_tuning")
    assert found is not None and found.origin is not None
    assert pathlib.Path(found.origin).is_relative_to(REPO), "another prompt_tuning hides this one"
    return Programs(tmp_path_factory.mktemp("inside_t5x"), tiny_vocabulary)


def _t5x_train(programs: Programs, model_dir: pathlib.Path, steps: int, **macros: object) -> None:
    programs.t5x(
        "train",
        ["from_file", "prompt_finetune"],
        **_training(model_dir, steps),
        **{
            "PROMPT_FILE": str(GOLDEN_SET / "prompt.npy"),
            "utils.SaveCheckpointConfig.period": 4,
            "train.stats_period": 1,
            **macros,
        },
    )


@pytest.fixture(scope="module")
def t5x_run(programs) -> pathlib.Path:
    """MODEL_DIR of 20 steps of `t5x.train`."""
    _t5x_train(programs, programs.folder / "t5x", STEPS)
    return programs.folder / "t5x"


@pytest.fixture(scope="module")
def our_run(programs) -> pathlib.Path:
    """MODEL_DIR of 24 steps of `prompt-tuning train` on the same batches, saved and logged at each."""
    model_dir = programs.folder / "ours"
    programs.ours(
        "train",
        ["prompts/from_file", "runs/prompt_finetune"],
        **_training(model_dir, STEPS + MORE_STEPS),
        **{"PROMPT_FILE": str(GOLDEN_SET / "prompt.npy"), "utils.SaveCheckpointConfig.period": 1},
    )
    return model_dir


def test_t5x_trains_our_module_as_it_trained_the_authors(t5x_run):
    with np.load(GOLDEN_SET / "trajectory_cycle4.npz") as golden:
        losses, prompt = golden["loss"], golden["prompts"][STEPS]
    _compare_losses(_losses(t5x_run), losses)
    saved = open_source(t5x_run / f"checkpoint_{STEP + STEPS}")
    assert (saved.kind, saved.step) == ("t5x", STEP + STEPS)
    np.testing.assert_allclose(saved.read(PROMPT_PATH), prompt, atol=PROMPT_TOLERANCE)


def test_t5x_tunes_the_prompt_alone(t5x_run):
    saved = open_source(t5x_run / f"checkpoint_{STEP + STEPS}")
    initial = open_source(CHECKPOINT)
    assert set(saved.shapes()) - set(initial.shapes()) == {PROMPT_PATH}
    assert len(initial.shapes()) == 52
    for path in initial.shapes():
        np.testing.assert_array_equal(saved.read(path), initial.read(path), err_msg=path)
    assert np.abs(saved.read(PROMPT_PATH) - np.load(GOLDEN_SET / "prompt.npy")).max() > 0.1
    written = (t5x_run / "model-info.txt").read_text().splitlines()
    states = [line.split()[1] for line in written if line.startswith("Variable param_states/")]
    assert len(states) == 4 and all(PROMPT_PATH in name for name in states)


def test_what_t5x_saves_by_default_loads_here(programs, tmp_path):
    _t5x_train(programs, tmp_path / "run", 4, **{"train.use_orbax": True})
    saved = open_source(tmp_path / "run" / f"checkpoint_{STEP + 4}")
    assert isinstance(saved, T5XOrbaxSource) and saved.step == STEP + 4
    with np.load(GOLDEN_SET / "trajectory_cycle4.npz") as golden:
        prompt = golden["prompts"][4]
    np.testing.assert_allclose(saved.read(PROMPT_PATH), prompt, atol=PROMPT_TOLERANCE)
    initial = open_source(CHECKPOINT)
    assert set(saved.shapes()) - set(initial.shapes()) == {PROMPT_PATH}
    for path in initial.shapes():
        np.testing.assert_array_equal(saved.read(path), initial.read(path), err_msg=path)
    assert {name.rpartition("/")[0] for name in saved.param_states.shapes()} == {PROMPT_PATH}


def test_the_same_batches_give_the_same_losses_here(t5x_run, our_run):
    _compare_losses(_losses(our_run)[:STEPS], _losses(t5x_run))


def test_a_resumed_run_of_t5x_keeps_its_prompt(programs, t5x_run, our_run, tmp_path):
    copy, saved = tmp_path / "resumed", f"checkpoint_{STEP + STEPS}"
    shutil.copytree(t5x_run / saved, copy / saved)
    _t5x_train(programs, copy, STEPS + MORE_STEPS)
    losses = _losses(copy)
    assert len(losses) == MORE_STEPS
    _compare_losses(_losses(our_run)[STEPS:], losses)


def _evaluate(programs: Programs, output_dir: pathlib.Path, run, files, **macros) -> list[dict]:
    """Runs an evaluation and returns what it wrote for each example."""
    run("eval", files, EVAL_OUTPUT_DIR=str(output_dir), **EVALUATION, **macros)
    (written,) = (output_dir / "inference_eval").glob("stored_batches-[0-9]*.jsonl")
    rows = _rows(written)
    assert len(rows) == ROWS
    return rows


def _compare_rows(ours: list[dict], other: list[dict]) -> None:
    scores = np.asarray([[a["score"], b["score"]] for a, b in zip(ours, other, strict=True)])
    print("largest difference of scores:", np.abs(scores[:, 0] - scores[:, 1]).max())
    np.testing.assert_allclose(scores[:, 0], scores[:, 1], rtol=SCORE_TOLERANCE)
    assert [row["prediction"] for row in ours] == [row["prediction"] for row in other]
    assert len({row["prediction"] for row in ours}) > 1


@pytest.fixture(scope="module")
def our_evaluation(programs, t5x_run) -> list[dict]:
    """What `prompt-tuning eval` finds for the checkpoint that T5X saved.

    T5X decodes by a beam search of width 1 unless told otherwise. That is not greedy: a sequence may end although EOS
    was only the second best token.
    """
    return _evaluate(
        programs,
        programs.folder / "our_eval",
        programs.ours,
        ["models/decoding/beam_search", "runs/prompt_eval"],
        CHECKPOINT_PATH=str(t5x_run / f"checkpoint_{STEP + STEPS}"),
        **{"models.EncoderDecoderModel.num_decodes": 1},
    )


def test_a_prompt_saved_by_t5x_evaluates_here_as_there(programs, t5x_run, our_evaluation):
    theirs = _evaluate(
        programs,
        programs.folder / "t5x_eval",
        programs.t5x,
        ["prompt_eval"],
        CHECKPOINT_PATH=str(t5x_run / f"checkpoint_{STEP + STEPS}"),
    )
    _compare_rows(our_evaluation, theirs)


def test_a_prompt_saved_here_evaluates_in_t5x(programs, our_run, our_evaluation):
    prompt = our_run / "numpy_checkpoints" / f"checkpoint_{STEPS}" / PROMPT_FILE
    theirs = _evaluate(
        programs,
        programs.folder / "t5x_eval_file",
        programs.t5x,
        ["from_file", "prompt_eval"],
        CHECKPOINT_PATH=str(CHECKPOINT),
        PROMPT_FILE=str(prompt),
    )
    _compare_rows(our_evaluation, theirs)


@pytest.mark.parametrize("mode", ["predict", "score"])
def test_t5x_infers_as_its_evaluation_here_does(programs, t5x_run, our_evaluation, mode):
    output_dir = programs.folder / f"t5x_infer_{mode}"
    programs.t5x(
        "infer",
        ["prompt_infer"],
        CHECKPOINT_PATH=str(t5x_run / f"checkpoint_{STEP + STEPS}"),
        INFER_OUTPUT_DIR=str(output_dir),
        **EVALUATION,
        **{"infer.mode": mode, "utils.RestoreCheckpointConfig.dtype": "float32"},
    )
    rows = _rows(output_dir / f"stored_batches-{mode}.jsonl-00000-of-00001")
    assert (output_dir / f"stored_batches-{mode}.jsonl-00000-of-00001.COMPLETED").exists()
    if mode == "predict":
        expected = [row["prediction"] for row in our_evaluation]
        assert [row["prediction"] for row in rows] == expected
    else:
        expected = [row["score"] for row in our_evaluation]
        np.testing.assert_allclose([row["score"] for row in rows], expected, rtol=SCORE_TOLERANCE)


def test_class_labels_start_a_prompt_in_t5x(programs, tmp_path):
    import seqio

    table = open_source(CHECKPOINT).read("token_embedder/embedding")
    assert table.shape == (256, EMB_DIM)
    np.save(tmp_path / "embeddings.npy", table)
    labels = ["positive", "negative"]
    programs.t5x(
        "train",
        ["from_class_labels", "prompt_finetune"],
        **_training(tmp_path / "run", 0),
        **{
            "CLASS_LABELS": labels,
            "EMBEDDING_FILE": str(tmp_path / "embeddings.npy"),
            "utils.SaveCheckpointConfig.period": 4,
        },
    )
    prompt = open_source(tmp_path / "run" / f"checkpoint_{STEP}").read(PROMPT_PATH)
    vocabulary = seqio.SentencePieceVocabulary(str(programs.vocabulary))
    expected = [table[vocabulary.encode(label)].mean(axis=0) for label in labels]
    np.testing.assert_allclose(prompt[:2], expected, rtol=1e-6)
    assert all((table == row).all(axis=1).any() for row in prompt[2:])
