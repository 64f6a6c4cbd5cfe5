"""What several test modules need: paths, a tiny model, a tiny vocabulary, and the command line."""

from __future__ import annotations

import functools
import io
import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from prompt_tuning.models.config import T5Config

REPO = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = REPO / "tests" / "golden"
_SHARED = REPO.parent / "shared"
# Larger reference data beside a checkout; tests that want it are skipped elsewhere (conftest.py).
SHARED: pathlib.Path | None = _SHARED if _SHARED.is_dir() else None
requires_shared = pytest.mark.shared

ENGLISH = (
    "The river runs past the old mill and under the stone bridge.",
    "She reads a good book in the garden every evening after work.",
    "A bad film can still have a great song at the end.",
    "Is the answer to this question true or false?",
    "The movie was wonderful, and the actors were even better.",
    "It was a terrible, boring story that nobody wanted to hear.",
    "Does the premise entail the hypothesis, or does it contradict it?",
    "Positive words make a positive sentence; negative words do not.",
    "In 1998 the town had 2,456 people, 37 shops and 10 schools.",
    "boolq passage: Water boils at 100 degrees. question: does water boil?",
    "sst2 sentence: a quiet and moving picture of life by the sea",
    "cb hypothesis: the dog is happy. premise: The dog wags its tail.",
    "rte sentence1: Cats sleep all day. sentence2: Some animals sleep.",
    "entailment contradiction neutral not_entailment True False positive negative",
    "Who wrote this letter, when was it sent, and why does it matter?",
    "Yes, we think so; no, they would never say that. What about you?",
    # Every subject meets every predicate, so that whole words become pieces.
    *(
        f"{subject} {predicate}."
        for subject in ("The old teacher", "My sister", "A young doctor", "This company")
        for predicate in (
            "was built near the harbour before the war",
            "has always been known for its kindness",
            "will travel to another country next summer",
            "could not understand why people were laughing",
            "should learn something new from each mistake",
            "opened its doors early on Monday morning",
            "became famous through music, science and film",
            "must return before winter because the roads are dangerous",
            "played chess against nine visitors from abroad",
            "keeps thirty brown horses behind a wooden fence",
            "usually pays for coffee, bread and fresh fruit",
            "almost forgot which language they speak there",
            "gave each child an apple, a pencil and twelve stamps",
            "found both answers inside yesterday's newspaper",
            "likes walking through quiet forests after heavy rain",
            "voted against the mayor's expensive bridge project",
        )
    ),
)


def tiny_config(**overrides: Any) -> T5Config:
    """Returns the sizes of the reference model: V 256, E 32, F 64, 4 heads x 8, 2+2 layers, float32."""
    from prompt_tuning.models.config import T5Config

    sizes: dict[str, Any] = {
        "vocab_size": 256,
        "emb_dim": 32,
        "num_heads": 4,
        "num_encoder_layers": 2,
        "num_decoder_layers": 2,
        "head_dim": 8,
        "mlp_dim": 64,
        "dtype": "float32",
    }
    return T5Config(**{**sizes, **overrides})


def train_sentencepiece(
    path: str | os.PathLike, texts: Sequence[str] = ENGLISH, vocab_size: int = 256
) -> pathlib.Path:
    """Trains a T5-style unigram model (pad 0, eos 1, unk 2, no bos) and returns its path.

    Args:
      path: File to write; its folder exists.
      texts: Sentences to train on.
      vocab_size: Pieces in the model, the three special ones included, no extra ids; fewer where `texts` hold fewer.

    Returns:
      `path`.
    """
    path = pathlib.Path(path)
    path.write_bytes(_sentencepiece(tuple(texts), vocab_size))
    return path


@functools.cache
def _sentencepiece(texts: tuple[str, ...], vocab_size: int) -> bytes:
    """The model that `train_sentencepiece` writes."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=model,
        vocab_size=vocab_size,
        model_type="unigram",
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        hard_vocab_limit=False,
        # One thread: the same text always gives the same pieces.
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


def run_cli(
    *args: str,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
    cwd: str | os.PathLike = REPO,
) -> subprocess.CompletedProcess[str]:
    """Runs `python -m prompt_tuning ARGS` and returns the finished process, output captured as text.

    Args:
      *args: Command and flags.
      env: Variables set on top of this process's own.
      timeout: Seconds before the process is killed and the test fails.
      cwd: Folder to run in.

    Returns:
      The finished process; the caller checks `returncode`.
    """
    python_path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-m", "prompt_tuning", *args],
        env={**os.environ, "PYTHONPATH": python_path, **(env or {})},
        cwd=cwd,
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )
