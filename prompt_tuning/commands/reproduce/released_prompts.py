"""The prompts that the authors released for T5 1.1 LM-adapted Base: where they are and what they score.

Sources, both in https://github.com/google-research/prompt-tuning at the commit named below: the scores, the splits and
the batch sizes are in the README beside the prompts, the setting (feature lengths, `taskless_glue_sst2_v200`, no
decoding bound) is that of `scripts/sst2-demo-eval.sh`. What they leave open is read here as follows.

- "RTE" may be GLUE's task or SuperGLUE's: the same 277 examples, but the columns' names, which are part of the text,
  differ (`sentence1: … sentence2: …` against `hypothesis: … premise: …`). Both are evaluated.
- MRPC's task is `taskless_glue_mrpc_v200`, as SST-2's is.
- Each score is a count of right answers over the whole labelled split: 829 / 872, 348 / 408 and 190 / 277.
"""

import dataclasses
import http.client
import os
import pathlib
import tomllib
import urllib.request

from etils import epath

from prompt_tuning.checkpoints import json_files
from prompt_tuning.data import content
from prompt_tuning.errors import CheckpointError

COMMIT = "72285eea06100f954bcbb16a447ec6cddfc6716c"
_FOLDER = "prompt_tuning/pretrained_prompts/t5_1_1_lm100k_base"
# Where the scores are published.
SCORES_URL = f"https://github.com/google-research/prompt-tuning/tree/{COMMIT}/{_FOLDER}"
PROMPTS_URL = f"https://raw.githubusercontent.com/google-research/prompt-tuning/{COMMIT}/{_FOLDER}"
CACHE_DIR = "~/.cache/prompt_tuning/pretrained_prompts/t5_1_1_lm100k_base"
# The frozen weights they were tuned for, as in the authors' README.
CHECKPOINT = "gs://t5-data/pretrained_models/t5x/t5_1_1_lm100k_base/checkpoint_1100000"
_TIMEOUT_SECS = 60


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation of a released prompt.

    Attributes:
      name: Name of its folder of results.
      prompt: The prompt's name, also that of its file.
      task: The SeqIO task.
      module: The module that registers it.
      batch_size: The authors'. Unit: examples.
      num_examples: Examples in the published validation split.
      published: Metric -> score, in percent.
      data_url: Where the data is published.
      data_file: The original file below `data_dir`.
    """

    name: str
    prompt: str
    task: str
    module: str
    batch_size: int
    num_examples: int
    published: dict[str, float]
    data_url: str
    data_file: str


_TABLE = tomllib.loads(
    pathlib.Path(__file__).with_name("released_prompts.toml").read_text(encoding="utf-8")
)
EVALUATIONS = tuple(Evaluation(**row) for row in _TABLE["evaluations"])
# Prompt's name -> SHA-256 of its file.
DIGESTS = _TABLE["digests"]


def find(name: str, directory: str) -> epath.Path:
    """Returns the file of a prompt in the user's folder, whatever is in it.

    Args:
      name: A key of `DIGESTS`.
      directory: The folder; local or gs://.

    Raises:
      CheckpointError: If there is none; the text says where the released one is.
    """
    path = epath.Path(directory) / f"{name}.npy"
    if path.is_file():
        return path
    raise CheckpointError(
        f"No prompt {path.name}",
        got=str(path),
        expected=f"the file published at {PROMPTS_URL}/{path.name}",
        fix="download it into the folder that --prompts_dir names, or leave --prompts_dir out",
    )


def fetch(name: str, directory: str = CACHE_DIR) -> epath.Path:
    """Returns the file of a released prompt, downloaded unless an intact copy is there.

    Args:
      name: A key of `DIGESTS`.
      directory: Folder of the copies, made if missing.

    Raises:
      CheckpointError: If it cannot be downloaded, or what came is not the released file.
    """
    path = epath.Path(os.path.expanduser(directory)) / f"{name}.npy"
    if path.is_file() and is_released(name, path):
        return path
    url = f"{PROMPTS_URL}/{path.name}"
    fix = "download the file by hand and name its folder with --prompts_dir=DIR, or try again"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECS) as response:
            sent = response.read()
    # An answer that breaks off is no OSError.
    except (OSError, http.client.HTTPException) as error:
        raise CheckpointError(
            f"The released prompt {name} cannot be downloaded ({type(error).__name__}: {error})",
            got=url,
            expected="network access to this address",
            fix=fix,
        ) from error
    digest = content.of_bytes(sent)
    if digest != DIGESTS[name]:
        raise CheckpointError(
            f"What {url} sent is not the released prompt {name}",
            got=f"{len(sent)} bytes with SHA-256 {digest}",
            expected=f"SHA-256 {DIGESTS[name]}",
            fix=fix,
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    json_files.write_atomically(path, sent)
    return path


def is_released(name: str, path: epath.Path) -> bool:
    """Returns whether a file is the released prompt `name`, byte for byte."""
    return content.of_bytes(path.read_bytes()) == DIGESTS[name]
