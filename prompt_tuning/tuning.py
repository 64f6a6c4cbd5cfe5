"""From examples to a tuned prompt in one call: the run of `prompt-tuning train`, without a line of gin."""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from prompt_tuning import ladder, predict, train
from prompt_tuning.checkpoints import json_files, paths
from prompt_tuning.checkpoints.open import open_source
from prompt_tuning.config import files, model_files, queries, resolve
from prompt_tuning.data import evaluation, home, lines, vocabularies
from prompt_tuning.errors import ConfigError, DataError, check_choice

TASK = "examples"
_FIELDS = ("inputs", "targets")
# Of ten examples the last is held out where no validation examples are given.
_HELD_OUT = slice(9, None, 10)
# The paper's inputs; a batch is cut to its longest row, so that shorter ones cost nothing.
_INPUT_TOKENS = 512
_VOCABULARY_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.model")
# T5's file without its sentinels, as Hugging Face's models have it.
_BARE_T5_PIECES = 32_000

Examples = Iterable[Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A tuned prompt and what it reached.

    Attributes:
      path: MODEL_DIR of the run, which evaluation, export and whatever else takes a run's folder read.
      score: What is higher for a better prompt, on the validation examples after the last step; accuracy in percent
        unless `settings` chose other metrics, then their mean.
      metrics: Every metric by name.
    """

    path: str
    score: float
    metrics: Mapping[str, float]

    @functools.cached_property
    def run(self) -> predict.LoadedRun:
        """The frozen model with the prompt, loaded when it is first asked for."""
        return predict.load_run(self.path)

    def predict(self, inputs: Sequence[str]) -> list[str]:
        """Returns the answer to each input, a text as those of the examples."""
        return self.run.predict(inputs)


def tune(
    model: str,
    examples: Examples,
    *,
    validation: Examples | None = None,
    labels: Sequence[str] | None = None,
    model_dir: str | None = None,
    vocabulary: str | None = None,
    steps: int = 1000,
    batch_size: int = 32,
    prompt_length: int = 100,
    learning_rate: float = 0.3,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> Tuned:
    """Tunes a prompt for a frozen model on examples, by the recipe of `runs/prompt_finetune.gin`.

    Called again with the same arguments and `model_dir`, it goes on from where it was stopped. The folder has the
    examples beside its `config.gin`, from which `prompt-tuning train` repeats the run.

    Args:
      model: A rung of the ladder that comes with the package ("mini", "ladder/mini"); or a checkpoint: the folder of a
        Hugging Face model, a T5X checkpoint, or what `prompt-tuning convert` wrote, local or gs://. Its gin file is
        found by its sizes.
      examples: Mappings with the texts `inputs` and `targets`, such as the dicts of a list.
      validation: Examples to score by; None holds out every tenth.
      labels: All answers there are, for classification: the first rows of the prompt start as their embeddings. None:
        targets are free text, and all rows start as those of frequent tokens.
      model_dir: Folder of the run, local or gs://; None makes one for the time being.
      vocabulary: The model's SentencePiece file; None takes the one in the model's folder, else the gin file's.
      steps: Updates of the prompt.
      batch_size: Examples an update.
      prompt_length: Rows of the prompt (P).
      learning_rate: Of Adafactor; constant.
      seed: Of the prompt's start and the order of examples.
      settings: Any other setting by its name in gin, such as {"EVAL_PERIOD": 100}.

    Returns:
      The prompt's folder, score and predictions.

    Raises:
      DataError: An example is wrong; its row and field are named.
      ConfigError: A setting is wrong, or `model_dir` holds a run on other examples.
      CheckpointError: There is no model, or it cannot be read.

    Example:
      >>> examples = [{"inputs": "sentence: a fine film", "targets": "good"}, ...]  # doctest: +SKIP
      >>> tuned = prompt_tuning.tune("mini", examples, labels=["good", "bad"])  # doctest: +SKIP
      >>> tuned.score, tuned.predict(["sentence: a dull film"])  # doctest: +SKIP
    """
    rows = {"train": _checked(examples, "examples", labels)}
    if validation is None:
        rows["validation"] = rows["train"][_HELD_OUT]
        del rows["train"][_HELD_OUT]
    else:
        rows["validation"] = _checked(validation, "validation", labels)
    _check_enough(rows)
    folder = paths.absolute(
        home.expand(model_dir) if model_dir else tempfile.mkdtemp(prefix="prompt_tuning_")
    )
    model_file, found = _model(model, vocabulary)
    prompt_file = f"prompts/from_{'class_labels' if labels else 'sampled_vocab'}.gin"
    gin_files = [model_file, prompt_file, "runs/prompt_finetune.gin"]
    found |= {
        **_task(folder, labels),
        "MODEL_DIR": str(folder),
        "TRAIN_STEPS_RELATIVE": steps,
        "BATCH_SIZE": batch_size,
        "PROMPT_LENGTH": prompt_length,
        "utils.create_learning_rate_scheduler.base_learning_rate": learning_rate,
        "RANDOM_SEED": seed,
        **(settings or {}),
    }
    found = {"TASK_FEATURE_LENGTHS": _lengths(gin_files, found, rows), **found}
    resolved = resolve.resolve(
        _read(gin_files, found),
        train.train,
        command="train",
        comments=[
            "Resolved by `prompt_tuning.tune`; `prompt-tuning train --gin_file=THIS_FILE` repeats it."
        ],
    )
    for warning in resolved.warnings:
        logging.warning("%s", warning)
    _write(folder, rows)
    results = resolved.run()
    selected = evaluation.default_metric(results)
    return Tuned(str(folder), selected[1] if selected else float("nan"), results.get(TASK, {}))


def _checked(examples: Examples, name: str, labels: Sequence[str] | None) -> list[dict[str, str]]:
    """The texts of examples; raises DataError for the first row that has not both."""
    rows = []
    for number, example in enumerate(examples):
        where = f"{name}[{number}]"
        if not isinstance(example, Mapping) or not set(_FIELDS) <= set(example):
            raise DataError(
                f"{where} is not an example",
                got=lines.shorten(repr(example)),
                expected="a dict with the texts 'inputs' and 'targets'",
                fix="add what is missing, or leave the row out",
            )
        row = {field: lines.check_text(example[field], field, where=where) for field in _FIELDS}
        if labels is not None:
            check_choice(
                f"'targets' of {where}",
                row["targets"],
                labels,
                fix="correct it, or add it to labels",
            )
        rows.append(row)
    return rows


def _check_enough(rows: Mapping[str, Sequence[Any]]) -> None:
    """Raises DataError unless there is something to train on and something to score by."""
    for split, found in rows.items():
        if not found:
            raise DataError(
                f"There are no examples for {split}",
                got={split: len(found) for split, found in rows.items()},
                expected="at least one of each; of ten examples one is held out for validation",
                fix="give more examples, or some as `validation`",
            )


def _model(model: str, vocabulary: str | None) -> tuple[str, dict[str, Any]]:
    """The gin file of a model, and what it does not say of the checkpoint at hand."""
    rung = model.removeprefix("ladder/")
    is_rung = rung in model_files.RUNGS
    shipped = f"{ladder.LADDER}/{rung}/adapted/checkpoint_1200"
    checkpoint = shipped if is_rung else home.expand(model)
    found: dict[str, Any] = {"INITIAL_CHECKPOINT_PATH": checkpoint}
    beside = (epath.Path(checkpoint) / name for name in _VOCABULARY_FILES)
    file = vocabulary or next((str(path) for path in beside if path.is_file()), None)
    if file:
        of_pieces = "seqio.SentencePieceVocabulary"
        found[f"{of_pieces}.sentencepiece_model_file"] = file
        if vocabularies.SentencePieceVocabulary(file).vocab_size == _BARE_T5_PIECES:
            found[f"{of_pieces}.extra_ids"] = vocabularies.T5_EXTRA_IDS
    return model_files.find_model_file(open_source(checkpoint)), found


def _task(folder: epath.Path, labels: Sequence[str] | None) -> dict[str, Any]:
    """The settings of a task that reads the files that `_write` leaves."""
    settings: dict[str, Any] = {
        "name": TASK,
        **{split: str(folder / TASK / f"{split}.jsonl") for split in ("train", "validation")},
        **{field: f"{{{field}}}" for field in _FIELDS},
    }
    if labels is not None:
        settings["label_map"] = {label: label for label in labels}
    found = {f"tasks.from_files.{name}": value for name, value in settings.items()}
    return found | ({"CLASS_LABELS": list(labels)} if labels else {})


def _read(gin_files: Sequence[str], settings: Mapping[str, Any]) -> files.Parsed:
    """The run in gin."""
    bindings = [(f"{name} = {value!r}", f"settings[{name!r}]") for name, value in settings.items()]
    described = ("MIXTURE_OR_TASK_NAME = @tasks.from_files()", "examples")
    return files.read(gin_files, [described, *bindings])


def _lengths(
    gin_files: Sequence[str], settings: Mapping[str, Any], rows: Mapping[str, Any]
) -> dict[str, int]:
    """TASK_FEATURE_LENGTHS in which no target is cut."""
    parsed = _read(gin_files, settings)
    _, found = queries.query_arguments(parsed, ("model",), {"TASK_FEATURE_LENGTHS": None}, ())
    vocabulary = found["model"].output_vocabulary
    ids = found["model"].config.ids
    vocabularies.check_vocabulary(vocabulary, pad=ids.pad, eos=ids.eos)
    targets = {row["targets"] for split in rows.values() for row in split}
    # One more for the end.
    longest = 1 + max(len(vocabulary.encode(text)) for text in targets)
    return {"inputs": _INPUT_TOKENS, "targets": longest}


def _write(folder: epath.Path, rows: Mapping[str, Sequence[Mapping[str, str]]]) -> None:
    """Writes the examples where the run reads them; raises ConfigError where it had others."""
    for split, examples in rows.items():
        file = folder / TASK / f"{split}.jsonl"
        content = "".join(f"{json.dumps(row)}\n" for row in examples).encode()
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            json_files.write_atomically(file, content)
        elif file.read_bytes() != content:
            raise ConfigError(
                "model_dir holds a run on other examples",
                got=str(file),
                expected="a new folder, or the one of a run on the same examples",
                fix="name another model_dir",
            )
