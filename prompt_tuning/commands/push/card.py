"""The card of what is pushed: metadata that the hub reads, a part that each push writes, and fields for the user."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_tuning.checkpoints.method_files.method_set import METHOD
from prompt_tuning.params.names import PROMPT_PATH

_BEGIN = "<!-- prompt-tuning push writes what stands from here on. -->"
_END = "<!-- prompt-tuning push writes what stands up to here; the rest is yours and stays. -->"
_TASK = "text2text-generation"
_TO_FILL_IN = """
## To be filled in by whoever publishes this

| | |
|---|---|
| Licence of these files | **TO BE FILLED IN**, and in the metadata as `license:` |
| Licence of the frozen model | **TO BE FILLED IN** |
| Data: where it is from, its licence | **TO BE FILLED IN**, and in the metadata as `datasets:` |
| Language | **TO BE FILLED IN**, and in the metadata as `language:` |
| What it is for, and what it is not | **TO BE FILLED IN** |
"""


def render(
    repo: str,
    info: Mapping[str, Any],
    scores: Sequence[Mapping[str, Any]],
    *,
    files: Mapping[str, bytes],
    recipe: str | None,
    base_model: str | None,
    is_for_peft: bool,
    there: str | None,
) -> str:
    """Returns the text of README.md.

    Args:
      repo: owner/name.
      info: What the run recorded of what it saved.
      scores: Entries of its `best.json` that are of this step.
      files: What is pushed, by name.
      recipe: The run's config.gin, if it is there.
      base_model: The frozen model's name on the hub, if the user gave it.
      is_for_peft: Whether there is an adapter for PEFT among the files.
      there: The card that is there already: what a user wrote into it stays.
    """
    from huggingface_hub import EvalResult, ModelCard

    card: Any = ModelCard(
        there or f"---\nlibrary_name: prompt-tuning\n---\n{_BEGIN}{_END}\n{_TO_FILL_IN}"
    )
    task = str(info.get("task"))
    card.data.library_name = "peft" if is_for_peft else "prompt-tuning"
    card.data.pipeline_tag = _TASK
    card.data.tags = sorted({"prompt-tuning", "t5", *(card.data.tags or ())})
    card.data.base_model = base_model or card.data.base_model
    card.data.model_name = repo.partition("/")[2]
    card.data.eval_results = [
        EvalResult(
            task_type=_TASK,
            dataset_type=task,
            dataset_name=task,
            metric_type=score["name"],
            metric_value=score["value"],
        )
        for score in scores
    ]
    sections = [
        f"# {card.data.model_name}\n",
        _facts(info, files, base_model),
        _use(repo, info, files),
        _use_in_peft(repo, base_model) if is_for_peft else "PEFT has no form for this.\n",
        f"## Recipe\n\n```gin\n{recipe.strip()}\n```\n" if recipe else "",
    ]
    written = "\n".join([_BEGIN, *filter(None, sections), _END])
    before, begin, rest = card.text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    # A card without the marks is somebody's own, and goes on below.
    card.text = before + written + after if begin and end else f"{written}\n{card.text}"
    return str(card)


def _facts(info: Mapping[str, Any], files: Mapping[str, bytes], base_model: str | None) -> str:
    """The table of what it is."""
    what = []
    if PROMPT_PATH.replace("/", ".") in files:
        length, width = info["shape"]
        what.append(
            f"a soft prompt of length {length} and width {width} before the encoder's input"
        )
    if method := info.get(METHOD):
        what.append(f"what a method added: `{json.dumps(method)}`")
    start = str(info.get("initial_checkpoint_path")).rstrip("/").rpartition("/")[2]
    rows = {
        "What": "; ".join(what),
        "Frozen model": base_model or f"`{start}`",
        "Digest of the frozen weights": f"`{info.get('frozen_digest')}`, held as {info.get('frozen_dtype')}",
        "Task": f"`{info.get('task')}`",
        "Step": info.get("step"),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items()), ""])


def _use(repo: str, info: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """How it is loaded here."""
    flags = []
    if PROMPT_PATH.replace("/", ".") in files:
        flags += [f"PROMPT_FILE=\"'hf://{repo}'\"", f"PROMPT_LENGTH={info['shape'][0]}"]
    if info.get(METHOD):
        flags.append(f"METHOD_FILE=\"'hf://{repo}'\"")
    lines = " \\\n".join(["prompt-tuning infer", *(f"  --gin.{flag}" for flag in flags), "  ..."])
    return f"## Here\n\n```bash\n{lines}\n```\n"


def _use_in_peft(repo: str, base_model: str | None) -> str:
    """How it is loaded in PEFT."""
    return f"""## In PEFT

```python
import peft, transformers

name = "{base_model or "FROZEN_MODEL"}"
model = transformers.AutoModelForSeq2SeqLM.from_pretrained(name)
model = peft.PeftModel.from_pretrained(model, "{repo}")
```
"""
