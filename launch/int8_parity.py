"""What int8 costs: losses and tuned scores with frozen weights held as float32, bfloat16 and int8.

Run `prompt-tuning demo --dir=/tmp/demo`, then

    python -m prompt_tuning.launch.int8_parity --demo=/tmp/demo --dir=/tmp/int8

It prints two tables in Markdown: losses of the same weights in each form, and what prompts reach that are tuned on
each of them.
"""

import argparse
import importlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import quantization, tree
from prompt_tuning.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.t5 import T5
from prompt_tuning.prompts.prompt import PROMPT_PATH
from prompt_tuning.types import Array, Params

_EMBEDDING, _HEAD = "token_embedder/embedding", "decoder/logits_dense/kernel"
_PAIR = "yes_no"
_DTYPES = ("float32", "bfloat16", "int8")
# The sizes of the model that the golden tests compare with T5X.
_TINY = T5Config(
    vocab_size=256,
    emb_dim=32,
    num_heads=4,
    num_encoder_layers=2,
    num_decoder_layers=2,
    head_dim=8,
    mlp_dim=64,
    dtype="float32",
)

Form = Callable[[Mapping[str, Array]], dict[str, Array]]


def forms() -> dict[str, Form]:
    """Returns name -> function that brings frozen parameters (path -> float32 array) to a form."""
    return {
        "float32": lambda params: quantization.hold(params, "float32"),
        "bfloat16": lambda params: quantization.hold(params, "bfloat16"),
        "int8": lambda params: quantization.hold(params, "int8"),
        "int8, the head in bfloat16": _with_float_head,
        "int8, the embedding too": _with_rounded_embedding,
    }


def _with_float_head(params: Mapping[str, Array]) -> dict[str, Array]:
    """The output head stays as it is in bfloat16."""
    held = quantization.hold(params, "int8")
    del held[quantization.scale_path(_HEAD)]
    return {**held, _HEAD: params[_HEAD].astype(jnp.bfloat16)}


def _with_rounded_embedding(params: Mapping[str, Array]) -> dict[str, Array]:
    """The embedding table, too, has the values that int8 with a scale for each row leaves."""
    whole, scale = quantization.quantize("embedding/kernel", params[_EMBEDDING].T)
    return {
        **quantization.hold(params, "int8"),
        _EMBEDDING: (jnp.asarray(whole, jnp.float32) * scale[None]).T,
    }


def tiny_losses(num_models: int = 8) -> dict[str, dict[str, float]]:
    """Returns what each form does to models of random weights: their mean loss, and the change of their logits.

    Args:
      num_models: Models, each with weights and a batch of its own.
    """
    model = EncoderDecoderModel(T5(_TINY), None, None)
    rng = np.random.default_rng(0)
    apply = jax.jit(model.apply)
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in forms()}
    for seed in range(num_models):
        ids = [jnp.asarray(rng.integers(3, 256, (8, n)), jnp.int32) for n in (32, 8)]
        names = ("encoder_input_tokens", "decoder_input_tokens", "decoder_target_tokens")
        batch = dict(zip(names, (ids[0], ids[1], ids[1]), strict=True))
        params = tree.flatten(model.init(jax.random.key(seed)))
        reference = apply(tree.unflatten(params), batch)
        for name, form in forms().items():
            logits = apply(tree.unflatten(form(params)), batch)
            chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[1][..., None], axis=-1)
            change = jnp.linalg.norm(logits - reference) / jnp.linalg.norm(reference)
            rows[name].append((-float(chosen.mean()), float(change)))
    return {
        name: {
            "loss": float(np.mean(rows[name], axis=0)[0]),
            "change": float(np.max(rows[name], axis=0)[1]),
        }
        for name in rows
    }


class Demo:
    """The demo's data and model.

    Args:
      folder: What `prompt-tuning demo --dir` has left.
    """

    def __init__(self, folder: pathlib.Path):
        """Generates the development sentences."""
        self.folder = folder
        self.reviews = importlib.import_module("prompt_tuning.tasks.demo_reviews")
        self.rows = self.reviews.sentences("validation")
        self.words = self.reviews.PAIRS[_PAIR]
        self.targets = [self.words[0] if label else self.words[1] for _, label in self.rows]

    def evaluate(self, run: Any, params: Params, phrase: str) -> dict[str, float]:
        """Returns the loss (nats an example) and the accuracy (percent) on the development sentences."""
        import dataclasses

        run = dataclasses.replace(run, params=params)
        inputs = [f"{phrase} {sentence}" for sentence, _ in self.rows]
        answers = run.predict(inputs)
        right = [a == b for a, b in zip(answers, self.targets, strict=True)]
        loss = -float(np.mean(run.score(inputs, self.targets)))
        return {"loss": loss, "accuracy": 100 * float(np.mean(right))}

    def losses(self) -> dict[str, dict[str, float]]:
        """Returns what each form does to the demo's model, which is told the words to answer with."""
        from prompt_tuning import predict

        run = predict.load_run(str(self.folder / "model"), batch_size=40)
        params = tree.flatten(run.params)
        phrase = f"answer {self.words[0]} or {self.words[1]}:"
        return {
            name: self.evaluate(run, tree.unflatten(form(params)), phrase)
            for name, form in forms().items()
        }

    def tune(self, dtype: str, seed: int, model_dir: pathlib.Path) -> None:
        """Tunes a prompt on the demo's model held as `dtype`."""
        from prompt_tuning import config, train

        checkpoint = max((self.folder / "model").glob("checkpoint_*"))
        settings = {
            "MODEL_DIR": str(model_dir),
            "VOCABULARY_FILE": str(self.folder / "vocabulary.model"),
            "INITIAL_CHECKPOINT_PATH": str(checkpoint),
            "MIXTURE_OR_TASK_NAME": f"demo_reviews_{_PAIR}",
            "CLASS_LABELS": [self.words[1], self.words[0]],
            "RANDOM_SEED": seed,
            "utils.RestoreCheckpointConfig.dtype": dtype,
        }
        bindings = [
            (f"{name} = {value!r}", f"--gin.{name}={value!r}") for name, value in settings.items()
        ]
        parsed = config.read(["prompt_tuning/configs/demo/prompt.gin"], bindings, [])
        config.resolve(parsed, train.train, command="train").run()

    def tuned(
        self, seeds: Sequence[int], folder: pathlib.Path
    ) -> dict[str, list[dict[str, float]]]:
        """Returns what prompts of each seed reach, by the form of the weights that they are tuned on."""
        from prompt_tuning import predict

        results: dict[str, list[dict[str, float]]] = {}
        for seed in seeds:
            for dtype in _DTYPES:
                model_dir = folder / f"{dtype}_{seed}"
                self.tune(dtype, seed, model_dir)
                run = predict.load_run(str(model_dir), batch_size=40)
                row = self.evaluate(run, run.params, "sentence:")
                results.setdefault(dtype, []).append(row)
                if dtype == "float32":
                    flat = tree.flatten(run.params)
                    prompt = {PROMPT_PATH: flat.pop(PROMPT_PATH)}
                    params = tree.unflatten({**quantization.hold(flat, "int8"), **prompt})
                    row = self.evaluate(run, params, "sentence:")
                    results.setdefault("float32, used on int8", []).append(row)
        return results


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--demo", type=pathlib.Path, required=True, help="a finished demo's folder")
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=2, help="prompts tuned on each form")
    flags = parser.parse_args(argv)
    demo = Demo(flags.demo)
    tiny, losses = tiny_losses(), demo.losses()
    print(
        "\n| weights | tiny: loss | change of logits | demo: loss | accuracy |\n|---|---|---|---|---|"
    )
    for name, row in losses.items():
        print(
            f"| {name} | {tiny[name]['loss']:.5f} | {tiny[name]['change']:.2%} |"
            f" {row['loss']:.5f} | {row['accuracy']:.2f} |",
            flush=True,
        )
    print("\n| tuned on | loss | accuracy |\n|---|---|---|")
    for name, rows in demo.tuned(range(flags.seeds), flags.dir).items():
        cells = [
            ", ".join(f"{r[k]:.{n}f}" for r in rows) for k, n in (("loss", 4), ("accuracy", 2))
        ]
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
