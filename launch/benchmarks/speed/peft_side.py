"""PEFT's prompt tuning on transformers' T5, with random weights: as its documentation does each piece of work.

Batches of texts are padded to the longest of each batch, as transformers' collators do, and arrive as token ids.
"""

import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_tuning.launch.benchmarks.speed import texts
from prompt_tuning.launch.benchmarks.speed.rows import Work

_IGNORED = -100  # transformers' label of what is no target.


def prepare(work: Work, settings: Mapping[str, Any]) -> Callable[[int], Any]:
    """Returns what does one round of the work, everything ready.

    Args:
      work: The work.
      settings: Hugging Face's `config.json` of the model.
    """
    if work.kind == "start":
        return _start(settings)
    import torch

    # PyTorch's own choice is half of them on some virtual machines.
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    model = _model(work, settings)
    run = {"step": _step, "train": _train, "decode": _decode, "infer": _infer, "rank": _rank}
    return run[work.kind](model, work)


def _model(work: Work, settings: Mapping[str, Any]) -> Any:
    """A frozen T5 with random weights and a prompt that learns."""
    import peft
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.T5Config(**{**settings, "decoder_start_token_id": 0})
    frozen = transformers.T5ForConditionalGeneration(config).to(getattr(torch, work.dtype))
    prompt = peft.PromptTuningConfig(
        task_type=peft.TaskType.SEQ_2_SEQ_LM,
        num_virtual_tokens=work.prompt_length,
        num_transformer_submodules=1,
    )
    return peft.get_peft_model(frozen, prompt)


def _full_rows(model: Any, work: Work) -> dict[str, Any]:
    """One batch of rows without padding."""
    lengths = np.full(work.batch_size, work.inputs)
    labels = [np.full(work.targets, 5)] * work.batch_size
    return _padded(texts.token_ids(lengths, model.config.vocab_size), labels)


def _padded(inputs: Sequence[np.ndarray], labels: Sequence[np.ndarray] = ()) -> dict[str, Any]:
    """A batch, padded to its longest."""
    import torch

    def pad(rows: Sequence[np.ndarray], filler: int) -> Any:
        width = max(map(len, rows))
        return torch.from_numpy(
            np.stack([np.pad(row, (0, width - len(row)), constant_values=filler) for row in rows])
        )

    ids = pad(inputs, 0)
    batch = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    return {**batch, "labels": pad(labels, _IGNORED)} if labels else batch


def _examples(model: Any, work: Work) -> list[np.ndarray]:
    """Texts of real lengths."""
    lengths = texts.lengths(work.data_set, work.num_examples, work.inputs)
    return texts.token_ids(lengths, model.config.vocab_size)


def _chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[first : first + size] for first in range(0, len(rows), size))


def _update(model: Any) -> Callable[[Mapping[str, Any]], None]:
    """Takes a training step with a batch."""
    import torch

    prompt = [x for x in model.parameters() if x.requires_grad]
    optimizer = torch.optim.Adafactor(prompt, lr=0.3)
    model.train()

    def update(batch: Mapping[str, Any]) -> None:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()

    return update


def _step(model: Any, work: Work) -> Callable[[int], None]:
    """A step over full rows."""
    update, batch = _update(model), _full_rows(model, work)
    update(batch)
    return lambda index: update(batch)


def _train(model: Any, work: Work) -> Callable[[int], None]:
    """A part of a pass over texts."""
    update, examples = _update(model), _examples(model, work)
    two = texts.label_ids(work.data_set)
    pairs = [(ids, two[number % 2]) for number, ids in enumerate(examples)]
    batches = [_padded(*zip(*chunk, strict=True)) for chunk in _chunks(pairs, work.batch_size)]
    update(batches[0])

    def run(index: int) -> None:
        for batch in _part(batches, index, work.parts):
            update(batch)

    return run


def _part(batches: Sequence[Any], index: int, parts: int) -> Sequence[Any]:
    """The batches of one round."""
    size = len(batches) // parts
    return batches[index % parts * size :][:size]


def _generate(model: Any, batch: Mapping[str, Any], work: Work) -> None:
    """Decodes a batch, always as many tokens as asked for."""
    import torch

    with torch.inference_mode():
        model.generate(
            **batch,
            max_new_tokens=work.targets,
            min_new_tokens=work.targets,
            num_beams=work.beams,
            do_sample=False,
        )


def _decode(model: Any, work: Work) -> Callable[[int], None]:
    """Decodes full rows."""
    model.eval()
    batch = {k: v for k, v in _full_rows(model, work).items() if k != "labels"}
    _generate(model, batch, work)
    return lambda index: _generate(model, batch, work)


def _infer(model: Any, work: Work) -> Callable[[int], None]:
    """Decodes texts."""
    model.eval()
    batches = [_padded(chunk) for chunk in _chunks(_examples(model, work), work.batch_size)]
    _generate(model, batches[0], work)

    def run(index: int) -> None:
        for batch in batches:
            _generate(model, batch, work)

    return run


def _rank(model: Any, work: Work) -> Callable[[int], None]:
    """Scores texts with each label: one row for every pair."""
    import torch

    model.eval()
    two = texts.label_ids(work.data_set)
    pairs = [(ids, label) for ids in _examples(model, work) for label in two]
    batches = [_padded(*zip(*chunk, strict=True)) for chunk in _chunks(pairs, work.batch_size)]

    def score(batch: Mapping[str, Any]) -> Any:
        with torch.inference_mode():
            logits = model(**batch).logits
            losses: Any = torch.nn.functional.cross_entropy(
                logits.transpose(1, 2), batch["labels"], ignore_index=_IGNORED, reduction="none"
            )
            return -losses.sum(dim=1)

    score(batches[0])

    def run(index: int) -> None:
        for batch in batches:
            score(batch)

    return run


def _start(settings: Mapping[str, Any]) -> Callable[[int], None]:
    """A process that loads a model and takes a step."""
    import transformers

    folder = pathlib.Path(tempfile.mkdtemp())
    config = transformers.T5Config(**{**settings, "decoder_start_token_id": 0})
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder)
    command = [sys.executable, "-m", "prompt_tuning.launch.benchmarks.speed.peft_start", folder]

    def run(index: int) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    run(0)
    return run
