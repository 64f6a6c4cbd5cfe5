"""The main job in miniature: generated text, a tiny T5 trained on it, then a prompt tuned on the frozen result."""

import argparse
import importlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from prompt_tuning.errors import ConfigError

_NUM_SHOWN = 6


def main(argv: Sequence[str]) -> int:
    """Runs the demo: nothing is downloaded; takes about two minutes on two CPU cores.

    Args:
      argv: Flags.

    Returns:
      Exit code 0.

    Raises:
      ConfigError: If the folder holds files of something else.
    """
    parser = argparse.ArgumentParser("prompt-tuning demo", description=__doc__)
    parser.add_argument("--dir", help="folder for everything the demo makes (default: a new one)")
    flags = parser.parse_args(list(argv))
    # TensorFlow only reads data here; its own start-up notes would bury the demo's output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    directory = flags.dir or tempfile.mkdtemp(prefix="prompt-tuning-demo-")
    _check_empty(directory)
    began = time.perf_counter()
    reviews = importlib.import_module("prompt_tuning.tasks.demo_reviews")

    from prompt_tuning import predict

    vocabulary, model_dir, with_phrase = _make_model(directory, reviews)

    _title("3. The phrase is taken away: what the model answers before tuning")
    rows = reviews.sentences("validation")
    untuned = predict.load_run(model_dir, batch_size=40)
    before = _answers(untuned, rows)
    scores = {pair: _accuracy(before, rows, words) for pair, words in reviews.PAIRS.items()}
    pair = min(scores, key=lambda name: scores[name])
    words = reviews.PAIRS[pair]
    _show(before, rows, words)
    print(
        f"\n  It answers {words[0]!r} or {words[1]!r} least: a prompt for these two is tuned next."
    )

    _title("4. A prompt is tuned in place of the phrase; the T5 is frozen")
    prompt_dir = f"{directory}/prompt"
    _train(
        "prompt",
        MODEL_DIR=prompt_dir,
        VOCABULARY_FILE=vocabulary,
        INITIAL_CHECKPOINT_PATH=f"{model_dir}/checkpoint_{untuned.step}",
        MIXTURE_OR_TASK_NAME=f"demo_reviews_{pair}",
        CLASS_LABELS=[words[1], words[0]],
    )

    _title("5. What the same model answers with the prompt")
    run = predict.load_run(prompt_dir, batch_size=40)
    after = _answers(run, rows)
    _show(after, rows, words)
    phrase_score = with_phrase[f"demo_reviews_{pair}_with_phrase"]["accuracy"]
    majority = 100 * max(Counter(label for _, label in rows).values()) / len(rows)
    _title("Accuracy on held-out reviews, in percent")
    for name, score in (
        ("frozen model, before tuning", scores[pair]),
        ("majority class", majority),
        ("frozen model with the phrase", phrase_score),
        ("frozen model with the tuned prompt", _accuracy(after, rows, words)),
    ):
        print(f"  {name:<36} {score:6.2f}")
    print(f"\nTook {time.perf_counter() - began:.0f} s. Everything is in {directory}.")
    _show_next_steps(prompt_dir, run.step)
    return 0


def _make_model(directory: str, reviews: Any) -> tuple[str, str, Any]:
    """Parts 1 and 2: the vocabulary, the model's folder and its scores with the phrase."""
    from prompt_tuning.data.train_vocabulary import train_vocabulary

    _title("1. A vocabulary, trained on generated reviews")
    vocabulary = str(
        train_vocabulary(f"{directory}/vocabulary.model", reviews.corpus(), vocab_size=400)
    )
    print(vocabulary)

    _title("2. A tiny T5, trained to judge reviews in the words that a leading phrase asks for")
    for positive, negative in reviews.PAIRS.values():
        print(
            f"  answer {positive} or {negative}: a warm song with a gentle ending .  ->  {positive}"
        )
    model_dir = f"{directory}/model"
    with_phrase = _train("pretrain", MODEL_DIR=model_dir, VOCABULARY_FILE=vocabulary)
    return vocabulary, model_dir, with_phrase


def _train(config_name: str, **macros: Any) -> Any:
    """Runs `configs/demo/{config_name}.gin` as `prompt-tuning train` would; returns the last evaluation."""
    from prompt_tuning import config, train

    bindings = [
        (f"{name} = {value!r}", f"--gin.{name}={value!r}") for name, value in macros.items()
    ]
    parsed = config.read([f"prompt_tuning/configs/demo/{config_name}.gin"], bindings, [])
    return config.resolve(parsed, train.train, command="train").run()


def _answers(run: Any, rows: Sequence[tuple[str, int]]) -> list[str]:
    """What a model answers to each sentence, without a phrase."""
    return run.predict([f"sentence: {sentence}" for sentence, _ in rows])


def _right(label: int, words: tuple[str, str]) -> str:
    """The right word for a label: (for praise, for blame)."""
    return words[0] if label else words[1]


def _accuracy(
    answers: Sequence[str], rows: Sequence[tuple[str, int]], words: tuple[str, str]
) -> float:
    """The share of answers that are the right one of two words, in percent."""
    right = [a == _right(label, words) for a, (_, label) in zip(answers, rows, strict=True)]
    return 100 * sum(right) / len(right)


def _show(answers: Sequence[str], rows: Sequence[tuple[str, int]], words: tuple[str, str]) -> None:
    """Prints the first few answers."""
    for answer, (sentence, label) in list(zip(answers, rows, strict=True))[:_NUM_SHOWN]:
        mark = "ok " if answer == _right(label, words) else "   "
        print(f"  {mark} sentence: {sentence}  ->  {answer!r}")


def _show_next_steps(prompt_dir: str, step: int) -> None:
    """Prints where the prompt is and how to use it."""
    prompt = f"{prompt_dir}/numpy_checkpoints/checkpoint_{step}/encoder.prompt.prompt.prompt"
    print(f"The prompt: {prompt} ({os.path.getsize(prompt):,} bytes)")
    print("\nOn a sentence of your own:\n")
    print("  python - <<'EOF'")
    print("  from prompt_tuning import predict")
    print(f'  run = predict.load_run("{prompt_dir}")')
    print('  print(run.predict(["sentence: a dull book with a lively cover ."]))')
    print("  EOF")


def _check_empty(directory: str) -> None:
    """Refuses a folder that already holds something: a stale run would be resumed."""
    if os.path.isdir(directory) and os.listdir(directory):
        raise ConfigError(
            "The demo's folder is not empty",
            got=directory,
            expected="a new or empty folder",
            fix="name another with --dir, or leave the flag out",
        )


def _title(text: str) -> None:
    """Prints the heading of a part."""
    print(f"\n=== {text}\n", flush=True)
