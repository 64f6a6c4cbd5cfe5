"""What int8 costs: losses and tuned scores with frozen weights held as float32, bfloat16 and int8.

    python -m prompt_tuning.launch.studies.int8_parity --checkpoint=/path/ladder/mini/adapted/checkpoint_1200 \
        --dir=/tmp/int8

It tunes prompts for the demo's task on the rung "mini", as `launch/studies/ladder.py` leaves it in float32; what
ships is in bfloat16. It prints two tables in Markdown: losses of the same weights and prompt in each form, and what
prompts reach that are tuned on each of them.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.commands.demo import command, measuring
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5 import T5
from prompt_tuning.params import int8
from prompt_tuning.params.names import PROMPT_PATH
from prompt_tuning.types import Array, Params

_EMBEDDING, _HEAD = "token_embedder/embedding", "decoder/logits_dense/kernel"
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
        "float32": lambda params: int8.hold(params, "float32"),
        "bfloat16": lambda params: int8.hold(params, "bfloat16"),
        "int8": lambda params: int8.hold(params, "int8"),
        "int8, the head in bfloat16": _with_float_head,
        "int8, the embedding too": _with_rounded_embedding,
    }


def _with_float_head(params: Mapping[str, Array]) -> dict[str, Array]:
    """The output head stays as it is in bfloat16."""
    held = int8.hold(params, "int8")
    del held[int8.scale_path(_HEAD)]
    return {**held, _HEAD: params[_HEAD].astype(jnp.bfloat16)}


def _with_rounded_embedding(params: Mapping[str, Array]) -> dict[str, Array]:
    """The embedding table, too, has the values that int8 with a scale for each row leaves."""
    whole, scale = int8.quantize("embedding/kernel", params[_EMBEDDING].T)
    return {
        **int8.hold(params, "int8"),
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


class Rung:
    """A rung of the ladder and the demo's task.

    Args:
      checkpoint: The rung "mini", in float32.
    """

    def __init__(self, checkpoint: str):
        """Generates the test sentences."""
        self.checkpoint = checkpoint
        self.examples = measuring.read_splits()["test"]

    def evaluate(self, run: Any, params: Params) -> dict[str, float]:
        """Returns the loss (nats an example) and the accuracy (percent) on the test sentences."""
        run = dataclasses.replace(run, params=params)
        targets = [example.right for example in self.examples]
        loss = -float(np.mean(run.score(measuring.inputs_of(self.examples), targets)))
        answers = measuring.answers(run, self.examples)
        return {"loss": loss, "accuracy": measuring.accuracy(answers, self.examples)}

    def losses(self, run: Any) -> dict[str, dict[str, float]]:
        """Returns what each form does to the model with a tuned prompt, which stays in float32."""
        flat = tree.flatten(run.params)
        prompt = {PROMPT_PATH: flat.pop(PROMPT_PATH)}
        return {
            name: self.evaluate(run, tree.unflatten({**form(flat), **prompt}))
            for name, form in forms().items()
        }

    def tune(self, dtype: str, seed: int, model_dir: pathlib.Path) -> Any:
        """Tunes a prompt on the model held as `dtype`; returns the loaded run."""
        from prompt_tuning import predict, train
        from prompt_tuning.config import files, resolve

        settings = {
            "MODEL_DIR": str(model_dir),
            "INITIAL_CHECKPOINT_PATH": self.checkpoint,
            "RANDOM_SEED": seed,
            "EVAL_PERIOD": 100,
            "utils.RestoreCheckpointConfig.dtype": dtype,
        }
        bindings = [
            (f"{name} = {value!r}", f"--gin.{name}={value!r}") for name, value in settings.items()
        ]
        parsed = files.read([command.CONFIG], bindings, [])
        resolve.resolve(parsed, train.train, command="train").run()
        return predict.load_run(str(model_dir), batch_size=measuring.BATCH_SIZE)

    def tuned(
        self, seeds: Sequence[int], folder: pathlib.Path
    ) -> tuple[dict[str, dict[str, float]], dict[str, list[dict[str, float]]]]:
        """Returns `losses` with the first prompt, and what prompts of each seed reach by the form they are tuned on."""
        losses: dict[str, dict[str, float]] = {}
        results: dict[str, list[dict[str, float]]] = {}
        for seed in seeds:
            for dtype in _DTYPES:
                run = self.tune(dtype, seed, folder / f"{dtype}_{seed}")
                results.setdefault(dtype, []).append(self.evaluate(run, run.params))
                if dtype == "float32":
                    forms_of_run = self.losses(run)
                    losses = losses or forms_of_run
                    results.setdefault("float32, used on int8", []).append(forms_of_run["int8"])
        return losses, results


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help='the rung "mini", adapted, in float32')
    parser.add_argument("--dir", type=pathlib.Path, required=True, help="folder for the runs")
    parser.add_argument("--seeds", type=int, default=2, help="prompts tuned on each form")
    flags = parser.parse_args(argv)
    tiny = tiny_losses()
    losses, tuned = Rung(flags.checkpoint).tuned(range(flags.seeds), flags.dir)
    print(
        "\n| weights | tiny: loss | change of logits | mini: loss | accuracy |\n|---|---|---|---|---|"
    )
    for name, row in losses.items():
        print(
            f"| {name} | {tiny[name]['loss']:.5f} | {tiny[name]['change']:.2%} |"
            f" {row['loss']:.5f} | {row['accuracy']:.2f} |",
            flush=True,
        )
    print("\n| tuned on | loss | accuracy |\n|---|---|---|")
    for name, rows in tuned.items():
        cells = [
            ", ".join(f"{r[k]:.{n}f}" for r in rows) for k, n in (("loss", 4), ("accuracy", 2))
        ]
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
