"""What the demo prints: prompt tuning, told to somebody who has never heard of it."""

import os
import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.commands.demo.measuring import WORDS, Example, Near

_COLUMNS = 100
_NUM_SHOWN = 6
_DIGITS = 16

_OWN_SENTENCE = """\
  {python} - <<'EOF'
  from prompt_tuning import predict
  run = predict.load_run({directory!r})
  print(run.predict(["sentence: The soup was not cold, but the meal was awful."]))
  EOF"""
# As docs/machines/tpu_vm.md has it.
_ON_A_TPU = """\
  {python} -m prompt_tuning.launch.tpu_vm \\
    --project=PROJECT --zone=us-west4-a --name=xxl --topology=v5e:2x4 --spot --dry_run \\
    -- train \\
    --gin_file=models/t5_1_1_xxl_prompt.gin \\
    --gin_file=prompts/from_class_labels.gin \\
    --gin_file=runs/prompt_finetune.gin \\
    --gin.CLASS_LABELS="['positive', 'negative']" \\
    --gin.MODEL_DIR="'gs://BUCKET/xxl'" \\
    --gin.INITIAL_CHECKPOINT_PATH="'gs://t5-data/pretrained_models/t5x/t5_1_1_lm100k_xxl/checkpoint_1100000'" \\
    --gin.MIXTURE_OR_TASK_MODULE="'prompt_tuning.tasks.glue'" \\
    --gin.MIXTURE_OR_TASK_NAME="'taskless_glue_sst2_v200_examples'" \\
    --gin.TASK_FEATURE_LENGTHS="{{'inputs': 512, 'targets': 8}}" \\
    --gin.TRAIN_STEPS=1_130_000 \\
    --tfds_data_dir="gs://BUCKET/tfds\""""


def introduce(
    num_weights: int, checkpoint: str, digest: str, splits: Mapping[str, Sequence[Example]]
) -> None:
    """Prints part 1: the idea, the model and the task."""
    _title("1. A model, and a task that nobody has taught it")
    _say(
        "A language model is a large set of numbers, its weights, found by reading much text. To make"
        " it do a task, one usually goes on training all of them, and keeps a copy of the model for"
        " every task. Prompt tuning leaves the model as it is. It learns a prompt: a few vectors that"
        " are put in front of every input, where the vectors of words would be. They need not be"
        " those of any words."
    )
    _say(
        f"The model: a T5 of {num_weights:,} weights that comes with this package. It has read stories"
        " of a little world that a program made up. The world is synthetic, and so are all figures"
        " below: they show how prompt tuning works, not how well a model understands English."
    )
    _block(f"  {checkpoint}", f"  SHA-256 of its files: {digest[:_DIGITS]}")
    _say(
        f"The task: is a sentence praise or blame? Answer {WORDS[1]!r} or {WORDS[0]!r}. Half of the"
        " adjectives are denied, so that no word tells by itself. There are"
        f" {len(splits['train']):,} sentences to learn from, {len(splits['validation'])} to watch"
        f" progress with, and {len(splits['test'])} for a test, which neither the model nor the"
        " prompt is trained on:"
    )
    _block(*(f"  {example.right:<9} {example.sentence}" for example in splits["test"][:_NUM_SHOWN]))


def show_before(answers: Sequence[str], choice: float, test: Sequence[Example]) -> None:
    """Prints part 2: what the model alone does."""
    _title("2. Before: what the model answers without a prompt")
    _show(answers, test)
    named = sum(example.right in answer for answer, example in zip(answers, test, strict=True))
    _say(
        "It was trained to go on with text, and so it does: nobody has told it that a single word is"
        f" wanted. The right word comes up somewhere in {100 * named / len(test):.0f} % of what it"
        " writes about the test sentences; made to choose one of the two words at once, it is right"
        f" in {choice:.0f} %. So it has learnt from its stories what praise is. What is missing is the"
        " question, and that is what the prompt will be."
    )


def show_plan(arguments: Mapping[str, Any], num_weights: int) -> None:
    """Prints part 3, up to the training.

    Args:
      arguments: Those of `train.train`.
      num_weights: Of the model alone.
    """
    length, width = arguments["model"].prompt.length, arguments["model"].config.emb_dim
    size = length * width
    _title("3. A prompt is tuned; the model is frozen")
    _say(
        f"The prompt: {length} vectors of {width} numbers, {size:,} in all. These alone are trained,"
        f" {100 * size / num_weights:.1f} % as many as the model has weights. They start as the"
        " vectors of words of the vocabulary, the first two as those of the two answers. An update"
        f" reads {arguments['train_dataset_cfg'].batch_size} sentences and moves the {size:,} numbers"
        " a little, so that the right answers become likelier; the weights stay as they are."
        f" {arguments['total_steps']} updates follow. Every {arguments['eval_period']}, the share of"
        " right answers on the validation sentences is shown, in percent:"
    )
    _block()


def show_after(answers: Sequence[str], test: Sequence[Example]) -> None:
    """Prints part 4: what the model does with the prompt."""
    _title("4. After: the same model, with the prompt in front")
    _show(answers, test)


def show_scores(scores: Mapping[str, float], count: int) -> None:
    """Prints part 5: what all of that is worth."""
    _title(f"5. Right answers on the {count} test sentences, in percent")
    _block(*(f"  {name:<40} {score:6.2f}" for name, score in scores.items()))
    _say(
        '"Bag of words" counts the words of a sentence and forgets their order. "All weights tuned" is'
        " the usual way, which changes the whole model."
    )


def show_prompt(near: Sequence[Near]) -> None:
    """Prints part 6: the neighbours of each vector."""
    _title("6. What is in the prompt?")
    _say(
        "Of each of its vectors, the words of the vocabulary whose vectors point most nearly the same"
        " way, and how nearly (cosine distance: 0 is the same direction, 1 a right angle). Pieces of"
        " words are among them. A prompt need not mean anything to a reader."
    )
    _block(
        *(
            f"  vector {row:>2}  {found.first:.2f} to {found.last:.2f}:  {', '.join(found.tokens)}"
            for row, found in enumerate(near)
        )
    )


def show_end(
    directory: str, *, prompt: str, curve: str, digests: tuple[str, str], seconds: float
) -> None:
    """Prints part 7: what there is now, and what to do next.

    Args:
      directory: MODEL_DIR.
      prompt: File of the prompt.
      curve: Picture of the learning curve.
      digests: Of the model's files before and after.
      seconds: What all of it took.
    """
    before, after = digests
    same = "not a byte has changed" if before == after else f"THEY HAVE CHANGED since {before}"
    _title("7. What is left, and what next")
    _block(
        f"The prompt, all that this task needs beside the model ({os.path.getsize(prompt):,} bytes):",
        f"  {prompt}",
        "The learning curve:",
        f"  {curve}",
        "The model:",
        f"  SHA-256 of its files: {after[:_DIGITS]}, {same}",
        f"Took {seconds:.0f} s.",
    )
    python = shlex.quote(sys.executable)
    _say(
        "On a sentence of your own, in words that the model has read (play, meal, book, concert, fair,"
        " journey, party, speech; lovely, awful, funny, dull, bright, clumsy, charming, boring; not,"
        " never, although, but):"
    )
    _block(_OWN_SENTENCE.format(python=python, directory=directory))
    _say(
        "The same with T5 XXL, 11 billion weights that have read real text, on TPUs in your Google"
        " Cloud project. This prints what it would do; docs/machines/launch.md says how to get a"
        " project and a bucket, and what it costs:"
    )
    _block(_ON_A_TPU.format(python=python))


def _show(answers: Sequence[str], test: Sequence[Example]) -> None:
    """Prints the first few answers."""
    lines = []
    for answer, example in list(zip(answers, test, strict=True))[:_NUM_SHOWN]:
        verdict = "right" if answer == example.right else "wrong"
        lines.append(f"  {verdict}  {example.sentence}  ->  {answer!r}")
    _block(*lines)


def _title(text: str) -> None:
    """Prints the heading of a part."""
    _block(f"=== {text}")


def _say(text: str) -> None:
    """Prints a paragraph."""
    _block(textwrap.fill(text, _COLUMNS))


def _block(*lines: str) -> None:
    """Prints lines behind an empty one."""
    print("", *lines, sep="\n", flush=True)
