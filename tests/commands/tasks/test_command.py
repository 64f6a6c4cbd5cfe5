"""`prompt-tuning tasks`: what it prints, and that its figures and verdicts are right."""

import json

import numpy as np
import pytest
import seqio

from prompt_tuning import cli
from prompt_tuning.data import context
from prompt_tuning.data.own import file_tasks
from prompt_tuning.data.vocabularies import sentencepiece_vocabulary
from tests.data.local_data import write_data, write_jsonl
from tests.helpers import SHARED, requires_shared

NAME = "inspect_tasks_test"
# A character that the tiny vocabulary does not have.
UNKNOWN = "語"


@pytest.fixture(autouse=True)
def clean():
    yield
    context.set_context()
    for name in list(seqio.TaskRegistry.names()):
        if isinstance(seqio.TaskRegistry.get(name).source, file_tasks.RecordFilesDataSource):
            seqio.TaskRegistry.remove(name)


@pytest.fixture
def tasks(tmp_path, tiny_vocabulary, capsys):
    """A function that runs `tasks ARGV --format=json` on a task from files; returns exit code and value."""

    def run(*argv, rows=None, **settings):
        rows = rows or {
            "train": [{"text": "a river" * (i + 1), "label": i % 2} for i in range(4)],
            "validation": [{"text": f"the mill {UNKNOWN}", "label": i} for i in range(2)],
        }
        files = {n: str(write_jsonl(tmp_path / f"{n}.jsonl", r)) for n, r in rows.items()}
        settings = {
            "name": NAME,
            "inputs": "{text}",
            "targets": "{label}",
            "label_map": {0: "bad", 1: "good"},
            **files,
            **settings,
        }
        lines = ["MIXTURE_OR_TASK_NAME = @tasks.from_files()"]
        lines += [f"tasks.from_files.{name} = {value!r}" for name, value in settings.items()]
        gin_file = write_jsonl(tmp_path / "task.gin", lines)
        flags = [f"--gin_file={gin_file}", f"--vocabulary={tiny_vocabulary}", "--extra_ids=0"]
        code = cli.main(["tasks", *argv, *flags, "--format=json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def ids(vocabulary, text):
    return [*sentencepiece_vocabulary(str(vocabulary), 0).encode(text), 1]


def test_list_finds_by_pattern_or_part(capsys):
    assert cli.main(["tasks", "list", "taskless_*_boolq_v102", "--format=json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["name"] == "taskless_super_glue_boolq_v102"
    assert row["labels"] == ["False", "True"] and row["metrics"] == ["accuracy"]
    assert cli.main(["tasks", "list", "glue_with_dpr"]) == 0
    assert (
        capsys.readouterr().out
        == "task_index_super_glue_with_dpr_v102_examples_proportional  mixture of 10\n"
    )


def test_show_gives_raw_text_ids_and_masks(tasks, tiny_vocabulary):
    code, found = tasks("show", "--num_examples=1", "--inputs_length=8", "--targets_length=6")
    assert code == 0
    (shown,) = found[0]["examples"]
    assert shown["raw"] == {"text": "a river", "label": "0", "has_target": True}
    (example,) = shown["examples"]
    inputs, targets = ids(tiny_vocabulary, "a river"), ids(tiny_vocabulary, "bad")
    assert example["text"] == example["decoded"] == {"inputs": "a river", "targets": "bad"}
    assert example["ids"] == {"inputs": inputs, "targets": targets}
    assert example["truncated"] == {"inputs": 0, "targets": 0}
    model = example["model"]
    assert model["encoder_input_tokens"] == inputs + [0] * (8 - len(inputs))
    assert model["decoder_input_tokens"] == ([0] + targets + [0] * 6)[:6]
    assert sum(model["encoder_mask"]) == len(inputs)
    assert model["decoder_loss_weights"] == [1] * len(targets) + [0] * (6 - len(targets))
    _, found = tasks("show", "--num_examples=1", "--inputs_length=2", "--targets_length=6")
    (example,) = found[0]["examples"][0]["examples"]
    assert example["ids"]["inputs"] == [inputs[0], 1]
    assert example["truncated"]["inputs"] == len(inputs) - 2


def test_stats_counts_what_is_there(tasks, tiny_vocabulary):
    code, (train, validation) = tasks("stats", "--inputs_length=5,1000")
    assert code == 0
    tokens = [len(ids(tiny_vocabulary, "a river" * (i + 1))) for i in range(4)]
    figures = train["features"]["inputs"]
    assert train["examples"] == 4 and train["labels"] == {"bad": 2, "good": 2}
    assert figures["tokens"]["mean"] == round(float(np.mean(tokens)), 2)
    assert figures["tokens"]["max"] == figures["tokens"]["p99"] == tokens[-1]
    assert figures["tokens"]["p50"] == tokens[1]
    assert figures["truncated"] == {"5": 100 * np.mean(np.array(tokens) > 5), "1000": 0.0}
    assert figures["with_unknown"] == 0.0
    figures = validation["features"]["inputs"]
    count = len(ids(tiny_vocabulary, f"the mill {UNKNOWN}"))
    assert figures["unknown_tokens"] == round(100 / count, 4)
    assert figures["with_unknown"] == 100.0
    _, (limited,) = tasks("stats", "--split=train", "--num_examples=3")
    assert limited["examples"] == 3


def verdicts(found):
    return {check["name"]: (check["status"], check["detail"]) for check in found[0]["checks"]}


def test_check_passes_a_sound_task(tasks):
    code, found = tasks("check")
    assert code == 0
    checks = verdicts(found)
    assert len(checks) == 6 and {status for status, _ in checks.values()} == {"ok"}
    assert "2 examples; 1 repeat" in checks["schema of validation"][1]


def test_a_metric_of_ones_own_is_named_in_gin(tasks, tmp_path, monkeypatch):
    code = "import gin\n\n@gin.configurable\ndef half(targets, predictions):\n    return {'half': 50.0}\n"
    (tmp_path / "my_metrics_test.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    named = "tasks.from_files.metrics = ['accuracy', @my_metrics_test.half]"
    write_jsonl(tmp_path / "metric.gin", ["import my_metrics_test", named])
    code, found = tasks("check", f"--gin_file={tmp_path / 'metric.gin'}")
    assert code == 1
    assert "accuracy 100.00, half 50.00" in verdicts(found)["gold answers of train score 100"][1]


@pytest.mark.parametrize(
    ("change", "flags", "name", "words"),
    [
        (
            {"label_map": {0: "bad", 1: f"good {UNKNOWN}"}},
            [],
            "labels fit 32 tokens and the vocabulary",
            "choose another word",
        ),
        (
            {"label_map": {0: "bad", 1: "entailment contradiction"}},
            ["--targets_length=3"],
            "labels fit 3 tokens and the vocabulary",
            "does not fit",
        ),
        (
            {"label_map": {0: "<unk>", 1: "good"}},
            [],
            "gold answers of train score 100",
            "labels are missing",
        ),
        ({"metrics": ["mean_multiclass_f1"]}, [], "gold answers of train score 100", "absent"),
        ({}, [], "splits do not overlap", "1 inputs in both train and validation"),
        ({"inputs": "{title}"}, [], "schema of train", "train.jsonl:1 has no field 'title'"),
    ],
)
def test_check_fails_with_one(tasks, change, flags, name, words):
    rows = {
        "train": [{"text": "one", "label": 0}, {"text": "two", "label": 0}],
        "validation": [{"text": " two ", "label": 0}, {"text": "three", "label": 1}],
    }
    code, found = tasks("check", *flags, rows=rows, **change)
    assert code == 1
    status, detail = verdicts(found)[name]
    assert status == "failed" and words in detail


def test_check_says_what_is_cut_and_unknown(tasks):
    rows = {
        "train": [{"text": f"the mill {UNKNOWN}", "a": "no"}, {"text": "b", "a": "a good river"}]
    }
    free = {"targets": "{a}", "label_map": None}
    code, found = tasks("check", "--targets_length=4", rows=rows, **free)
    assert code == 0
    of_inputs, of_targets = found[0]["warnings"]
    assert "1 of 2 inputs of train hold tokens that the vocabulary lacks" in of_inputs
    assert "1 of 2 targets of train are cut at 4 tokens" in of_targets
    rows = {"train": [{"text": UNKNOWN * n, "a": "no"} for n in (1, 2)]}
    code, found = tasks("check", rows=rows, **free)
    assert code == 1 and "all the same" in verdicts(found)["schema of train"][1]


def test_check_leaves_out_splits_whose_files_are_missing(tmp_path, tiny_vocabulary, capsys):
    data = write_data(tmp_path / "data")
    flags = [f"--data_dir={data}", f"--vocabulary={tiny_vocabulary}", "--extra_ids=0"]
    assert cli.main(["tasks", "check", "taskless_super_glue_cb_v102", *flags]) == 1
    out = capsys.readouterr().out
    assert "schema of train: 50 examples" in out and "schema of test" not in out
    # The generated data has the same inputs in both splits.
    assert "5 inputs in both" in out
    assert cli.main(["tasks", "check", "super_glue_boolq_v102", *flags]) == 1
    assert "no folder 'BoolQ'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["show"], ["No task is named", "tasks list"]),
        (["show", "super_glue_bolq_v102"], ["Closest matches: ", "super_glue_boolq_v102"]),
        (["stats", "super_glue_boolq_v102", "--split=dev"], ["no such split", "test, train"]),
        (["show", "super_glue_boolq_v102", "--inputs_length=1,2"], ["several lengths"]),
        (["list", "--module=prompt_tuning.tasks.super_gleu"], ["cannot be imported", "super_glue"]),
        (["stats", "super_glue_boolq_v102", "--vocabulary=/nowhere"], ["vocabulary file"]),
        (["check", "super_glue_boolq_v102", "--vocabulary=/nowhere"], ["vocabulary file"]),
    ],
)
def test_a_mistake_is_named(argv, words, tiny_vocabulary, capsys):
    if not any(flag.startswith("--vocabulary") for flag in argv):
        argv = [*argv, f"--vocabulary={tiny_vocabulary}", "--extra_ids=0"]
    assert cli.main(["tasks", *argv]) == 2
    error = capsys.readouterr().err
    for word in ["Fix: ", *words]:
        assert word in error


SMALL = ("cb_v102", "wsc_v102_simple_eval", "wsc_v102_simple_train", "copa_v102")
LARGE = ("boolq_v102", "multirc_v102", "rte_v102", "wic_v102", "axb_v102", "axg_v102")


@requires_shared
@pytest.mark.parametrize(
    "names", [SMALL, pytest.param(LARGE, marks=pytest.mark.slow)], ids=["small", "large"]
)
def test_real_data_checks_clean(names, capsys):
    assert SHARED is not None
    flags = [
        f"--data_dir={SHARED / 'data/superglue'}",
        f"--vocabulary={SHARED / 'data/t5_tokenizer/spiece.model'}",
        "--targets_length=8",
    ]
    names = [f"taskless_super_glue_{name}" for name in names]
    assert cli.main(["tasks", "check", *names, *flags]) == 0
    out = capsys.readouterr().out
    assert "failed" not in out and [name for name in names if name not in out] == []
    if "wsc_v102_simple_eval" in str(names):
        assert "100.00; 66 examples want any text but their target" in out
        assert "schema of train: 259 examples" in out
