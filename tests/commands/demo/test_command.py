"""The demo: the README's first command. It tells what it measured, and leaves what it says."""

import contextlib
import io
import json
import os
import pathlib
import re
import shlex

import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.commands.demo import command, story
from prompt_tuning.config import queries
from prompt_tuning.errors import ConfigError
from tests.data.synthetic import bag_of_words
from tests.helpers import REPO, run_cli

# Where a demo that has just run printed what it did, as in CI.
DEMO_OUTPUT = os.environ.get("PROMPT_TUNING_DEMO_OUTPUT")
TASK = "synthetic_sentiment"
ALONE, CHOOSING, TUNED = (
    "the model alone",
    "the model alone, made to choose a word",
    "the model with the tuned prompt",
)
MAJORITY, WORDS, MODEL = (
    "always the more frequent answer",
    "bag of words (measured before)",
    "all weights tuned (measured before)",
)
# The smallest rung, for the sake of speed.
CHECKPOINT = "prompt_tuning/ladder/pico/adapted/checkpoint_1200"
SIZES = "NUM_HEADS NUM_ENCODER_LAYERS NUM_DECODER_LAYERS HEAD_DIM EMBED_DIM MLP_DIM"
RUNG = [
    "--gin_file=prompt_tuning/configs/ladder/pico.gin",
    "--gin.VOCABULARY_FILE='prompt_tuning/ladder/vocabulary.model'",
    "--gin.MIXTURE_OR_TASK_MODULE='prompt_tuning.tasks.synthetic'",
    "--gin.TASK_FEATURE_LENGTHS={'inputs': 32, 'targets': 4}",
    "--gin.BATCH_SIZE=40",
]


def _scores(printed: str) -> dict[str, float]:
    """The table of scores."""
    table = printed.partition("=== 5.")[2].partition("=== 6.")[0]
    lines = re.findall(r"^  (\S.*?) +(\d+\.\d\d)$", table, re.MULTILINE)
    return {name: float(value) for name, value in lines}


def _evaluate(folder: pathlib.Path, checkpoint: str, task: str, *flags: str) -> float:
    """Accuracy on the test split as the command `eval` measures it."""
    settings = {
        "MIXTURE_OR_TASK_NAME": task,
        "CHECKPOINT_PATH": checkpoint,
        "EVAL_OUTPUT_DIR": str(folder),
        "utils.DatasetConfig.split": "test",
    }
    assert not cli.main(["eval", *RUNG, *flags, *(f"--gin.{n}={v!r}" for n, v in settings.items())])
    metrics = (folder / f"inference_eval/{task}-metrics.jsonl").read_text()
    return json.loads(metrics)["accuracy"]


def _own_sentence(printed: str) -> str:
    """What the program that the demo ends with prints."""
    program = re.search(r"<<'EOF'\n(.*?)\n  EOF", printed, re.DOTALL)
    assert program
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec("\n".join(line.strip() for line in program[1].splitlines()), {})
    return out.getvalue().strip()


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "something").write_text("")
    with pytest.raises(ConfigError, match="demo's folder is not empty"):
        command.main(["--dir", str(tmp_path)])


def test_the_command_for_a_tpu_is_that_of_its_page(capsys):
    names = dict.fromkeys(("prompt", "curve", "digest", "changed", "python", "directory"), "x")
    story.tell(7, prompt_bytes=2, seconds=1.0, **names)
    flag = " --topology=v5e:2x4"
    printed = capsys.readouterr().out.partition(flag)[2]
    page = (REPO / "docs/machines/launch.md").read_text().partition(flag)[2].partition("```")[0]
    page = page.replace("$BUCKET", "BUCKET")
    flags, expected = (shlex.split(text.replace("\\\n", " ")) for text in (printed, page))
    assert len(flags) == 10 and flags == expected


@pytest.mark.slow
def test_what_is_shown_of_bags_of_words_is_what_they_reach():
    score = bag_of_words.score("sentiment")["bag of words test"]
    assert command.BAG_OF_WORDS == pytest.approx(score, abs=0.06)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_short_demo_shows_what_it_measured_and_leaves_what_it_says(tmp_path, capsys):
    sizes = queries.query_macros(["prompt_tuning/configs/ladder/pico.gin"], SIZES.split())
    command.run(
        str(tmp_path / "run"),
        **sizes,
        INITIAL_CHECKPOINT_PATH=CHECKPOINT,
        TRAIN_STEPS=20,
        EVAL_PERIOD=20,
    )
    printed = capsys.readouterr().out
    files = re.findall(rf"^  ({re.escape(str(tmp_path))}\S+)$", printed, re.MULTILINE)
    assert [pathlib.Path(name).name for name in files] == [
        "encoder.prompt.prompt.prompt",
        command.CURVE,
    ]
    prompt = pathlib.Path(files[0])
    assert np.load(prompt).shape == (20, 48)
    assert f"({prompt.stat().st_size:,} bytes)" in printed
    assert pathlib.Path(files[1]).read_bytes().startswith(b"\x89PNG")
    assert "308,032 weights" in printed and "960 in all" in printed
    assert len(re.findall(r"SHA-256 of its files: [0-9a-f]{16}", printed)) == 2
    assert "not a byte has changed" in printed
    assert len(re.findall(r"^  vector ", printed, re.MULTILINE)) == 20
    # The same figures from the commands of every run.
    scores = _scores(printed)
    assert scores.keys() == {ALONE, CHOOSING, MAJORITY, WORDS, MODEL, TUNED}
    frozen = "--gin_file=prompt_tuning/configs/runs/frozen_eval.gin"
    tuned = ["--gin_file=prompt_tuning/configs/runs/prompt_eval.gin", "--gin.PROMPT_LENGTH=20"]
    measured = {
        ALONE: _evaluate(tmp_path / "alone", CHECKPOINT, TASK, frozen),
        CHOOSING: _evaluate(tmp_path / "choosing", CHECKPOINT, f"{TASK}_rank", frozen),
        TUNED: _evaluate(tmp_path / "tuned", str(tmp_path / "run/checkpoint_20"), TASK, *tuned),
    }
    assert measured == {name: pytest.approx(scores[name], abs=0.01) for name in measured}
    assert re.fullmatch(r"\['.*'\]", _own_sentence(printed))


@pytest.mark.slow
@pytest.mark.entry
@pytest.mark.timeout(900)
def test_a_tuned_prompt_beats_what_it_should(tmp_path):
    if DEMO_OUTPUT:
        printed = pathlib.Path(DEMO_OUTPUT).read_text(encoding="utf-8")
    else:
        # One device, as on a laptop.
        done = run_cli("demo", "--dir", str(tmp_path), env={"XLA_FLAGS": ""}, timeout=900)
        assert done.returncode == 0, done.stderr[-3000:]
        printed = done.stdout + done.stderr
    scores = _scores(printed)
    assert scores[TUNED] > scores[MAJORITY] + 25
    assert scores[TUNED] > scores[ALONE]
    assert scores[TUNED] > scores[CHOOSING]
    assert scores[TUNED] > scores[WORDS] + 10
    assert _own_sentence(printed) == "['negative']"
    # The progress bar.
    assert "100/100" in printed
