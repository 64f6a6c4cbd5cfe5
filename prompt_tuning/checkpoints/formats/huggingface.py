"""Reads models as Hugging Face saves them: `config.json` beside safetensors or PyTorch files, whole or in shards.

Each family has its settings and its names (`_FAMILIES`): T5's are here and in `huggingface_config.py`, T5Gemma's in
`huggingface_t5gemma.py`.

| here (unscanned) | there |
|---|---|
| `token_embedder/embedding` | `shared.weight` |
| `encoder/layers_{i}/attention/query/kernel` | `encoder.block.{i}.layer.0.SelfAttention.q.weight` |
| `decoder/layers_{i}/encoder_decoder_attention/out/kernel` | `decoder.block.{i}.layer.1.EncDecAttention.o.weight` |
| `encoder/layers_{i}/mlp/wi_0/kernel` | `encoder.block.{i}.layer.1.DenseReluDense.wi_0.weight` |
| `encoder/layers_{i}/pre_mlp_layer_norm/scale` | `encoder.block.{i}.layer.1.layer_norm.weight` |
| `encoder/relpos_bias/rel_embedding` | `encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight` |
| `decoder/logits_dense/kernel` | `lm_head.weight` |

Kernels and relative position tables are transposed there.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from prompt_tuning.checkpoints import json_files, paths
from prompt_tuning.checkpoints.formats import huggingface_config
from prompt_tuning.checkpoints.formats import huggingface_t5gemma as t5gemma
from prompt_tuning.checkpoints.formats.safetensors_files import SafetensorsFiles
from prompt_tuning.checkpoints.formats.torch_files import TorchFiles
from prompt_tuning.errors import CheckpointError
from prompt_tuning.params.names import DECODER_EMBEDDING, EMBEDDING, LINEAR_MAPS, TABLE

HEAD = "decoder/logits_dense/kernel"
_STORED_HEAD = "lm_head.weight"
# The names one table may have; each file has at least one of them.
_STORED_TABLES = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
# T5 1.0 was converted with this table, which no version of transformers has read.
_UNUSED = frozenset({"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"})
# Attention's linear maps, here and there; those of feed-forward blocks have the same names.
LETTERS = {"query": "q", "key": "k", "value": "v", "out": "o"}
# The modules of a layer, in order: theirs -> (our module, its norm).
_MLP = {"DenseReluDense": ("mlp", "pre_mlp_layer_norm")}
_MODULES = {
    "encoder": {"SelfAttention": ("attention", "pre_attention_layer_norm"), **_MLP},
    "decoder": {
        "SelfAttention": ("self_attention", "pre_self_attention_layer_norm"),
        "EncDecAttention": ("encoder_decoder_attention", "pre_cross_attention_layer_norm"),
        **_MLP,
    },
}
_LINEAR_THERE = re.compile(r"(encoder|decoder)\.block\.(\d+)\.layer\.\d\.(\w+)\.(\w+)")
# Weight files by preference.
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


def is_huggingface_checkpoint(path: epath.PathLike) -> bool:
    """Returns whether `path` is the directory of a Hugging Face model."""
    return (epath.Path(path) / huggingface_config.CONFIG_FILE).is_file()


class HuggingFaceSource:
    """The parameters of one Hugging Face model; a `ParamSource` in the unscanned layout.

    Args:
      path: Directory with `config.json` and the weights; local, or gs:// for safetensors.

    Attributes:
      config: The parsed `config.json`.
      settings: What it says about the model, by the names of its family's configuration.

    Raises:
      CheckpointError: If its family is not known, a file is missing or damaged, a parameter is missing, or one is not
        known.
    """

    kind = "huggingface"
    step: int | None = None
    frozen_digest: str | None = None
    trainable_paths: frozenset[str] = frozenset()

    def __init__(self, path: epath.PathLike):
        """Reads the configuration and the names and shapes of all tensors."""
        self.path = paths.absolute(path)
        self.config: dict[str, Any] = huggingface_config.read_config(self.path)
        # What is unknown is refused as no T5.
        family = _FAMILIES.get(str(self.config.get("model_type")), _T5)
        self.settings: Mapping[str, Any] | None = family.settings(self.config)
        self._tensors = _open_weights(self.path, family.where)
        stored = self._tensors.shapes()
        self._check_layers(family.num_layers(self.settings), len(stored))
        # Path here -> name there; the names of further copies of it, which have to equal it.
        self._names, self._copies = family.names(self.settings, self.config, stored)
        self._check_names({name: x for name, x in stored.items() if not family.is_unused(name)})

    def _check_layers(self, num_layers: Mapping[str, int], num_tensors: int) -> None:
        """Raises CheckpointError if there are fewer tensors than layers; names of all layers are about to be made."""
        for stack, number in num_layers.items():
            if number > num_tensors:
                raise CheckpointError(
                    f"config.json in {self.path} describes another model than its weights",
                    got=f"{number} layers of the {stack} and {num_tensors} tensors",
                    expected="some tensors a layer",
                    fix="download config.json and the weights of one version of the model",
                )

    def _check_names(self, stored: Mapping[str, Any]) -> None:
        """Raises CheckpointError unless the stored names are those of the model, no more and no fewer."""
        if not any(name.removeprefix("model.").startswith("decoder.") for name in stored):
            raise huggingface_config.encoder_only("no tensor of a decoder")
        missing = sorted(set(self._names.values()) - set(stored))
        if missing:
            raise CheckpointError(
                f"{len(missing)} tensors are missing in {self.path}",
                got=f"no {', '.join(missing[:3])}",
                expected="every tensor of the model that its config.json describes",
                fix="use a whole model for conditional generation, and all of its files",
                name=missing[0],
                candidates=stored,
            )
        copies = {name for names in self._copies.values() for name in names}
        extra = sorted(set(stored) - set(self._names.values()) - copies)
        if extra:
            raise CheckpointError(
                f"{len(extra)} tensors in {self.path} are not known",
                got=", ".join(extra[:3]),
                expected="only the tensors of the model that its config.json describes",
                fix="use a plain model; merge adapters into it before saving it",
            )

    def shapes(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        """Returns path -> (shape, dtype) of every parameter."""
        stored = self._tensors.shapes()
        shapes = {}
        for path, name in self._names.items():
            shape, dtype = stored[name]
            shapes[path] = (shape[::-1] if is_transposed(path) else shape, dtype)
        return shapes

    def chunks(self, path: str) -> tuple[int, ...]:
        """Returns the shape of the blocks in which a parameter is stored: rows of the tensor as it is stored."""
        shape, _ = self.shapes()[path]
        return (*shape[:-1], 1) if is_transposed(path) else (1, *shape[1:])

    def read(self, path: str, index: tuple[slice, ...] | None = None) -> np.ndarray:
        """Returns one parameter or a part of it, in the dtype it is stored in.

        Reads only the rows of the stored tensor that hold the part, which are columns of a transposed one.

        Args:
          path: One of `shapes()`.
          index: Range of each axis, with step 1; None for the whole.

        Raises:
          CheckpointError: If a file was cut short, or a copy of the embedding differs from it.
        """
        name = self._names[path]
        if index is None:
            index = (slice(None),) * len(self.shapes()[path][0])
        if is_transposed(path):
            return self._tensors.read(name, index[1]).T[index[0]]
        rows = self._tensors.read(name, index[0])
        for copy in self._copies.get(path, ()):
            self._check_copy(path, copy, rows, index[0])
        return rows[(slice(None), *index[1:])]

    def _check_copy(self, path: str, copy: str, rows: np.ndarray, index: slice) -> None:
        """Raises CheckpointError unless a copy of an embedding has the same bits in the rows of `index`."""
        name = self._names[path]
        stored = self._tensors.shapes()
        same = stored[copy] == stored[name]
        # Bits, because NaN differs from itself.
        bits = rows.view(np.uint8)
        if same and np.array_equal(bits, self._tensors.read(copy, index).view(np.uint8)):
            return
        fix = "download the model again"
        if copy in t5gemma.HEADS:
            fix += "; a T5Gemma whose head was trained apart has no place here"
        if copy == _STORED_HEAD:
            fix = (
                'if the head was trained apart, set "tie_word_embeddings" (and "scale_decoder_outputs", where it'
                " stands) to false in config.json"
            )
        raise CheckpointError(
            f"{copy} in {self.path} should be {name}",
            got="other values",
            expected="the same table under both names, as config.json says",
            fix=fix,
        )


class _Family(NamedTuple):
    """How a family of models is stored.

    Attributes:
      settings: config.json -> what it says about the model, by the names of the family's configuration.
      num_layers: Settings -> layers of each stack.
      names: (settings, config.json, stored tensors) -> name of each path, and of further copies of it by path.
      is_unused: Whether a tensor of this name is there for something else.
      where: How its weights are to be had, for errors.
    """

    settings: Callable[[Mapping[str, Any]], dict[str, Any]]
    num_layers: Callable[[Mapping[str, Any]], Mapping[str, int]]
    names: Callable[..., tuple[dict[str, str], dict[str, list[str]]]]
    is_unused: Callable[[str], bool]
    where: str


def _t5_names(
    settings: Mapping[str, Any], config: Mapping[str, Any], stored: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The names of a T5's parameters, and of the copies of its embedding."""
    head_is_embedding = settings["logits_via_embedding"]
    tables = (*_STORED_TABLES, _STORED_HEAD) if head_is_embedding else _STORED_TABLES
    # The first is read, the others have to equal it.
    table, *copies = [name for name in tables if name in stored] or tables[:1]
    names = {**dict(layer_names(settings)), EMBEDDING: table}
    if not head_is_embedding:
        # A tied head that does not rescale is stored once.
        tied = config.get("tie_word_embeddings") is not False
        names[HEAD] = table if tied and _STORED_HEAD not in stored else _STORED_HEAD
    return names, {EMBEDDING: copies}


def _t5gemma_names(
    settings: Mapping[str, Any], config: Mapping[str, Any], stored: Mapping[str, Any]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The names of a T5Gemma's parameters, and of the copies of the table that its head is tied to."""
    del config
    names = dict(t5gemma.names(settings, stored))
    heads = [name for name in t5gemma.HEADS if name in stored]
    return names, {EMBEDDING if settings["merges_attention"] else DECODER_EMBEDDING: heads}


def names_of(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the name there of each parameter of the model that a config.json describes, where none is stored twice.

    Args:
      config: The parsed file.

    Raises:
      CheckpointError: If its family is not known, or it has a value that no model here has.
    """
    family = _FAMILIES.get(str(config.get("model_type")), _T5)
    names, _ = family.names(family.settings(config), config, {})
    return names


def is_transposed(path: str) -> bool:
    """Returns whether Hugging Face stores a parameter with its axes the other way round."""
    return path.endswith(("/kernel", "/rel_embedding"))


def module_here(theirs: str) -> str | None:
    """Returns the path of a linear map of a layer that Hugging Face calls `theirs`; None if it is none.

    Args:
      theirs: As "encoder.block.0.layer.0.SelfAttention.k".
    """
    match = _LINEAR_THERE.fullmatch(theirs)
    if match is None:
        return None
    stack, layer, module, letter = match.groups()
    name = {there: here for here, there in LETTERS.items()}.get(letter, letter)
    if module not in _MODULES[stack] or name not in LINEAR_MAPS:
        return None
    return f"{stack}/layers_{layer}/{_MODULES[stack][module][0]}/{name}"


def module_there(path: str) -> str:
    """Returns what Hugging Face calls the linear map of a path; the inverse of `module_here`."""
    stack, layer, ours, name = path.split("/")
    modules = enumerate(_MODULES[stack].items())
    place = next(f"{number}.{there}" for number, (there, (here, _)) in modules if here == ours)
    number = layer.removeprefix("layers_")
    return f"{stack}.block.{number}.layer.{place}.{LETTERS.get(name, name)}"


def layer_names(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields (path here, name there) of every parameter of both stacks.

    Args:
      settings: The model, by the names of `T5Config`.
    """
    gated = len(settings["mlp_activations"]) > 1
    projections = ("wi_0", "wi_1", "wo") if gated else ("wi", "wo")
    for stack, modules in _MODULES.items():
        yield f"{stack}/{stack}_norm/scale", f"{stack}.final_layer_norm.weight"
        for i in range(settings[f"num_{stack}_layers"]):
            here, there = f"{stack}/layers_{i}", f"{stack}.block.{i}.layer"
            for j, (theirs, (module, norm)) in enumerate(modules.items()):
                yield f"{here}/{norm}/scale", f"{there}.{j}.layer_norm.weight"
                pairs = [(p, p) for p in projections] if module == "mlp" else LETTERS.items()
                for ours, letter in pairs:
                    yield f"{here}/{module}/{ours}/kernel", f"{there}.{j}.{theirs}.{letter}.weight"
            bias = f"{there}.0.SelfAttention.relative_attention_bias.weight"
            if settings["relative_bias_per_layer"]:
                yield f"{here}/{TABLE}", bias
            elif i == 0:
                yield f"{stack}/{TABLE}", bias


def _open_weights(folder: epath.Path, where: str) -> SafetensorsFiles | TorchFiles:
    """The tensors of a model's folder: safetensors before PyTorch files, a single file before shards."""
    for name in _WEIGHTS:
        kind = SafetensorsFiles if name.endswith(".safetensors") else TorchFiles
        if (folder / name).is_file():
            return kind([folder / name])
        index = folder / f"{name}.index.json"
        if index.is_file():
            whole = "a weight_map from every tensor to the shard that holds it"
            fix = "download the index and all shards of one version of the model"
            found = json_files.read(index, expected=whole, fix=fix).get("weight_map")
            weight_map = found if isinstance(found, dict) else {}
            files = sorted({str(file) for file in weight_map.values()})
            # A shard lies beside its index; nothing else is read because an index says so.
            if outside := [file for file in files if "/" in file or not file.strip(".")]:
                raise CheckpointError(
                    f"The index {index} names a file of another folder",
                    got=outside[0],
                    expected="names of files beside it",
                    fix=fix,
                )
            tensors = kind([folder / file for file in files])
            missing = sorted(set(weight_map) - set(tensors.shapes()))
            if missing or not weight_map:
                raise CheckpointError(
                    f"The index {index} does not describe the files beside it",
                    got=f"no {missing[0]} in {weight_map[missing[0]]}" if missing else repr(found),
                    expected=whole,
                    fix=fix,
                )
            return tensors
    raise CheckpointError(
        f"No weights in {folder}",
        got=paths.shown(p.name for p in folder.iterdir()),
        expected=" or ".join(_WEIGHTS) + ", or their .index.json and shards",
        fix=where,
    )


_T5 = _Family(
    huggingface_config.t5_settings,
    lambda settings: {s: settings[f"num_{s}_layers"] for s in ("encoder", "decoder")},
    _t5_names,
    _UNUSED.__contains__,
    "download the model's model.safetensors into this folder",
)
_T5GEMMA = _Family(
    t5gemma.settings,
    t5gemma.num_layers,
    _t5gemma_names,
    lambda name: name.startswith(t5gemma.UNUSED),
    t5gemma.WHERE,
)
_FAMILIES = {
    **dict.fromkeys(huggingface_config.MODEL_TYPES, _T5),
    **dict.fromkeys(t5gemma.MERGES, _T5GEMMA),
}
