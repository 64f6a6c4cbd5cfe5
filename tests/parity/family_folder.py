"""What the modules that read reference numbers of adapters and other tuned parts share: one case, and its rows.

`case_rows` compares our model of a case with the numbers that other programs computed; `read_back` has PEFT compute
them once more from what is written here.
"""

import importlib.util
import json
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_tuning import tree
from prompt_tuning.data.vocabularies import EOS_ID
from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.training.losses import token_cross_entropy
from tests.parity.rows import NotChecked, Row, largest, of_maximum

LOGITS = 1e-4
LOSS = 1e-5
# Of the largest entry of a case's gradients.
GRADIENT = 1e-5
# Two programs may choose between tokens whose logits are this close.
MARGIN = 1e-3


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a file."""
    with np.load(path) as file:
        return dict(file)


def features(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns our features of the inputs and the targets in a file."""
    ids, labels = arrays["input_ids"], arrays["labels"]
    is_real = labels != -100
    named = {
        "encoder_input_tokens": np.where(arrays.get("attention_mask", ids) != 0, ids, 0),
        "decoder_input_tokens": arrays["decoder_input_ids"],
        "decoder_target_tokens": np.where(is_real, labels, 0),
        "decoder_loss_weights": is_real,
    }
    return {name: x.astype(np.int32) for name, x in named.items()}


def gated_model(directory: pathlib.Path) -> pathlib.Path | None:
    """Returns the folder of the T5 1.1 that the cases without a model of their own were computed with."""
    for path in sorted((directory / "A_peft").glob("*/config.json")):
        if json.loads(path.read_text(encoding="utf-8"))["feed_forward_proj"].startswith("gated"):
            return path.parent
    return None


def case_rows(
    name: str,
    model: EncoderDecoderModel,
    params: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    *,
    gradients: Mapping[str, np.ndarray],
    batch: Mapping[str, np.ndarray] | None = None,
    greedy: Sequence[str] = ("greedy_generate", "greedy_forward"),
    gradient: float = GRADIENT,
) -> Iterator[Row]:
    """Yields the rows of one case: logits, loss, gradients and greedy tokens, of these what there is.

    Args:
      name: `family/SUB-FOLDER/CASE`.
      model: Our model, with what is tuned.
      params: Path -> parameter, the tuned ones included.
      arrays: What other programs computed.
      gradients: Path -> gradient there, in the shape that the parameter has here.
      batch: Our features; None for `features(arrays)`.
      greedy: Arrays of tokens that decoding here has to give; `greedy_generate` begins with the start token.
      gradient: Tolerance of the gradients.
    """
    batch = dict(batch or features(arrays))
    trained = {path: jnp.asarray(params[path]) for path in gradients}
    loss, logits, ours = loss_and_gradients(model, dict(params), trained, batch)
    real = batch["decoder_loss_weights"] != 0
    yield Row(f"{name}/logits", largest(logits[real], arrays["logits"][real]), LOGITS)
    yield Row(f"{name}/loss", largest(loss, arrays["loss"]), LOSS)
    if gradients:
        assert set(ours) == set(gradients)
        measured = of_maximum(*(joined(arrays) for arrays in (ours, gradients)))
        note = f"{len(gradients)} arrays, as a share of the largest entry"
        yield Row(f"{name}/gradients", measured, gradient, "relative", note)
    theirs = {n: arrays[n][:, n == "greedy_generate" :] for n in greedy if n in arrays}
    if theirs:
        steps = max(x.shape[1] for x in theirs.values())
        predict = jax.jit(lambda params, batch: model.predict(params, batch, steps)[0])
        tokens = np.asarray(predict(_nested(params), batch))
        for key, expected in theirs.items():
            margin = arrays.get(f"{key}_margin", arrays.get("greedy_forward_margin"))
            wrong, number = _differing_tokens(tokens[: len(expected)], expected, margin)
            yield Row(f"{name}/{key}", wrong, 0, "count", f"{number} tokens")


def joined(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns all numbers of some arrays."""
    return np.concatenate([np.ravel(x) for _, x in sorted(arrays.items())])


def _nested(params: Mapping[str, Any]) -> dict[str, Any]:
    return tree.unflatten(dict(params))


def loss_and_gradients(
    model: EncoderDecoderModel, params: dict, trained: dict, batch: dict
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """Returns loss, logits [B, T, V] and the gradient of what is `trained`, by path."""

    def loss_fn(trained, params, batch):
        logits = model.apply(_nested({**params, **trained}), batch)
        weights = jnp.asarray(batch["decoder_loss_weights"], jnp.float32)
        losses, _ = token_cross_entropy(logits, batch["decoder_target_tokens"])
        return jnp.sum(losses * weights) / jnp.sum(weights), logits

    call = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))
    (loss, logits), gradients = call(trained, params, batch)
    return np.asarray(loss), np.asarray(logits), {p: np.asarray(x) for p, x in gradients.items()}


def _differing_tokens(
    ours: np.ndarray, theirs: np.ndarray, margin: np.ndarray | None
) -> tuple[int, int]:
    """How many tokens differ, and of how many: of each row up to its end or to a choice too close to compare."""
    length = theirs.shape[1]
    is_open = np.ones_like(theirs, bool)
    is_open[:, 1:] = np.cumprod(theirs[:, :-1] != EOS_ID, axis=1).astype(bool)
    if margin is not None:
        is_clear = np.ones_like(theirs, bool)
        is_clear[:, : margin.shape[1]] = margin[:, :length] >= MARGIN
        is_open &= np.cumprod(is_clear, axis=1).astype(bool)
    return int((ours[:, :length] != theirs)[is_open].sum()), int(is_open.sum())


def read_back(
    name: str,
    base: pathlib.Path,
    arrays: Mapping[str, np.ndarray],
    write: Callable[[pathlib.Path], None],
) -> Iterator[Row | NotChecked]:
    """Yields the row of an adapter that is written here and read by PEFT, against what PEFT computed before.

    Args:
      name: `family/SUB-FOLDER/CASE`.
      base: The folder of the model.
      arrays: What PEFT computed with its own adapter.
      write: Writes the adapter into a folder that does not exist yet.
    """
    if importlib.util.find_spec("peft") is None:
        yield NotChecked(f"{name.removeprefix('family/')}/written here", "PEFT is not installed")
        return
    import peft
    import torch

    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "adapter"
        write(target)
        adapted = peft.PeftModel.from_pretrained(their_model(base), str(target)).eval()
        # PEFT drops the decoder's inputs of prompts of tasks, and makes them of the labels.
        of_tasks = ("labels", "task_ids") if "task_ids" in arrays else ("decoder_input_ids",)
        names = ("input_ids", "attention_mask", *of_tasks)
        given = {key: torch.from_numpy(arrays[key]).long() for key in names}
        with torch.no_grad():
            logits = adapted(**given).logits.numpy()
    real = arrays["labels"] != -100
    difference = largest(logits[real], arrays["logits"][real])
    yield Row(f"{name}/logits of PEFT from what is written here", difference, LOGITS)


def their_model(base: pathlib.Path) -> Any:
    """Returns the transformers library's model of a folder, with the head that the file has."""
    import safetensors.torch
    import torch
    import transformers

    config = transformers.T5Config.from_pretrained(base)
    model = transformers.T5ForConditionalGeneration(config)
    weights = safetensors.torch.load_file(base / "model.safetensors")
    if "lm_head.weight" in weights:
        # transformers 5 ties every head while it loads a folder.
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(weights["lm_head.weight"]))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and all("embed_tokens" in n or n == "lm_head.weight" for n in missing)
    return model.eval()
