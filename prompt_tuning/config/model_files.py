"""Which gin file of the package describes the model of a checkpoint, found by its sizes."""

import collections
import re

from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.config import files
from prompt_tuning.errors import ConfigError
from prompt_tuning.params import layouts
from prompt_tuning.params.names import EMBEDDING

RUNGS = ("pico", "nano", "micro", "mini")
_MODEL_FILES = re.compile(
    rf"{files.PACKAGE_PREFIX}(models/.*_prompt|ladder/({'|'.join(RUNGS)}))\.gin"
)
_FIRST_LINEAR_MAP = re.compile(r"(encoder|decoder)/.*mlp/wi(_0)?/kernel")


def find_model_file(source: ParamSource) -> str:
    """Returns the gin file, `prompt_tuning/configs/…`, of a stored model, with a prompt.

    No two models that have a file here agree in all sizes that are looked at. Activations and the like, of which shapes
    tell nothing, are compared where the checkpoint is loaded.

    Args:
      source: The model's parameters, as `checkpoints.open.open_source` opens them.

    Raises:
      ConfigError: If no file has the sizes of the model.
    """
    sizes = _sizes_of(source)
    for name in filter(_MODEL_FILES.fullmatch, files.shipped_files()):
        statements = files.read([name]).statements
        macros = {
            b.selector: b.value for b in statements if isinstance(b, files.Binding) and not b.arg
        }
        if sizes.items() <= macros.items():
            return name
    raise ConfigError(
        f"No gin file of the package describes the model of {source.path}",
        got=", ".join(f"{macro} = {size}" for macro, size in sizes.items()),
        expected="the sizes of a file of prompt_tuning/configs/models",
        fix="write a gin file with these sizes, and hand it to `prompt-tuning train`",
    )


def _sizes_of(source: ParamSource) -> dict[str, int]:
    """Sizes by macro."""
    shapes = {path: shape for path, (shape, _) in source.shapes().items()}
    num_layers, mlp_dim = collections.Counter(), 0
    for path, shape in shapes.items():
        if match := _FIRST_LINEAR_MAP.fullmatch(path):
            num_layers[match[1]] += shape[layouts.LAYERS_AXIS] if layouts.is_stacked(path) else 1
            mlp_dim = shape[-1]
    num_embeddings, emb_dim = shapes.get(EMBEDDING, (0, 0))
    return {
        "NUM_EMBEDDINGS": num_embeddings,
        "EMBED_DIM": emb_dim,
        "MLP_DIM": mlp_dim,
        "NUM_ENCODER_LAYERS": num_layers["encoder"],
        "NUM_DECODER_LAYERS": num_layers["decoder"],
    }
