"""docs/use/tasks.md, followed to the letter: its files are written, its commands run, on a tiny model."""

import json
import pathlib
import re
import shlex
import sys

import pytest

from prompt_tuning import cli
from tests import tiny_run
from tests.helpers import REPO

PAGE = REPO / "docs/use/tasks.md"
# The name that the page gives each file, by the language of its block.
FILES = {
    "json": "reviews/train.jsonl",
    "csv": "reviews/validation.csv",
    "gin": "reviews.gin",
    "python": "my_tasks.py",
}


def blocks(language):
    found = re.findall(
        r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [text for name, text in found if name == language]


def commands():
    """Every command of the page, as `(words before the program, words behind it)`."""
    for block in blocks("bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line)
            at = words.index("prompt-tuning")
            yield words[:at], words[at + 1 :]


@pytest.fixture
def reader(inputs, tmp_path, monkeypatch):
    """A function that runs a command of the page as its reader would, in a folder with the page's files."""
    for language, name in FILES.items():
        (text,) = blocks(language)
        assert f"`{name}`" in PAGE.read_text(encoding="utf-8")
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    paths = {
        "/path/to/sentencepiece.model": str(inputs.vocabulary),
        "/path/to/t5_1_1_lm100k_base/checkpoint_1100000": str(inputs.checkpoint),
        # What a reader trains for 1000 updates is trained for 2 here, on a tiny model with tiny pieces.
        "TRAIN_STEPS_RELATIVE=1000": "TRAIN_STEPS_RELATIVE=2",
        "checkpoint_1000'": "checkpoint_2'",
        "'targets': 8": "'targets': 16",
        "--targets_length=8": "--targets_length=16",
    }

    def run(before, argv):
        for old, new in paths.items():
            argv = [word.replace(old, new) for word in argv]
        if argv[0] != "tasks":
            tiny = [f"--gin.{name}={value}" for name, value in tiny_run.TINY_SIZES.items()]
            argv += [*tiny, "--gin.BATCH_SIZE=8"]
        if before:
            assert before == ["PYTHONPATH=."]
            monkeypatch.syspath_prepend(str(tmp_path))
        return cli.main(argv)

    return run


@pytest.mark.slow
def test_a_task_without_code_is_trained_evaluated_and_answers(reader, tmp_path):
    runs = [command for command in commands() if command[1][0] != "tasks"][:4]
    assert [reader(*command) for command in runs] == [0, 0, 0, 0]
    rows = (tmp_path / "runs/reviews/inference_eval/reviews-metrics.jsonl").read_text()
    assert set(json.loads(rows.splitlines()[-1])) == {"step", "accuracy", "f1"}
    assert (tmp_path / "runs/reviews_eval/inference_eval/reviews-metrics.jsonl").exists()
    rows = (
        tmp_path / "runs/reviews_rank_eval/inference_eval/reviews_rank-metrics.jsonl"
    ).read_text()
    # Two examples, and every answer is a label.
    assert json.loads(rows)["accuracy"] in (0.0, 50.0, 100.0)
    answers = tmp_path / "runs/reviews_infer/reviews-predict.jsonl-00000-of-00001"
    first = json.loads(answers.read_text().splitlines()[0])
    assert first["inputs"]["inputs_pretokenized"] == "review: bright, brave and very funny"
    # The saved config describes the task too: it runs again, and shows the task, by itself.
    config = tmp_path / "runs/reviews/config.gin"
    assert "@tasks.from_files()" in config.read_text()
    ranked = "infer_eval/utils.DatasetConfig.mixture_or_task_name='reviews_rank'"
    assert f"--gin.{ranked.split('=')[0]}=" in PAGE.read_text(encoding="utf-8")
    more = ["--gin.TRAIN_STEPS_RELATIVE=3", f"--gin.{ranked}"]
    assert cli.main(["train", f"--gin_file={config}", *more]) == 0
    assert (tmp_path / "runs/reviews/checkpoint_3").is_dir()
    rows = (tmp_path / "runs/reviews/inference_eval/reviews_rank-metrics.jsonl").read_text()
    assert json.loads(rows)["step"] == 3
    assert cli.main(["tasks", "check", f"--gin_file={config}"]) == 0


@pytest.mark.slow
def test_a_module_outside_the_repository_is_trained(reader, tmp_path):
    before, argv = next(c for c in commands() if c[0] and c[1][0] == "train")
    assert reader(before, argv) == 0
    rows = (tmp_path / "runs/my_reviews/inference_eval/my_reviews-metrics.jsonl").read_text()
    assert json.loads(rows.splitlines()[-1])["step"] == 2
    assert pathlib.Path(sys.modules["my_tasks"].__file__ or "").parent == tmp_path


def test_a_wrong_line_stops_a_run_before_it_starts(reader, tmp_path, capsys):
    with (tmp_path / "reviews/train.jsonl").open("a") as file:
        file.write('{"id": 7, "text": "a film", "label": 2}\n')
    assert reader(*next(commands())) == 2
    error = capsys.readouterr().err
    assert "reviews/train.jsonl:5 has a label outside the label_map" in error and "Fix: " in error
    assert not (tmp_path / "runs/reviews").exists()


def test_a_task_is_looked_at(reader, capsys):
    looks = [c for c in commands() if c[1][0] == "tasks" and c[1][1] != "cache"]
    assert [argv[1] for _, argv in looks] == ["list", "show", "stats", "check"]
    printed = []
    for command in looks:
        assert reader(*command) == 0
        printed.append(capsys.readouterr().out)
    for text, word in zip(
        printed,
        (
            "taskless_super_glue_boolq_v102",
            "review: a warm song with a gentle ending",
            "reviews train targets: 'positive' 2, 'negative' 2",
            "gold answers of validation score 100: accuracy 100.00",
        ),
        strict=True,
    ):
        assert word in text
