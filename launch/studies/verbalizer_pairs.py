"""The main job on real data: can a prompt stand in for a phrase that names the answer words?

    python -m prompt_tuning.launch.studies.verbalizer_pairs --glue_dir=/path/glue --super_glue_dir=/path/superglue \
        --vocabulary=/path/spiece.model --output_dir=/path/out

1. A tiny T5 is trained from nothing on SST-2 under three pairs of answer words, the pair named by a leading phrase.
2. It is frozen and the phrase taken away: what does it answer?
3. A prompt is tuned for each pair, and for CB and RTE, which the model has never seen.

Each run is `prompt-tuning train` with the gin files `configs/demo/sst2_*.gin`; one that was interrupted goes on where
it stopped, and one that is finished is not run again. Ends with a table of every score beside the majority class, which
is also written to `output_dir/scores.json`.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

_FOLDER = "prompt_tuning/configs/demo"


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table; scores in percent."""

    task: str
    majority: float
    with_phrase: float | None
    before: float | None
    after: float


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--glue_dir", required=True, help="holds SST-2/train.tsv and SST-2/dev.tsv")
    parser.add_argument("--super_glue_dir", help="holds CB/ and RTE/; left out, these are not run")
    parser.add_argument("--vocabulary", required=True, help="T5's spiece.model")
    parser.add_argument("--output_dir", required=True, type=pathlib.Path)
    flags = parser.parse_args(argv)
    glue = {"VOCABULARY_FILE": flags.vocabulary, "TASK_DATA_DIR": flags.glue_dir}
    model_dir = flags.output_dir / "model"
    with_phrase = train("sst2_pretrain", model_dir, **glue)
    checkpoint = str(newest_checkpoint(model_dir))
    pairs = importlib.import_module("prompt_tuning.tasks.verbalizer_pairs").PAIRS
    answers, labels = answers_without_phrase(model_dir, flags.glue_dir)
    rows = []
    for pair, (positive, negative) in pairs.items():
        task = f"sst2_{pair}"
        scores = train(
            "sst2_prompt",
            flags.output_dir / task,
            **glue,
            MIXTURE_OR_TASK_NAME=task,
            CLASS_LABELS=[negative, positive],
            INITIAL_CHECKPOINT_PATH=checkpoint,
        )
        right = [
            a == (positive if label else negative) for a, label in zip(answers, labels, strict=True)
        ]
        rows.append(
            Row(
                task,
                majority=majority(labels),
                with_phrase=with_phrase[f"{task}_with_phrase"]["accuracy"],
                before=100 * sum(right) / len(right),
                after=scores[task]["accuracy"],
            )
        )
    if flags.super_glue_dir:
        rows += super_glue_rows(flags, checkpoint)
    report(rows, Counter(answers), flags.output_dir / "scores.json")


def super_glue_rows(flags: argparse.Namespace, checkpoint: str) -> list[Row]:
    """Tunes and scores CB and RTE on the same frozen model."""
    rows = []
    for name, folder, classes in (
        ("cb", "CB", ["entailment", "contradiction", "neutral"]),
        ("rte", "RTE", ["entailment", "not_entailment"]),
    ):
        task = f"taskless_super_glue_{name}_v102"
        scores = train(
            "sst2_prompt",
            flags.output_dir / name,
            VOCABULARY_FILE=flags.vocabulary,
            TASK_DATA_DIR=flags.super_glue_dir,
            MIXTURE_OR_TASK_MODULE="prompt_tuning.tasks.super_glue",
            MIXTURE_OR_TASK_NAME=task,
            TASK_FEATURE_LENGTHS={"inputs": 128, "targets": 8},
            CLASS_LABELS=classes,
            INITIAL_CHECKPOINT_PATH=checkpoint,
        )
        lines = (pathlib.Path(flags.super_glue_dir) / folder / "val.jsonl").read_text().splitlines()
        labels = [json.loads(line)["label"] for line in lines]
        rows.append(Row(task, majority(labels), None, None, scores[task]["accuracy"]))
    return rows


def train(config: str, model_dir: pathlib.Path, **macros: Any) -> dict[str, dict[str, float]]:
    """Runs `configs/demo/{config}.gin` unless it is finished; returns the last metrics of each task."""
    done = model_dir / "finished.json"
    if not done.exists():
        settings = {"MODEL_DIR": str(model_dir), **macros}
        flags = [f"--gin.{name}={value!r}" for name, value in settings.items()]
        command = [
            sys.executable,
            "-m",
            "prompt_tuning",
            "train",
            f"--gin_file={_FOLDER}/{config}.gin",
        ]
        print(f"\n=== {model_dir}", flush=True)
        subprocess.run([*command, *flags], check=True)
        results = {}
        for path in (model_dir / "inference_eval").glob("*-metrics.jsonl"):
            metrics = json.loads(path.read_text().splitlines()[-1])
            results[path.name.removesuffix("-metrics.jsonl")] = metrics
        done.write_text(json.dumps(results))
    return json.loads(done.read_text())


def newest_checkpoint(model_dir: pathlib.Path) -> pathlib.Path:
    """Returns the run's newest checkpoint folder."""
    return max(model_dir.glob("checkpoint_*"), key=lambda path: int(path.name.split("_")[1]))


def answers_without_phrase(model_dir: pathlib.Path, glue_dir: str) -> tuple[list[str], list[int]]:
    """Returns what the frozen model answers to SST-2 dev without phrase or prompt, and the labels."""
    from prompt_tuning import predict

    lines = (pathlib.Path(glue_dir) / "SST-2/dev.tsv").read_text().splitlines()[1:]
    rows = [line.rsplit("\t", 1) for line in lines]
    run = predict.load_run(str(model_dir), batch_size=32)
    answers = run.predict([f"sentence: {sentence}" for sentence, _ in rows])
    return answers, [int(label) for _, label in rows]


def majority(labels: Sequence[Any]) -> float:
    """Returns the share of the most frequent label, in percent."""
    return 100 * max(Counter(labels).values()) / len(labels)


def report(rows: Sequence[Row], answers: Counter, path: pathlib.Path) -> None:
    """Prints and writes the table."""
    common = ", ".join(f"{text!r} x {count}" for text, count in answers.most_common(6))
    print(f"\nAnswers to SST-2 dev without phrase or prompt: {common}")
    print(f"\n{'dev accuracy, %':<32} {'majority':>9} {'phrase':>8} {'before':>8} {'prompt':>8}")
    for row in rows:
        cells = [row.majority, row.with_phrase, row.before, row.after]
        texts = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
        print(f"{row.task:<32} {texts[0]:>9} {texts[1]:>8} {texts[2]:>8} {texts[3]:>8}")
    scores = {"rows": [dataclasses.asdict(row) for row in rows], "answers_before": dict(answers)}
    path.write_text(json.dumps(scores, indent=1) + "\n")


if __name__ == "__main__":
    main()
