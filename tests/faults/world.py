"""What every command works on: a folder with a task, a trained run, its prompt in every form, predictions and rows.

All of it is made by the commands themselves from the smallest model that the package ships.
"""

import dataclasses
import json
import pathlib
import shutil

import numpy as np

from tests.data.local_data import write_data
from tests.faults.forks import Server

COMMANDS = (
    "convert demo ensemble eval export infer inspect plan report reproduce similarity sweep tasks train"
).split()
_LENGTHS = {"inputs": 24, "targets": 4}
_ROWS = (
    ("a light kite that flies well", 1),
    ("the string broke at once", 0),
    ("bright and brave in the wind", 1),
    ("heavy, dull and slow", 0),
)
_TASK = """MIXTURE_OR_TASK_NAME = @tasks.from_files()
tasks.from_files:
  name = 'kites'
  train = 'train.jsonl'
  validation = 'validation.jsonl'
  inputs = 'review: {text}'
  targets = '{label}'
  label_map = {0: 'negative', 1: 'positive'}
  metrics = ['accuracy']
"""
_PICO = "prompt_tuning/configs/ladder/pico.gin"
_CHECKPOINT = "prompt_tuning/ladder/pico/adapted/checkpoint_1200"
_RUN = {
    "INITIAL_CHECKPOINT_PATH": _CHECKPOINT,
    "TASK_FEATURE_LENGTHS": _LENGTHS,
    "TRAIN_STEPS": 4,
    "EVAL_PERIOD": 2,
    "EVAL_STEPS": 1,
    "BATCH_SIZE": 4,
    "PROMPT_LENGTH": 5,
    "CLASS_LABELS": ["negative", "positive"],
    "utils.SaveCheckpointConfig.period": 2,
}
_READS = {"PROMPT_LENGTH": 5, "TASK_FEATURE_LENGTHS": _LENGTHS, "BATCH_SIZE": 4}
_ROW = {
    "sweep": "mine",
    "scale": None,
    "cell": "seed=0",
    "status": "done",
    "score": 50.0,
    "axes": {"seed": "0"},
}


def bindings(**macros: object) -> list[str]:
    """Returns flags of gin settings."""
    return [f"--gin.{name}={value!r}" for name, value in macros.items()]


def _files(*names: str) -> list[str]:
    return [f"--gin_file={name}" for name in names]


@dataclasses.dataclass(frozen=True)
class World:
    """A prepared folder; commands run in it, and name what is in it by relative paths."""

    folder: pathlib.Path
    cell: str = ""

    @classmethod
    def make(cls, folder: pathlib.Path, server: Server) -> "World":
        """Writes the inputs and runs the commands that make the rest."""
        lines = [json.dumps({"text": text, "label": label}) + "\n" for text, label in _ROWS]
        (folder / "train.jsonl").write_text("".join(lines * 2))
        (folder / "validation.jsonl").write_text(
            "".join(lines[:2]).replace("the", "a").replace("light", "new")
        )
        (folder / "questions.jsonl").write_text(
            "".join(json.dumps({"inputs": f"review: {text}"}) + "\n" for text, _ in _ROWS)
        )
        (folder / "task.gin").write_text(_TASK)
        macros = {**_RUN, "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.synthetic"}
        settings = {**macros, "MIXTURE_OR_TASK_NAME": "synthetic_sentiment"}
        (folder / "sweep.gin").write_text(
            "sweeps.Sweep:\n  name = 'mine'\n"
            f"  gin_files = {[_PICO, 'prompt_tuning/configs/ladder/prompt.gin']!r}\n"
            f"  bindings = {settings!r}\n"
            f"  axes = {{'seed': {{0: {{'bindings': {{'RANDOM_SEED': 0}}}}}}}}\n"
        )
        (folder / "rows").mkdir()
        (folder / "rows" / "results.jsonl").write_text(json.dumps(_ROW) + "\n")
        write_data(folder / "data", train=4, validation=4)
        (folder / "prompts").mkdir()
        for name in ("sst2", "mrpc", "rte"):
            np.save(folder / "prompts" / f"{name}.npy", np.ones((100, 48), np.float32))
        world = cls(folder)
        world._must(server, world.argv("train", "run"))
        # Of a command without its output folder what it leaves in the run.
        shutil.move(folder / "run" / "run", folder / "trained")
        world._must(server, ["export", "trained", "prompt.npy"])
        world._must(server, ["export", "trained", "prompt.safetensors"])
        world._must(server, ["export", "trained", "adapter", "--format=peft"])
        world._must(server, ["convert", _CHECKPOINT, "weights"])
        printed = world._must(server, [*world.argv("sweep", "cells")[:3], "--print_commands"])
        cell = printed.partition("--cell=")[2].split()[0].strip("'")
        return cls(folder, cell)

    def _must(self, server: Server, argv: list[str]) -> str:
        outcome = server.run(argv, folder=self.folder)
        assert outcome.code == 0, outcome.output
        return outcome.output

    def argv(self, command: str, out: str) -> list[str]:
        """Returns a command that is right, with its flags; what it writes goes below the folder `out`."""
        reads = _files(_PICO, "task.gin") + bindings(**_READS)
        point = bindings(CHECKPOINT_PATH="trained/checkpoint_4")
        split = bindings(**{"utils.DatasetConfig.split": "validation"})
        infer_to = bindings(INFER_OUTPUT_DIR=f"{out}/predictions")
        eval_to = bindings(EVAL_OUTPUT_DIR=f"{out}/eval")
        runs = "prompt_tuning/configs/runs/prompt_"
        train = [
            *_files(_PICO, "prompt_tuning/configs/ladder/prompt.gin", "task.gin"),
            *bindings(**_RUN),
        ]
        sizes = {"NUM_HEADS": 4, "HEAD_DIM": 12, "EMBED_DIM": 48, "MLP_DIM": 96}
        layers = {"NUM_ENCODER_LAYERS": 2, "NUM_DECODER_LAYERS": 2, "NUM_EMBEDDINGS": 2048}
        flags = {
            "convert": [_CHECKPOINT, f"{out}/weights"],
            "demo": [f"--dir={out}/demo"],
            "ensemble": [
                *_files(f"{runs}eval.gin"),
                *reads,
                *point,
                *split,
                *eval_to,
                "--prompts=prompt.npy,prompt.safetensors",
            ],
            "eval": [*_files(f"{runs}eval.gin"), *reads, *point, *split, *eval_to],
            "export": ["trained", f"{out}/prompt.npy"],
            "infer": [*_files(f"{runs}infer.gin"), *reads, *point, *split, *infer_to],
            "inspect": ["trained", "--draws=1", "--format=json", f"--png={out}/rows.png"],
            "plan": [*train, *bindings(MODEL_DIR="none"), "--topology=v5e:2x2", "--format=json"],
            "report": ["rows", f"--output_dir={out}/report"],
            "reproduce": [
                "released-prompts",
                f"--checkpoint={_CHECKPOINT}",
                "--vocabulary=prompt_tuning/ladder/vocabulary.model",
                "--prompts_dir=prompts",
                "--data_dir=data",
                f"--output_dir={out}/reproduced",
                *bindings(**sizes, **layers, TASK_FEATURE_LENGTHS={"inputs": 32, "targets": 16}),
            ],
            "similarity": ["a=trained", "b=prompt.npy", "--target=a", f"--png={out}/near.png"],
            "sweep": [
                "sweep.gin",
                f"--output_dir={out}/sweep",
                *([f"--cell={self.cell}"] if self.cell else []),
            ],
            "tasks": [
                "check",
                "--gin_file=task.gin",
                "--vocabulary=prompt_tuning/ladder/vocabulary.model",
            ],
            "train": [*train, *bindings(MODEL_DIR=f"{out}/run")],
        }
        return [command, *flags[command]]
