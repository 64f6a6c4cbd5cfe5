"""Reads T5Gemma as DeepMind's Flax code saves it, which is the form of Kaggle's `google/t5gemma/flax`.

Such a folder is one Orbax item. A released model differs from others in what shapes tell, and in nothing else.

| here (unscanned) | there, behind `{encoder, decoder}/` |
|---|---|
| `token_embedder/embedding`, `decoder_embedder/embedding` [V, H] | `embedder/input_embedding` [V, H] |
| `{query, key, value}/kernel` [E, N*D] | `qkv_einsum` [3, N, E, D]; `q_einsum` [N, E, D], `kv_einsum` [2, K, E, D] |
| `out/kernel` [N*D, H] | `attn_vec_einsum` [N, D, H] |
| `mlp/{wi_0, wi_1}/kernel` [H, F] | `mlp/gating_einsum` [2, H, F], for 9B [2, F, H] |
| `mlp/wo/kernel` [F, H] | `mlp/linear` [F, H] |

Attentions are `layer_{i}/attn` and `layer_{i}/cross_attn`. Names are those of the module's tree, or joined by `/` in
one level below `transformer`, as older Gemmas are stored; a matrix may end in `/w`.

Source: google-deepmind/gemma 3.3, `research/t5gemma/modules.py`, `gm/ckpts`. No released file was at hand.
"""

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import paths
from prompt_tuning.checkpoints.formats import huggingface_t5gemma, orbax_item
from prompt_tuning.checkpoints.formats.arrays import StoredArrays
from prompt_tuning.errors import CheckpointError, unreadable

_FIX = "download all files of the model again"
_TABLE = "embedder/input_embedding"
_WINDOW = 4096
_ATTENTIONS = {
    "attention": "attn",
    "self_attention": "attn",
    "encoder_decoder_attention": "cross_attn",
}
_PARTS = {"query": 0, "key": 1, "value": 2}
# Norms, here -> there, behind `pre_` or `post_`.
_NORMS = {
    "attention": "attention",
    "self_attention": "attention",
    "cross_attention": "cross_attention",
    "mlp": "ffw",
}


class _Place(NamedTuple):
    """Where a parameter lies: the array's name, the index of its first axis, and what makes ours of that part."""

    name: str
    index: int | None = None
    make: Callable[[np.ndarray], np.ndarray] = lambda x: x


def _joined(kernel: np.ndarray) -> np.ndarray:
    """[N, E, D] as [E, N*D]."""
    return np.moveaxis(kernel, 0, 1).reshape(kernel.shape[1], -1)


def _rows_joined(kernel: np.ndarray) -> np.ndarray:
    """[N, D, H] as [N*D, H]."""
    return kernel.reshape(-1, kernel.shape[-1])


def is_gemma_flax(path: epath.PathLike) -> bool:
    """Returns whether `path` is the directory of a T5Gemma in this form, sound or not."""
    leaves = epath.Path(path) / orbax_item.LEAVES_FILE
    return leaves.is_file() and "input_embedding" in leaves.read_text()


class GemmaFlaxSource:
    """The parameters of one T5Gemma; a `ParamSource` in the unscanned layout.

    Args:
      path: The folder; local or gs://.

    Attributes:
      settings: What the model is, by the names of `T5GemmaConfig`.

    Raises:
      CheckpointError: If a file is missing or damaged, a parameter is missing, or one is not known.
    """

    kind = "gemma"
    step: int | None = None
    frozen_digest: str | None = None
    trainable_paths: frozenset[str] = frozenset()

    def __init__(self, path: epath.PathLike):
        """Reads names and shapes, but no array."""
        self.path = paths.absolute(path)
        damaged = functools.partial(
            unreadable,
            f"{self.path} as a T5Gemma of DeepMind's Flax code",
            expected="an Orbax item with all arrays that it lists",
            fix=_FIX,
        )
        leaves = orbax_item.read_leaves(self.path, damaged)
        named = {
            name.removeprefix("transformer/").removesuffix("/w"): x for name, x in leaves.items()
        }
        self._stored = StoredArrays(named, where=f"the model {self.path}", fix=_FIX)
        shapes = {name: shape for name, (shape, _) in self._stored.shapes().items()}
        try:
            described = {s: _described(s, shapes) for s in ("encoder", "decoder")}
            self.settings: Mapping[str, Any] | None = huggingface_t5gemma.settings(
                {"model_type": "t5gemma", **described}
            )
            here = [path for path, _ in huggingface_t5gemma.names(self.settings, {})]
            self._places = {path: _place(path, shapes) for path in here}
            missing = sorted({place.name for place in self._places.values()} - set(shapes))
        except KeyError as e:
            missing = [e.args[0]]
        if missing:
            raise damaged(f"no {missing[0]} among {len(shapes)} arrays")
        if extra := sorted(set(shapes) - {place.name for place in self._places.values()}):
            raise CheckpointError(
                f"{len(extra)} arrays in {self.path} are not known",
                got=", ".join(extra[:3]),
                expected="only those of a T5Gemma",
                fix="use T5Gemma, of 2025, text only; other Gemmas have no encoder",
            )

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of every parameter."""
        return {path: self._shape(place) for path, place in self._places.items()}

    def _shape(self, place: _Place) -> tuple[tuple[int, ...], np.dtype]:
        """The shape and dtype of a parameter here."""
        shape, dtype = self._stored.shapes()[place.name]
        # A view without memory goes the way that the values will go.
        part = np.broadcast_to(np.zeros((), np.bool_), shape if place.index is None else shape[1:])
        return place.make(part).shape, dtype

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored; a kernel is read as a whole."""
        place = self._places[path]
        if place.name.endswith(_TABLE):
            return self._stored.chunks(place.name)
        return self._shape(place)[0]

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter or a part of it, in the dtype it is stored in.

        Args:
          path: One of `shapes()`.
          index: Range of each axis, with step 1; None for the whole.

        Raises:
          CheckpointError: If a file was cut short.
        """
        place = self._places[path]
        if place.name.endswith(_TABLE):
            return self._stored.read(place.name, index)
        if place.index is None:
            part = self._stored.read(place.name)
        else:
            rest = [slice(0, size) for size in self._stored.shapes()[place.name][0][1:]]
            part = self._stored.read(place.name, (slice(place.index, place.index + 1), *rest))[0]
        whole = place.make(part)
        return whole if index is None else whole[index]


def _described(stack: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """What Hugging Face's config.json says of a stack of these shapes; KeyError names an array that is missing."""
    vocab_size, width = shapes[f"{stack}/{_TABLE}"]
    layers = {int(m[1]) for m in (re.match(rf"{stack}/layer_(\d+)/", name) for name in shapes) if m}
    attention = f"{stack}/layer_0/attn"
    num_heads, head_dim, _ = shapes[f"{attention}/attn_vec_einsum"]
    keys = shapes.get(f"{attention}/qkv_einsum") or shapes[f"{attention}/kv_einsum"]
    return {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": num_heads,
        "num_key_value_heads": keys[1],
        "head_dim": head_dim,
        "intermediate_size": shapes[f"{stack}/layer_0/mlp/linear"][0],
        "query_pre_attn_scalar": head_dim,
        "sliding_window": _WINDOW,
    }


def _place(path: str, shapes: Mapping[str, tuple[int, ...]]) -> _Place:
    """Where the parameter of a path lies; KeyError names an array that is missing."""
    stack, *rest = path.split("/")
    if stack in ("token_embedder", "decoder_embedder"):
        return _Place(f"{'encoder' if stack == 'token_embedder' else 'decoder'}/{_TABLE}")
    if rest[0] == f"{stack}_norm":
        return _Place(f"{stack}/final_norm/scale")
    layer, module, name = rest[0].replace("layers_", "layer_"), rest[1], rest[2]
    below = f"{stack}/{layer}"
    if module in _ATTENTIONS:
        attention = f"{below}/{_ATTENTIONS[module]}"
        if name == "out":
            return _Place(f"{attention}/attn_vec_einsum", None, _rows_joined)
        if (fused := f"{attention}/qkv_einsum") in shapes:
            return _Place(fused, _PARTS[name], _joined)
        if name == "query":
            return _Place(f"{attention}/q_einsum", None, _joined)
        return _Place(f"{attention}/kv_einsum", _PARTS[name] - 1, _joined)
    if module == "mlp":
        if name == "wo":
            return _Place(f"{below}/mlp/linear")
        gating, linear = f"{below}/mlp/gating_einsum", shapes[f"{below}/mlp/linear"]
        turned = shapes[gating][1:] == linear
        return _Place(gating, int(name == "wi_1"), np.transpose if turned else lambda x: x)
    side, _, norm = module.removesuffix("_layer_norm").partition("_")
    return _Place(f"{below}/{side}_{_NORMS[norm]}_norm/scale")
