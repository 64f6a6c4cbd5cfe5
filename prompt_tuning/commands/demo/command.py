"""The command `prompt-tuning demo`: tunes a prompt for a small T5 that ships with the package, and explains it."""

import os
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from prompt_tuning import ladder
from prompt_tuning.commands.demo import measuring, story
from prompt_tuning.config.flags import binding, command_parser
from prompt_tuning.data import content
from prompt_tuning.errors import ConfigError

CONFIG = "prompt_tuning/configs/demo/prompt.gin"
CURVE = "learning_curve.png"
# Accuracy on the test split, in percent, of what `tests/data/synthetic/bag_of_words.py` and `configs/demo/model.gin`
# train.
BAG_OF_WORDS = 50.7
MODEL_TUNING = 100.0


def main(argv: Sequence[str]) -> None:
    """Runs the demo: nothing is downloaded; takes about two minutes on two CPU cores.

    Args:
      argv: Flags.

    Raises:
      ConfigError: If the folder holds files of something else.
    """
    parser = command_parser("demo", __doc__)
    parser.add_argument("--dir", help="folder for everything the demo makes (default: a new one)")
    flags = parser.parse_args(list(argv))
    # TensorFlow only reads data here; its own start-up notes would bury the demo's output.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    directory = os.path.abspath(flags.dir or tempfile.mkdtemp(prefix="prompt-tuning-demo-"))
    _check_empty(directory)
    # SeqIO's advice on caching is for tasks that are read from disk.
    logging.set_verbosity(logging.ERROR)
    run(directory)


def run(directory: str, **macros: Any) -> None:
    """Tells what prompt tuning is while it does it.

    Args:
      directory: A new or empty folder: MODEL_DIR of the run, and where the learning curve goes.
      **macros: Macros of the demo's gin file that are to have other values.
    """
    began = time.perf_counter()
    from prompt_tuning import predict, train
    from prompt_tuning.config import files, resolve

    settings = {**macros, "MODEL_DIR": directory}
    bindings = [binding(f"--gin.{name}={value!r}") for name, value in settings.items()]
    resolved = resolve.resolve(files.read([CONFIG], bindings, []), train.train, command="train")
    arguments = resolved.arguments()
    checkpoint = ladder.locate(arguments["checkpoint_cfg"].restore.path)
    digest = content.of_folder(checkpoint, content.WHOLE_BYTES)
    splits = measuring.read_splits()
    dev, test = splits["validation"], splits["test"]

    untuned = measuring.load_untuned(arguments)
    num_weights = measuring.num_params(untuned)
    story.tell(
        1,
        num_weights=num_weights,
        checkpoint=checkpoint,
        digest=digest,
        words=measuring.WORDS,
        **{f"num_{split}": len(examples) for split, examples in splits.items()},
        examples=story.examples(test),
    )
    before = measuring.answers(untuned, test)
    choice = measuring.accuracy(measuring.choices(untuned, test), test)
    named = measuring.naming(before, test)
    story.tell(2, answers=story.answers(before, test), named=named, choice=choice)

    length, width = arguments["model"].prompt.length, arguments["model"].config.emb_dim
    size = length * width
    share = 100 * size / num_weights
    story.tell(3, length=length, width=width, size=size, share=share, arguments=arguments)
    print(flush=True)
    resolved.run()

    tuned = predict.load_run(directory, batch_size=measuring.BATCH_SIZE)
    after = measuring.answers(tuned, test)
    story.tell(4, answers=story.answers(after, test))
    scores = {
        "the model alone": measuring.accuracy(before, test),
        "the model alone, made to choose a word": choice,
        "always the more frequent answer": measuring.majority(test),
        "bag of words (measured before)": BAG_OF_WORDS,
        "all weights tuned (measured before)": MODEL_TUNING,
        "the model with the tuned prompt": measuring.accuracy(after, test),
    }
    lines = (f"{name:<40} {score:6.2f}" for name, score in scores.items())
    story.tell(5, num_test=len(test), scores=story.block(lines))
    story.tell(6, vectors=story.block(measuring.neighbours_of_prompt(tuned)))

    start = measuring.accuracy(measuring.answers(untuned, dev), dev)
    curve = os.path.join(directory, CURVE)
    _draw_curve({0: start, **measuring.recorded(directory)}, measuring.majority(dev), curve)
    _tell_what_is_left(directory, tuned.step, curve, checkpoint, digest, began)


def _tell_what_is_left(
    directory: str, step: int, curve: str, checkpoint: str, digest: str | None, began: float
) -> None:
    """Prints the last part; `digest` is what the checkpoint's files had before, `began` when the demo did."""
    prompt = f"{directory}/numpy_checkpoints/checkpoint_{step}/encoder.prompt.prompt.prompt"
    after = content.of_folder(checkpoint, content.WHOLE_BYTES)
    story.tell(
        7,
        prompt=prompt,
        prompt_bytes=os.path.getsize(prompt),
        curve=curve,
        digest=after,
        changed="not a byte has changed"
        if after == digest
        else f"THEY HAVE CHANGED since {digest}",
        seconds=time.perf_counter() - began,
        python=shlex.quote(sys.executable),
        directory=directory,
    )


def _check_empty(directory: str) -> None:
    """Refuses a folder that already holds something: a stale run would be resumed."""
    if os.path.isdir(directory) and os.listdir(directory):
        raise ConfigError(
            "The demo's folder is not empty",
            got=directory,
            expected="a new or empty folder",
            fix="name another with --dir, or leave the flag out",
        )


def _draw_curve(accuracies: Mapping[int, float], majority: float, path: str) -> None:
    """Writes the learning curve; step 0 is the model without a prompt."""
    from matplotlib.figure import Figure

    from prompt_tuning.commands.inspect import pictures

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(list(accuracies), list(accuracies.values()), "o-", color="#0072B2", label="prompt")
    axes.axhline(majority, color="#999999", linestyle=":", label="always the more frequent answer")
    axes.set(
        xlabel="updates of the prompt (0: the model without a prompt)",
        ylabel="right answers on validation, %",
        ylim=(-3, 103),
    )
    axes.set_title("A prompt for a frozen T5, synthetic sentiment", fontsize="medium")
    axes.legend(loc="lower right")
    pictures.write(figure, path)
