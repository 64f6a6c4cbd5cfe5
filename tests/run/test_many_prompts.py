"""`infer --prompts`: a file of several tasks, each line answered with its own prompt; prompts that do not fit."""

import json

import numpy as np
import pytest
import safetensors.numpy

from prompt_tuning import cli
from prompt_tuning.commands import infer as commands_infer
from tests import tiny_run
from tests.data.local_data import write_jsonl

LENGTHS = {"inputs": 32, "targets": 8}
ROWS = [
    {"inputs": "the old mill by the river", "task": "reviews", "targets": "positive"},
    {"inputs": "hypothesis: the mill premise: a river", "task": "cb", "targets": "neutral"},
    {"inputs": "a", "task": "reviews", "targets": "negative"},
    {"inputs": "sentence1: Cats sleep.", "task": "rte", "targets": "entailment"},
    {"inputs": "She reads a good book in the garden.", "task": "cb", "targets": "neutral"},
]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    return tiny_run.make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.fixture(scope="module")
def arrays():
    """Name -> prompt, each of another length."""
    rng = np.random.default_rng(0)
    shapes = {"cb": 6, "reviews": 2, "rte": 4}
    return {
        name: rng.normal(0, 5, (length, tiny_run.EMB_DIM)).astype(np.float32)
        for name, length in shapes.items()
    }


@pytest.fixture
def prompts(arrays, tmp_path):
    """Name -> where its prompt is: a file, the folder of a run and a file of another kind."""
    np.save(tmp_path / "cb.npy", arrays["cb"])
    step = tmp_path / "run" / "numpy_checkpoints" / "checkpoint_7"
    step.mkdir(parents=True)
    with (step / tiny_run.PROMPT_FILE).open("wb") as file:
        np.save(file, arrays["reviews"])
    safetensors.numpy.save_file({"prompt": arrays["rte"]}, tmp_path / "rte.safetensors")
    paths = {"cb": "cb.npy", "reviews": "run", "rte": "rte.safetensors"}
    return {name: tmp_path / path for name, path in paths.items()}


def _infer(inputs, output_dir, path, *flags, **macros):
    settings = {
        "CHECKPOINT_PATH": str(inputs.checkpoint),
        "INFER_OUTPUT_DIR": str(output_dir),
        "INFER_INPUT_FILE": None if path is None else str(path),
        "TASK_FEATURE_LENGTHS": LENGTHS,
        "BATCH_SIZE": 8,
        "utils.RestoreCheckpointConfig.dtype": "float32",
        **macros,
    }
    files = ("models/t5_1_1_small_prompt.gin", "runs/prompt_infer.gin")
    argv = ["infer", *(f"--gin_file={name}" for name in files), *inputs.flags(**settings)]
    return cli.main([*argv, *flags])


def _flag(prompts):
    return "--prompts=" + ",".join(f"{name}={path}" for name, path in prompts.items())


def _records(folder):
    (path,) = folder.glob("*.jsonl-00000-of-00001")
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["predict_with_aux", "score"])
def test_each_line_is_answered_as_with_its_prompt_alone(inputs, arrays, prompts, tmp_path, mode):
    path = write_jsonl(tmp_path / "mixed.jsonl", ROWS)
    mixed = tmp_path / "mixed"
    assert _infer(inputs, mixed, path, _flag(prompts), **{"infer.mode": mode}) == 0
    got = _records(mixed)
    assert [record["inputs"]["task"] for record in got] == [row["task"] for row in ROWS]
    compared = 0
    for name, array in arrays.items():
        np.save(tmp_path / "alone.npy", array)
        macros = {"PROMPT_FILE": str(tmp_path / "alone.npy"), "PROMPT_LENGTH": len(array)}
        macros["infer.mode"] = mode
        assert _infer(inputs, tmp_path / name, path, **macros) == 0
        for record, alone in zip(got, _records(tmp_path / name), strict=True):
            if record["inputs"]["task"] != name:
                continue
            compared += 1
            assert record.get("prediction") == alone.get("prediction")
            score, expected = (r.get("score") or r["aux"]["scores"] for r in (record, alone))
            assert score == pytest.approx(expected, rel=1e-5)
    assert compared == len(ROWS)
    settings = json.loads(next(mixed.glob("*.COMPLETED")).read_text())
    assert settings["infer.prompts"] == {name: str(path) for name, path in prompts.items()}
    # The finished shard is that of these prompts, whatever their files are called.
    np.save(prompts["cb"], arrays["cb"] + 1)
    assert _infer(inputs, mixed, path, _flag(prompts), **{"infer.mode": mode}) == 2


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        (
            [*ROWS, {"inputs": "b", "task": "review", "targets": "x"}],
            ["Example 6 of", "no prompt is given for: got 'review'", "Closest matches: reviews"],
        ),
        ([{"inputs": "b", "Task": "cb"}], ["Example 1 of", "which task", "Closest matches: Task"]),
    ],
)
def test_lines_without_a_known_task_are_refused(inputs, prompts, tmp_path, capsys, rows, texts):
    path = write_jsonl(tmp_path / "mixed.jsonl", rows)
    assert _infer(inputs, tmp_path / "out", path, _flag(prompts)) == 2
    error = capsys.readouterr().err
    assert all(text in error for text in texts), error


def test_prompts_without_a_file_to_mix_are_refused(inputs, prompts, tmp_path, capsys):
    settings = {
        "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
    }
    assert _infer(inputs, tmp_path / "out", None, _flag(prompts), **settings) == 2
    assert "prompt-tuning ensemble" in capsys.readouterr().err


def test_one_more_prompt_beside_them_is_refused(inputs, prompts, tmp_path, capsys):
    path = write_jsonl(tmp_path / "mixed.jsonl", ROWS)
    macros = {"PROMPT_FILE": str(prompts["cb"])}
    assert _infer(inputs, tmp_path / "out", path, _flag(prompts), **macros) == 2
    assert "PROMPT_FILE names a prompt beside those of --prompts" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["cb", "cb=", "=x.npy", "cb=a.npy,cb=b.npy"])
def test_a_flag_that_names_nothing_is_refused(flag, capsys):
    with pytest.raises(SystemExit):
        commands_infer.parse([f"--prompts={flag}"])
    assert "NAME=FILE,NAME=FILE with distinct names" in capsys.readouterr().err


def test_a_prompt_of_other_frozen_weights_is_refused(inputs, prompts, tmp_path, capsys):
    path = write_jsonl(tmp_path / "mixed.jsonl", ROWS)
    other = tmp_path / "other.npy"
    np.save(other, np.ones((2, tiny_run.EMB_DIM), np.float32))
    other.with_name("other.npy.json").write_text(json.dumps({"frozen_digest": "0" * 64}))
    assert _infer(inputs, tmp_path / "out", path, _flag({**prompts, "cb": other})) == 2
    assert f"are not those that prompt file {other} was trained on" in capsys.readouterr().err


def test_a_prompt_of_another_width_is_refused(inputs, prompts, tmp_path, capsys):
    path = write_jsonl(tmp_path / "mixed.jsonl", ROWS)
    np.save(prompts["cb"], np.ones((2, tiny_run.EMB_DIM + 1), np.float32))
    assert _infer(inputs, tmp_path / "out", path, _flag(prompts)) == 2
    assert "cb.npy is for a model of another width" in capsys.readouterr().err
