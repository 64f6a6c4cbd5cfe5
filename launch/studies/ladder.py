"""Rebuilds the ladder: text, vocabulary, and small T5s that are pre-trained and LM-adapted on it.

    python -m prompt_tuning.launch.studies.ladder --output_dir=/path/ladder --prose '/path/text/*.txt' \
        [--rungs pico nano]

1. `text/`: paragraphs of the synthetic world (`prompt_tuning.data.synthetic.corpus`) mixed with prose, public-domain
   books for example, as one document a line; for training, and held out.
2. `vocabulary.model`: a SentencePiece model trained on it.
3. `{rung}/pretrained/` and `{rung}/adapted/`: runs of configs/ladder/{rung}.gin with pretrain.gin and adapt.gin. The
   adaptation keeps the checkpoints on its way: each is what a shorter adaptation leaves.
4. `{rung}/rung.json`: seeds, configs, steps, held-out losses and digests of every checkpoint.

What is finished is not made again, and a run that was interrupted goes on where it stopped.
"""

import argparse
import dataclasses
import itertools
import json
import math
import time
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from prompt_tuning import train, tree
from prompt_tuning.checkpoints import digest, paths
from prompt_tuning.checkpoints.config import RestoreCheckpointConfig
from prompt_tuning.config import files as config_files
from prompt_tuning.config import resolve as config
from prompt_tuning.data import content, context, home
from prompt_tuning.data.synthetic import corpus
from prompt_tuning.data.text import text_files
from prompt_tuning.data.text.train_vocabulary import train_vocabulary
from prompt_tuning.run import start
from prompt_tuning.run.evaluators import TeacherForcingEval

_FOLDER = "prompt_tuning/configs/ladder"
_OBJECTIVES = {"pretrain": "span_corruption", "adapt": "prefix_lm"}
_LOSS = "loss_per_nonpadding_target_token"
_EMBEDDINGS = (".*token_embedder.*", ".*logits_dense.*")
# The asterisks around a pronoun of WSC, which the text need not hold.
_MORE_CHARACTERS = "*"


@dataclasses.dataclass(frozen=True)
class Rung:
    """How long one size is trained.

    Attributes:
      name: Of its gin file.
      pretrain_steps: Updates of pre-training.
      adapt_steps: Updates of LM adaptation, a tenth as many as in the paper.
      adapt_stops: Checkpoints of the adaptation, evenly spaced.
    """

    name: str
    pretrain_steps: int = 12_000
    adapt_steps: int = 1_200
    adapt_stops: int = 10


# All see the same text in the same order: they differ in size alone.
RUNGS = {name: Rung(name) for name in ("pico", "nano", "micro", "mini")}


@dataclasses.dataclass(frozen=True)
class Text:
    """What the ladder is trained on.

    Attributes:
      num_paragraphs: Paragraphs about the synthetic world for training.
      num_held_out: The same, held out.
      prose_share: Documents of prose for each paragraph.
      vocab_size: Pieces of the vocabulary.
      vocab_documents: Documents that the vocabulary is trained on.
      seed: Of worlds and order.
    """

    num_paragraphs: int = 200_000
    num_held_out: int = 2_000
    prose_share: float = 0.1
    vocab_size: int = 1_948
    vocab_documents: int = 60_000
    seed: int = 0


def main(argv: Sequence[str] | None = None) -> None:
    """Makes what is missing."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--output_dir", required=True, type=lambda text: epath.Path(home.expand(text))
    )
    parser.add_argument("--prose", nargs="*", default=[], help="paths or globs of plain text")
    parser.add_argument("--rungs", nargs="*", default=list(RUNGS), choices=list(RUNGS))
    flags = parser.parse_args(argv)
    inputs = make_text(flags.output_dir, Text(), flags.prose)
    for name in flags.rungs:
        make_rung(flags.output_dir, RUNGS[name], inputs)


def make_text(output_dir: epath.PathLike, text: Text, prose: Sequence[str]) -> dict[str, Any]:
    """Returns what `text.json` records of text and vocabulary, after making what is missing.

    Args:
      output_dir: Folder of the ladder.
      text: How much.
      prose: Paths or globs of plain text; a file of the same name and content makes the same text wherever it lies.
    """
    output_dir = epath.Path(output_dir)
    record = output_dir / "text.json"
    if record.exists():
        return json.loads(record.read_text())
    began = time.perf_counter()
    print("Writing the text", flush=True)
    files = corpus.write(
        output_dir / "text",
        {"train": text.num_paragraphs, "validation": text.num_held_out},
        prose=prose,
        prose_share=text.prose_share,
        seed=text.seed,
    )
    print("Training the vocabulary", flush=True)
    documents = text_files.read_documents(str(files["train"]), "text")
    sample = itertools.islice(documents, text.vocab_documents)
    files["vocabulary"] = train_vocabulary(
        output_dir / "vocabulary.model",
        itertools.chain(sample, [_MORE_CHARACTERS]),
        vocab_size=text.vocab_size,
    )
    made = {
        **dataclasses.asdict(text),
        "prose": [epath.Path(path).name for path in text_files.find_files(prose)] if prose else [],
        "files": {name: str(path) for name, path in files.items()},
        "sha256": {name: content.of_bytes(path.read_bytes()) for name, path in files.items()},
        "seconds": round(time.perf_counter() - began),
    }
    record.write_text(json.dumps(made, indent=1) + "\n")
    return made


def make_rung(
    output_dir: epath.PathLike, rung: Rung, inputs: dict[str, Any], **macros: Any
) -> dict[str, Any]:
    """Returns what `rung.json` records, after pre-training and adapting the rung if that is not done.

    Args:
      output_dir: Folder of the ladder.
      rung: Which, and how long.
      inputs: From `make_text`.
      **macros: More gin macros of both runs.
    """
    directory = epath.Path(output_dir) / rung.name
    record = directory / "rung.json"
    if record.exists():
        return json.loads(record.read_text())
    files = inputs["files"]
    common = {
        "VOCABULARY_FILE": files["vocabulary"],
        "TRAIN_TEXT": files["train"],
        "VALIDATION_TEXT": files["validation"],
        **macros,
    }
    pretrained, adapted = directory / "pretrained", directory / "adapted"
    checkpoint = pretrained / f"{paths.STEP_PREFIX}{rung.pretrain_steps}"
    runs: dict[str, dict[str, Any]] = {
        "pretrain": {"MODEL_DIR": str(pretrained), "TRAIN_STEPS": rung.pretrain_steps},
        "adapt": {
            "MODEL_DIR": str(adapted),
            "TRAIN_STEPS_RELATIVE": rung.adapt_steps,
            "INITIAL_CHECKPOINT_PATH": str(checkpoint),
            "utils.SaveCheckpointConfig.period": rung.adapt_steps // rung.adapt_stops,
            "utils.SaveCheckpointConfig.keep": None,
        },
    }
    made: dict[str, Any] = {**dataclasses.asdict(rung), "sha256": inputs["sha256"]}
    for stage, more in runs.items():
        print(f"\n=== {rung.name}: {stage}", flush=True)
        began = time.perf_counter()
        resolve(rung.name, stage, {**common, **more}).run()
        made[stage] = {"seconds_of_last_start": round(time.perf_counter() - began)}
    checkpoints = [checkpoint]
    checkpoints += [adapted / f"{paths.STEP_PREFIX}{step}" for step in paths.steps_in(adapted)]
    for stage, more in runs.items():
        arguments = resolve(rung.name, stage, {**common, **more}).arguments()
        made[stage]["config"] = (epath.Path(more["MODEL_DIR"]) / "config.gin").read_text()
        made.setdefault("params", _count(arguments["model"]))
        for path in checkpoints:
            scores = measure(arguments, path, directory / "held_out")
            kept = made.setdefault("checkpoints", {}).setdefault(
                str(path.relative_to(directory)), {}
            )
            kept["digest"] = scores.pop("digest")
            kept[f"held_out_{_OBJECTIVES[stage]}_loss"] = scores.pop(_LOSS)
    made["jax"] = jax.__version__
    record.write_text(json.dumps(made, indent=1) + "\n")
    print(json.dumps(made["checkpoints"], indent=1), flush=True)
    return made


def resolve(rung: str, stage: str, macros: dict[str, Any]) -> Any:
    """Returns the run of a stage, as `prompt-tuning train` would resolve it.

    Args:
      rung: Name of a rung's gin file.
      stage: "pretrain" or "adapt".
      macros: Gin macros and bindings.
    """
    bindings = [
        (f"{name} = {value!r}", f"--gin.{name}={value!r}") for name, value in macros.items()
    ]
    parsed = config_files.read([f"{_FOLDER}/{rung}.gin", f"{_FOLDER}/{stage}.gin"], bindings, [])
    return config.resolve(parsed, train.train, command="train")


def measure(
    arguments: dict[str, Any], checkpoint: epath.PathLike, log_dir: epath.Path
) -> dict[str, Any]:
    """Returns the held-out loss per token and the digest of the weights of a checkpoint.

    Args:
      arguments: Of the run whose objective is measured.
      checkpoint: Its path.
      log_dir: Where TensorBoard's files go.
    """
    model, partitioner = arguments["model"], arguments["partitioner"]
    cfg = arguments["train_eval_dataset_cfg"]
    context.set_context(vocabulary=model.output_vocabulary, data_dir=None)
    restore = RestoreCheckpointConfig(path=str(checkpoint), mode="specific", dtype="float32")
    loaded = start.load_for_inference(model, partitioner, restore)
    scores = TeacherForcingEval(
        model, cfg, partitioner, log_dir, arguments["eval_steps"], before_batch=None
    )
    try:
        (tags,) = scores.run(loaded.params, loaded.step).values()
    finally:
        scores.close()
    return {_LOSS: tags[_LOSS], "digest": digest.params_digest(tree.flatten(loaded.params))}


def _count(model: Any) -> dict[str, int]:
    """How many parameters there are, in all and beside the embeddings."""
    is_embedding = tree.match_any(_EMBEDDINGS)
    sizes = {path: math.prod(leaf.shape) for path, leaf in model.param_shapes.items()}
    body = sum(size for path, size in sizes.items() if not is_embedding(path))
    return {"all": sum(sizes.values()), "non_embedding": body}


if __name__ == "__main__":
    main()
