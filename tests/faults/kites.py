"""Runs of a task from files of one's own, on the tiny model: what the tests of this folder damage, edit and repeat."""

import dataclasses
import json
import pathlib
from typing import Any

from prompt_tuning import infer, train
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve as config
from prompt_tuning.config.flags import parse_run
from tests.tiny_run import TinyInputs

_CONFIGS = "prompt_tuning/configs"
_MODEL = f"--gin_file={_CONFIGS}/models/t5_1_1_small_prompt.gin"
_TRAIN = (
    _MODEL,
    f"--gin_file={_CONFIGS}/prompts/from_sampled_vocab.gin",
    f"--gin_file={_CONFIGS}/runs/prompt_finetune.gin",
)
_INFER = (_MODEL, f"--gin_file={_CONFIGS}/runs/prompt_infer.gin")
_ROWS = (
    ("a light kite that flies well", 1),
    ("the string broke at once", 0),
    ("bright and brave in the wind", 1),
    ("heavy, dull and slow", 0),
)


@dataclasses.dataclass(frozen=True)
class Kites:
    """A folder with the data of a task, its gin file, and runs."""

    folder: pathlib.Path
    inputs: TinyInputs

    @classmethod
    def make(cls, folder: pathlib.Path, inputs: TinyInputs) -> "Kites":
        """Writes the data."""
        for split, rows in (("train", _ROWS * 2), ("validation", _ROWS[:2])):
            lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in rows]
            (folder / f"{split}.jsonl").write_text("".join(lines))
        return cls(folder, inputs)

    def task(self, **settings: Any) -> str:
        """Writes the task's gin file and returns the flag that names it."""
        described = {
            "name": "kites",
            "train": str(self.folder / "train.jsonl"),
            "validation": str(self.folder / "validation.jsonl"),
            "inputs": "review: {text}",
            "targets": "{label}",
            "label_map": {0: "negative", 1: "positive"},
            "metrics": ["accuracy"],
            **settings,
        }
        lines = [f"tasks.from_files.{name} = {value!r}\n" for name, value in described.items()]
        file = self.folder / "task.gin"
        file.write_text("MIXTURE_OR_TASK_NAME = @tasks.from_files()\n" + "".join(lines))
        return f"--gin_file={file}"

    def train(self, *, task: dict[str, Any] | None = None, **macros: Any) -> Any:
        """Trains, or goes on, in `folder / run`."""
        settings = {
            "MODEL_DIR": str(self.folder / "run"),
            "TASK_FEATURE_LENGTHS": {"inputs": 24, "targets": 8},
            "INITIAL_CHECKPOINT_PATH": str(self.inputs.checkpoint),
            "TRAIN_STEPS_RELATIVE": 2,
            "EVAL_PERIOD": 2,
            "EVAL_STEPS": 1,
            "BATCH_SIZE": 8,
            "PROMPT_LENGTH": 4,
            "RANDOM_SEED": 3,
            "prompts.from_sample_of_embeddings.population_size": 200,
            **macros,
        }
        return self._resolve("train", train.train, _TRAIN, task, settings).run()

    def infer(self, *, task: dict[str, Any] | None = None, **macros: Any) -> pathlib.Path:
        """Predicts the validation split with the run's prompt; returns the finished file."""
        settings = {
            "CHECKPOINT_PATH": str(self.folder / "run" / "checkpoint_2"),
            "INFER_OUTPUT_DIR": str(self.folder / "out"),
            "utils.DatasetConfig.split": "validation",
            "TASK_FEATURE_LENGTHS": {"inputs": 24, "targets": 8},
            "BATCH_SIZE": 8,
            "PROMPT_LENGTH": 4,
            **macros,
        }
        return pathlib.Path(self._resolve("infer", infer.infer, _INFER, task, settings).run())

    def _resolve(self, command, runnable, files, task, settings) -> Any:
        argv = [*files, self.task(**(task or {})), *self.inputs.flags(**settings)]
        flags = parse_run(command, argv)
        parsed = config_files.read(flags.gin_file, flags.bindings, [])
        return config.resolve(parsed, runnable, command=command)
