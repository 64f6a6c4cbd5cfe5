"""Every prompt answers every example over one copy of the frozen weights; the majority decides."""

import collections
import dataclasses
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import logging

from prompt_tuning.checkpoints import one_writer
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.data import batches, evaluation, pipelines, ranking
from prompt_tuning.data.benchmarks import leaderboard
from prompt_tuning.data.evaluation import EvaluatorConfig
from prompt_tuning.errors import ConfigError, DataError
from prompt_tuning.evaluate import prepare
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.partitioning import PjitPartitioner
from prompt_tuning.run import many_prompts
from prompt_tuning.run.inference import Inference, Numbered
from prompt_tuning.run.start import load_for_inference
from prompt_tuning.run.text_table import aligned
from prompt_tuning.types import PyTree

# {task: {metric: value}}
Results = dict[str, dict[str, float]]
FILE = "ensemble.json"


@one_writer.holding_folder("output_dir", "EVAL_OUTPUT_DIR")
def evaluate_ensemble(
    prompt_files: Sequence[str],
    *,
    model: EncoderDecoderModel,
    dataset_cfg: batches.DatasetConfig,
    restore_checkpoint_cfg: RestoreCheckpointConfig,
    partitioner: PjitPartitioner,
    output_dir: str,
    evaluator: EvaluatorConfig,
    config_text: str = "",
) -> dict[str, Results]:
    """Evaluates prompts one by one and as an ensemble, from one pass over the data.

    Each example stands in the batch once for each prompt. The ensemble's answer is the decoded text that most prompts
    gave, or on ranked tasks the label that most of them found likeliest; where several got as many votes, it is that of
    the prompt that comes first in `prompt_files`, so that no label of the evaluated split decides.

    Args:
      prompt_files: A prompt each, in any form that `many_prompts.read` takes; lengths may differ.
      model: The model; its own prompt is not used.
      dataset_cfg: Task or mixture, split, and the rows of a batch: examples times prompts.
      restore_checkpoint_cfg: CHECKPOINT_PATH: frozen weights, or a checkpoint of a run, which names them.
      partitioner: Mesh and axis rules.
      output_dir: EVAL_OUTPUT_DIR; `ensemble.json` and `config.gin` are written there.
      evaluator: How much is evaluated.
      config_text: The resolved gin config.

    Returns:
      "average": each metric's mean over the prompts; "best": on each task, the metrics of the prompt whose metrics have
      the highest mean (of equal ones the first); "ensemble". Each is `{task: {metric: value}}`, with the averages over
      whole benchmarks as `evaluate` gives them.

    Raises:
      ConfigError: If there is no prompt, the batch does not divide over the devices or the vocabulary does not fit.
      DataError: If the task is unknown, its split empty, or it has no metric over answers.
      CheckpointError: If the checkpoint or a prompt is missing or of another model.

    Source: Lester et al. 2021, section 6 and Table 3. Differs: the paper does not say how it breaks ties.
    """
    if not prompt_files:
        raise ConfigError(
            "An ensemble has no prompts",
            got=list(prompt_files),
            expected="at least one prompt file",
            fix="name them: --prompts=FILE,FILE,...",
        )
    directory = prepare(model, dataset_cfg, partitioner, output_dir, config_text)
    tasks = evaluation.make_evaluator(
        dataset_cfg,
        log_dir=None,
        num_examples=evaluator.num_examples,
        use_memory_cache=evaluator.use_memory_cache,
    )
    if tasks is None:
        raise DataError(
            "There is nothing to compare prompts by",
            got=dataset_cfg.mixture_or_task_name,
            expected="a task with a metric",
            fix="name another task, or write answers with `prompt-tuning infer`",
        )
    loaded = load_for_inference(
        model, partitioner, restore_checkpoint_cfg, prompt_files=prompt_files
    )
    answers = Answers(
        Inference(model, partitioner, dataset_cfg.batch_size),
        loaded.params,
        len(prompt_files),
        decode=model.output_vocabulary.decode,
        evaluator=tasks,
    )
    each = [answers.evaluate(number, loaded.step) for number in range(len(prompt_files))]
    best_numbers = {task.name: best_of([r[task.name] for r in each]) for task in tasks.eval_tasks}
    best = {task: each[number][task] for task, number in best_numbers.items()}
    results = {
        "average": average(each),
        "best": {**best, **leaderboard.averages(best)},
        "ensemble": answers.evaluate(None, loaded.step),
    }
    if jax.process_index() == 0:
        best_prompts = {task: prompt_files[number] for task, number in best_numbers.items()}
        record = {"prompts": list(prompt_files), "step": loaded.step, **results}
        record |= {"best_prompt": best_prompts, "each": each}
        (directory / FILE).write_text(json.dumps(record, indent=1) + "\n")
        print(format_table(results), flush=True)
        logging.info("Metrics of each prompt are in %s", directory / FILE)
    return results


@dataclasses.dataclass
class Answers:
    """What each of several prompts answers to the examples of a SeqIO Evaluator, computed once, and its metrics.

    Attributes:
      inference: Compiled predicting and scoring.
      params: Parameters with a table of prompts.
      num_prompts: K.
      decode: Token ids -> text.
      evaluator: The `seqio.Evaluator` of the tasks.
    """

    inference: Inference
    params: PyTree
    num_prompts: int
    decode: Callable[[list[int]], str]
    evaluator: Any
    # Task -> a list for each prompt.
    _predictions: dict[str, list[list[Any]]] = dataclasses.field(default_factory=dict)
    _scores: dict[str, list[list[Any]]] = dataclasses.field(default_factory=dict)
    _labels: dict[str, list[list[int]]] = dataclasses.field(default_factory=dict)

    def evaluate(self, number: int | None, step: int) -> Results:
        """Returns the metrics of one prompt, by its number in the table, or with None those of the majority."""
        return evaluation.run_evaluator(
            self.evaluator,
            predict_fn=lambda ds: [(index, ids) for index, ids, _ in self._predict(ds, number)],
            score_fn=lambda ds: self._score(ds, number),
            predict_with_aux_fn=lambda ds: self._predict_with_aux(ds, number),
            step=step,
        )

    def _predict_with_aux(self, dataset: Any, number: int | None) -> tuple[list, dict[str, list]]:
        """As `Inference.predict_with_aux`; the score of the majority's answer is that of the prompt it is from."""
        rows = self._predict(dataset, number)
        return [(i, ids) for i, ids, _ in rows], {"scores": [score for _, _, score in rows]}

    def _predict(self, dataset: Any, number: int | None) -> list[tuple[int, list[int], float]]:
        """`[(index, token ids, score)]` of one prompt or of the majority."""
        task = self._task_of(dataset)
        if task not in self._predictions:
            outputs, aux = self.inference.predict_with_aux(self.params, self._rows(dataset))
            scored = zip(outputs, aux["scores"], strict=True)
            self._predictions[task] = self._by_prompt((i, ids, s) for (i, ids), s in scored)
        members = self._predictions[task]
        if number is not None:
            return members[number]
        return [
            row[vote([self.decode(ids) for _, ids, _ in row])] for row in zip(*members, strict=True)
        ]

    def _score(self, dataset: Any, number: int | None) -> list[tuple[int, float]]:
        """`[(index, log-likelihood)]` of one prompt; of the majority 1 for the label that it chose, 0 for others."""
        task = self._task_of(dataset)
        if task not in self._scores:
            # Before anything is computed: what cannot be voted on is refused.
            self._labels[task] = self._labels_of(task)
            scores = self.inference.score(self.params, self._rows(dataset))
            self._scores[task] = self._by_prompt(scores)
        members = self._scores[task]
        if number is not None:
            return members[number]
        votes = majority_labels(
            [[score for _, score in rows] for rows in members], self._labels[task]
        )
        return list(enumerate(votes))

    def _task_of(self, dataset: Any) -> str:
        """The name of the task whose examples these are."""
        tasks = self.evaluator.cached_model_datasets.items()
        return next(name for name, examples in tasks if examples is dataset)

    def _labels_of(self, task: str) -> list[list[int]]:
        """The rows of each example's labels."""
        labels = ranking.labels_of_examples(self.evaluator.cached_task_datasets[task])
        if not labels:
            raise DataError(
                f"The metrics of {task} are of likelihoods that rank nothing",
                got="log-likelihoods",
                expected="metrics over decoded answers, or a ranked task (NAME_rank)",
                fix="name another task: a majority is one of answers",
            )
        return labels

    def _rows(self, dataset: Any) -> Numbered:
        """Every example once for each prompt, one after the other, so that they share a batch."""
        for index, features in pipelines.numpy_iterator(dataset):
            for number in range(self.num_prompts):
                row = int(index) * self.num_prompts + number
                yield row, many_prompts.with_prompt(features, number)

    def _by_prompt(self, outputs: Any) -> list[list[Any]]:
        """The outputs for `_rows`, `(row, ...)`, dealt to the prompts as `(index of the example, ...)`."""
        dealt: list[list[Any]] = [[] for _ in range(self.num_prompts)]
        for row, *values in outputs:
            index, number = divmod(row, self.num_prompts)
            dealt[number].append((index, *values))
        return dealt


def vote(answers: Sequence[Hashable]) -> int:
    """Returns the position of the first answer among those given most often."""
    counts = collections.Counter(answers)
    most = max(counts.values())
    return next(i for i, answer in enumerate(answers) if counts[answer] == most)


def majority_labels(
    scores: Sequence[Sequence[float]], labels: Sequence[Sequence[int]]
) -> list[float]:
    """Returns 1.0 for the label of each example that most prompts find likeliest, 0.0 for the others.

    Args:
      scores: For each prompt, the log-likelihood of every row.
      labels: For each example, the rows of its labels. Of equally likely ones the first counts.
    """
    chosen = np.zeros(len(scores[0]))
    for rows in labels:
        votes = [rows[int(np.argmax([member[row] for row in rows]))] for member in scores]
        chosen[votes[vote(votes)]] = 1.0
    return chosen.tolist()


def average(each: Sequence[Results]) -> Results:
    """Returns the mean of every metric over the prompts' results."""
    return {
        task: {name: float(np.mean([r[task][name] for r in each])) for name in metrics}
        for task, metrics in each[0].items()
    }


def best_of(metrics: Sequence[Mapping[str, float]]) -> int:
    """Returns the number of the prompt whose metrics on a task have the highest mean, of equal ones the first."""
    return int(np.argmax([np.mean(list(values.values())) for values in metrics]))


def format_table(results: Mapping[str, Results]) -> str:
    """Returns results as the paper's Table 3 has them: a line a task, its metrics joined by slashes."""
    rows = [("task", "metric", *results)]
    for task, metrics in results["ensemble"].items():
        cells = ["/".join(f"{r[task][name]:.1f}" for name in metrics) for r in results.values()]
        rows.append((task, "/".join(metrics), *cells))
    return aligned(rows)
