"""The tokenizer's files of a model for transformers: those of the folder it began as, or of its run's vocabulary."""

import json
import sys
from typing import Any

from etils import epath

from prompt_tuning.checkpoints.source import ParamSource
from prompt_tuning.config import queries
from prompt_tuning.data import vocabularies
from prompt_tuning.errors import PromptTuningError

# What is copied, generation's settings among it.
_NAMES = (
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("spiece.model", "tokenizer.model", "chat_template.jinja", "generation_config.json"),
)
_SPIECE, _CONFIG = "spiece.model", "tokenizer_config.json"


def files(source: ParamSource, base: epath.Path | None) -> dict[str, bytes]:
    """Returns the files by name; none, with a warning, where it is not known which tokenizer it is.

    Args:
      source: The model.
      base: The Hugging Face folder that it began as, if there is one.
    """
    if base is not None:
        return {name: (base / name).read_bytes() for name in _NAMES if (base / name).is_file()}
    try:
        vocabulary: Any = queries.query_run(str(source.path.parent)).model.input_vocabulary
        # Also downloads one that is on the web.
        vocabularies.check_vocabulary(vocabulary)
    except PromptTuningError as error:
        print(
            f"warning: no tokenizer is written ({error}); name a folder that has it as --base_model",
            file=sys.stderr,
        )
        return {}
    meant = vocabularies.resolved(vocabulary)
    tokenizer_config = {"extra_ids": meant.extra_ids, "tokenizer_class": "T5Tokenizer"}
    found = {}
    if (file := getattr(meant, "sentencepiece_model_file", None)) is not None:
        found[_SPIECE] = epath.Path(file).read_bytes()
    else:
        tokenizer_config["tokenizer_class"] = "ByT5Tokenizer"
    return {**found, _CONFIG: (json.dumps(tokenizer_config, indent=2) + "\n").encode()}
