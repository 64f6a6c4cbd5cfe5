"""T-Few's pre-trained (IA)3 vectors, as read here, against what was measured of the file; and how many there are."""

import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from prompt_tuning import tree
from prompt_tuning.checkpoints.formats import huggingface
from prompt_tuning.checkpoints.method_files.method_set import MethodSet
from prompt_tuning.checkpoints.method_files.read import read_set
from prompt_tuning.models.config import T5Config
from prompt_tuning.models.methods.ia3 import IA3
from prompt_tuning.models.t5 import T5
from prompt_tuning.params.names import is_method
from tests.parity.rows import NotChecked, Row, largest

_LOSSES = "tfew_losses.json"
_ENDING = ".multi_lora_b"


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields the rows of every file of vectors, `NAME.pt` with `NAME.json` beside it, and of every count."""
    del vocabulary
    for described in sorted(directory.glob("*.json")):
        weights = described.with_suffix(".pt")
        if not weights.is_file():
            continue
        facts = json.loads(described.read_text(encoding="utf-8"))
        if "tensors" in facts and "num_parameters" in facts:
            yield from _vectors(weights, facts)
    if (directory / _LOSSES).is_file():
        for name, model in json.loads((directory / _LOSSES).read_text(encoding="utf-8")).items():
            yield _count(
                f"t0/ia3/count/{name}", _config(model["shape"]), model["num_ia3_parameters"]
            )
    # The two models of the papers: T0 3B, whose file is here, and T0.
    for name, sizes, count in (
        ("T0 3B", {"emb_dim": 2048, "num_heads": 32, "mlp_dim": 5120}, 540_672),
        ("T0", {"emb_dim": 4096, "num_heads": 64, "mlp_dim": 10240}, 1_081_344),
    ):
        yield _count(f"t0/ia3/count/{name}", _sized(24, 24, head_dim=64, **sizes), count)


def _vectors(weights: pathlib.Path, facts: dict[str, Any]) -> Iterator[Row]:
    """The rows of one file."""
    found = read_set(weights)
    area = f"t0/ia3/{weights.name}"
    expected = {_path_here(name): tensor for name, tensor in facts["tensors"].items()}
    wrong = len(set(expected) ^ set(found.params)) + abs(len(expected) - facts["num_tensors"])
    yield Row(f"{area}/names", wrong, 0, "count", f"{len(expected)} tensors")
    numbers = sum(x.size for x in found.params.values())
    yield Row(f"{area}/numbers", abs(numbers - facts["num_parameters"]), 0, "count", f"{numbers:,}")
    both = sorted(set(expected) & set(found.params))
    for name, measure in (
        ("mean", np.mean),
        ("std", np.std),
        ("min", np.min),
        ("max", np.max),
        ("first3", lambda x: x[:3]),
    ):
        named = [path for path in both if name in expected[path]]
        if named:
            ours = np.concatenate(
                [np.ravel(measure(found.params[p].astype(np.float64))) for p in named]
            )
            theirs = np.concatenate([np.ravel(expected[p][name]) for p in named])
            yield Row(f"{area}/{name}", largest(ours, theirs), 1e-7, note=f"{len(named)} tensors")
    yield Row(f"{area}/fits its model", _misfits(found), 0, "count")


def _path_here(name: str) -> str:
    """The path of one of their vectors; l_ff on the output of wi_1 is the same as on the input of wo."""
    module = huggingface.module_here(name.removesuffix(_ENDING))
    return f"{module}/ia3_scaling".replace("/wi_1/", "/wo/")


def _misfits(found: MethodSet) -> int:
    """How many vectors a model of the sizes that they have would not take, and the other way round."""
    sizes = {p: x.size for p, x in found.params.items()}
    layers = {
        stack: 1
        + max(int(p.split("/")[1].removeprefix("layers_")) for p in sizes if p.startswith(stack))
        for stack in ("encoder", "decoder")
    }
    keys = sizes["encoder/layers_0/attention/key/ia3_scaling"]
    hidden = sizes["encoder/layers_0/mlp/wo/ia3_scaling"]
    config = _sized(
        layers["encoder"], layers["decoder"], num_heads=1, head_dim=keys, emb_dim=8, mlp_dim=hidden
    )
    shapes = _added(config)
    return sum(shapes.get(p) != (sizes.get(p),) for p in {*shapes, *sizes})


def _count(name: str, config: T5Config, expected: int) -> Row:
    """The row of how many parameters (IA)3 adds to a model."""
    ours = sum(math.prod(shape) for shape in _added(config).values())
    return Row(name, abs(ours - expected), 0, "count", f"{ours:,}")


def _added(config: T5Config) -> dict[str, tuple[int, ...]]:
    """Shapes of what (IA)3 adds to a model, by path; allocates nothing."""
    ids = np.ones((1, 1), np.int32)
    module = T5(config, method=IA3())
    init = lambda rng: module.init({"params": rng}, ids, ids, ids, enable_dropout=False)  # noqa: E731
    shapes = tree.flatten(jax.eval_shape(init, jax.random.key(0))["params"])
    return {path: leaf.shape for path, leaf in shapes.items() if is_method(path)}


def _config(shape: dict[str, int]) -> T5Config:
    """The architecture of a Hugging Face model of these sizes."""
    return _sized(
        shape["num_layers"],
        shape.get("num_decoder_layers", shape["num_layers"]),
        emb_dim=shape["d_model"],
        num_heads=shape["num_heads"],
        head_dim=shape["d_kv"],
        mlp_dim=shape["d_ff"],
    )


def _sized(encoder: int, decoder: int, **sizes: Any) -> T5Config:
    """A gated T5 of these sizes."""
    return T5Config(vocab_size=8, num_encoder_layers=encoder, num_decoder_layers=decoder, **sizes)
