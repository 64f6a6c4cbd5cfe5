"""A sweep of the shipped gin files, shrunk to a tiny model and local data made for the test."""

import pathlib
from collections.abc import Sequence

from prompt_tuning.commands.sweep import expansion, progress
from prompt_tuning.commands.sweep.place import Place
from prompt_tuning.commands.sweep.sweep import Flag, gin_text
from tests.tiny_run import TINY_SIZES, TinyInputs

MODEL = "prompt_tuning/configs/models/t5_1_1_small_prompt.gin"
TRAIN = [
    "prompt_tuning/configs/prompts/from_sampled_vocab.gin",
    "prompt_tuning/configs/runs/prompt_finetune.gin",
]
EVAL = ["prompt_tuning/configs/runs/prompt_eval.gin"]
RTE = {"bindings": {"MIXTURE_OR_TASK_NAME": "taskless_super_glue_rte_v102"}}


def bindings(inputs: TinyInputs, **more) -> dict:
    """Returns what every cell binds: the tiny model, its data, and four updates."""
    return {
        **TINY_SIZES,
        "TASK_DATA_DIR": str(inputs.data_dir),
        "seqio.SentencePieceVocabulary.sentencepiece_model_file": str(inputs.vocabulary),
        "MIXTURE_OR_TASK_NAME": "taskless_super_glue_cb_v102",
        "MIXTURE_OR_TASK_MODULE": "prompt_tuning.tasks.super_glue",
        "TASK_FEATURE_LENGTHS": {"inputs": 32, "targets": 16},
        "INITIAL_CHECKPOINT_PATH": str(inputs.checkpoint),
        "TRAIN_STEPS_RELATIVE": 4,
        "EVAL_PERIOD": 2,
        "EVAL_STEPS": 0,
        "EVALUATOR_NUM_EXAMPLES": 8,
        "BATCH_SIZE": 8,
        "PROMPT_LENGTH": 4,
        "prompt_init/prompts.from_sample_of_embeddings.population_size": 200,
        **more,
    }


def seeds(*numbers: int) -> dict:
    """Returns the values of an axis of seeds."""
    return {number: {"bindings": {"RANDOM_SEED": number}} for number in numbers}


def write(path: pathlib.Path, *, macros: str = "", **parameters) -> str:
    """Writes a sweep file: macros, then parameters of `sweeps.Sweep`; a text that starts with `%` is a macro."""
    lines = [macros, "sweeps.Sweep:"]
    for name, value in {"name": "tiny", "gin_files": [MODEL, *TRAIN], **parameters}.items():
        is_macro = isinstance(value, str) and value.startswith("%")
        lines.append(f"  {name} = {value if is_macro else gin_text(value)}")
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def session(
    file: str | list[str],
    directory: pathlib.Path,
    *,
    retry_failed: bool = False,
    flags: Sequence[Flag] = (),
) -> progress.Session:
    """Returns what one start of a sweep file, or of several, is to do, its results below `directory`."""
    files = [file] if isinstance(file, str) else file
    cells = expansion.expand(files, flags=flags).cells
    place = Place(str(directory), f"{directory}/runs", ("prompt-tuning", "sweep", *files))
    return progress.begin(place, cells, retry_failed=retry_failed)
