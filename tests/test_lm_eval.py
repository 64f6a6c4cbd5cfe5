"""The model for lm-evaluation-harness: its command line over a run, and what it refuses."""

import json
import shutil
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="lm-evaluation-harness comes with the extra [lm-eval]")

import lm_eval as harness  # noqa: E402
from lm_eval.api.instance import Instance  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402

from prompt_tuning import lm_eval  # noqa: E402
from prompt_tuning.errors import ConfigError  # noqa: E402
from tests.helpers import ENGLISH, GOLDEN  # noqa: E402


def _ask(model, kind, requests):
    instances = [Instance(kind, {}, arguments, i) for i, arguments in enumerate(requests)]
    return getattr(model, kind)(instances, disable_tqdm=True)


@pytest.fixture
def run(tmp_path):
    """A run's folder that was written before, where its files are now."""
    shutil.copytree(GOLDEN / "before_the_move", tmp_path / "before")
    config = tmp_path / "before" / "run" / "config.gin"
    config.write_text(config.read_text().replace("/tmp/before_the_move", str(tmp_path / "before")))
    return str(config.parent)


TASK = """\
task: film
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "sentence: {{{{text}}}} "
doc_to_choice: [negative, positive]
doc_to_target: label
metric_list: [{{metric: acc}}]
"""


def test_a_run_is_scored_on_a_task_of_ones_own(run, tmp_path, monkeypatch):
    rows = [{"text": text, "label": number % 2} for number, text in enumerate(ENGLISH[:6])]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "film.yaml").write_text(TASK.format(data=data))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    # Its decorator hides what it takes.
    evaluate: Any = harness.simple_evaluate
    results = evaluate(
        "prompt_tuning",
        {"run": run},
        ["film"],
        batch_size=8,
        device="cuda:0",
        task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
    )
    model = lm_eval.PromptTuningLM(run=run, batch_size=8)
    pairs = [(f"sentence: {r['text']} ", f" {x}") for r in rows for x in ("negative", "positive")]
    scores = [score for score, _ in _ask(model, "loglikelihood", pairs)]
    logged = results["samples"]["film"]
    assert [x[0][0] for row in logged for x in row["resps"]] == pytest.approx(scores, abs=1e-5)
    chosen = [second > first for first, second in zip(scores[::2], scores[1::2], strict=True)]
    right = sum(int(c) == row["label"] for c, row in zip(chosen, rows, strict=True))
    assert results["results"]["film"]["acc,none"] == pytest.approx(right / len(rows))


def test_what_is_wrong_on_the_command_line_has_no_traceback(run, capsys, monkeypatch):
    arguments = {"run": run, "task": "boolq"}
    run_harness = "lm_eval.__main__.cli_evaluate"
    monkeypatch.setattr(run_harness, lambda: lm_eval.PromptTuningLM(**arguments))
    assert lm_eval.main() == 2
    assert "error: model_args task is unknown: got 'boolq'" in capsys.readouterr().err
    del arguments["task"]
    assert lm_eval.main() == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "run = None"),
        ({"run": "/a", "gin.PROMPT_LENGTH": 4}, "PROMPT_LENGTH"),
        ({"gin_file": "a.gin", "checkpoint": "/b"}, "gin_file = a.gin, /b"),
        ({"run": "/a", "batch_size": "auto"}, "batch_size is no number: got 'auto'"),
        ({"gin_file": "a.gin", "max_length": 0}, "max_length is no number: got 0"),
        ({"gin_file": "a.gin"}, "a.gin"),
        ({"run": "/a", "checkpoints": "/b"}, "Closest matches: checkpoint"),
        ({"run": "/no/such"}, "holds no config.gin"),
    ],
)
def test_wrong_arguments_are_named(arguments, words):
    with pytest.raises(ConfigError, match=words):
        lm_eval.PromptTuningLM(**arguments)


def test_ways_of_decoding_are_the_models(run):
    model = lm_eval.PromptTuningLM(run=run)
    with pytest.raises(ConfigError, match=r"how to decode: num_beams: got 4"):
        _ask(model, "generate_until", [("a", {"num_beams": 4})])
    with pytest.raises(ConfigError, match="how to decode: temperature: got 0.5"):
        _ask(model, "generate_until", [("a", {"temperature": 0.5})])
