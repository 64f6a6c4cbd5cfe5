"""BLEU and ROUGE of written text, in percent, by the packages that T5 takes them from (extra [t0])."""

import importlib
from collections.abc import Sequence
from typing import Any

from prompt_tuning.errors import ConfigError

_ROUGE = ("rouge1", "rouge2", "rougeLsum")


def bleu(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Returns `bleu` over the whole corpus, in percent.

    Args:
      targets: One text per example.
      predictions: The same.

    Raises:
      ConfigError: The package is not installed.

    Source: sacreBLEU with T5's settings (tokenization "intl", exponential smoothing).
    """
    sacrebleu = _package("sacrebleu", "bleu")
    found = sacrebleu.corpus_bleu(
        list(predictions), [list(targets)], smooth_method="exp", tokenize="intl"
    )
    return {"bleu": float(found.score)}


def rouge(targets: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Returns `rouge1`, `rouge2` and `rougeLsum`: the mean over examples of F1, in percent.

    T5 draws samples of the examples at random and returns the median of their means; this is the mean itself.

    Args:
      targets: One text per example.
      predictions: The same.

    Raises:
      ConfigError: The package is not installed.

    Source: rouge-score, each sentence that ends in " . " on a line of its own, as in T5.
    """
    scorer = _package("rouge_score.rouge_scorer", "rouge").RougeScorer(_ROUGE)
    sums = dict.fromkeys(_ROUGE, 0.0)
    for target, prediction in zip(targets, predictions, strict=True):
        scores = scorer.score(_in_lines(target), _in_lines(prediction))
        for name in _ROUGE:
            sums[name] += scores[name].fmeasure
    return {name: 100.0 * value / len(targets) for name, value in sums.items()}


def _in_lines(text: str) -> str:
    """The text as the metric's longest common subsequence reads it, a sentence a line."""
    return text.replace(" . ", " .\n")


def _package(name: str, metric: str) -> Any:
    """The package of a metric."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"The metric {metric!r} needs a package that cannot be imported ({error})",
            got=name.partition(".")[0],
            expected="the extra [t0]",
            fix="run `pip install 'prompt-tuning[t0]'`",
        ) from error
