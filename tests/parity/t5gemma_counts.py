"""Parameters of every released T5Gemma, counted from the shapes of what its gin file describes."""

import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Iterator, Mapping

from prompt_tuning.models.encoder_decoder import EncoderDecoderModel
from prompt_tuning.models.t5gemma.config import T5GemmaConfig
from prompt_tuning.models.t5gemma.t5gemma import T5Gemma
from tests.gin_runs import CONFIGS, DEMO_TRAIN, resolve
from tests.golden.check import GEMMA_COUNTS
from tests.parity import subjects
from tests.parity.rows import NotChecked, Row

FAMILIES = ("t5gemma", "t5gemma2")
_SETTINGS = {name: value for name, value in DEMO_TRAIN.items() if name != "CLASS_LABELS"}


def comparisons(
    directory: pathlib.Path, vocabulary: pathlib.Path | None
) -> Iterator[Row | NotChecked]:
    """Yields a row for each size; `vocabulary` is not used."""
    del vocabulary
    if not (file := directory / GEMMA_COUNTS).is_file():
        return
    counts = json.loads(file.read_text(encoding="utf-8"))
    for family in FAMILIES:
        for size, theirs in counts.get(family, {}).items():
            name = f"t5gemma/counts/{family}/{size}"
            yield from subjects.guarded(name, _rows(family, size, theirs, name))


def _rows(family: str, size: str, theirs: Mapping[str, int], name: str) -> Iterator[Row]:
    """The row of one size, ENCODER-DECODER."""
    encoder, decoder = (config_of(family, part) for part in size.split("-"))
    ours = count(dataclasses.replace(encoder, decoder=decoder.decoder))
    # What is for images is left out here.
    total = "text" if "text" in theirs else "total"
    known = {
        name: theirs[total if name == "total" else name]
        for name in ours
        if name in theirs or name == "total"
    }
    wrong = [ours[name] for name in known if ours[name] != known[name]]
    yield Row(name, len(wrong), 0, "count", f"{', '.join(known)}; {ours['total']:,} parameters")


@functools.cache
def config_of(family: str, size: str) -> T5GemmaConfig:
    """The architecture that a size's gin file describes."""
    files = [f"{CONFIGS}/models/{family}_{size}_prompt.gin", f"{CONFIGS}/runs/prompt_finetune.gin"]
    config = resolve(files, _SETTINGS).arguments()["model"].config
    assert isinstance(config, T5GemmaConfig)
    return config


def count(config: T5GemmaConfig) -> dict[str, int]:
    """Returns the parameters of a model: all, embedding tables, encoder and decoder with their tables."""
    # Stacked, one layer alone is traced.
    model = EncoderDecoderModel(T5Gemma(dataclasses.replace(config, scan_layers=True)), None, None)
    sizes = {path: math.prod(x.shape) for path, x in model.param_shapes.items()}
    of = lambda *starts: sum(n for path, n in sizes.items() if path.startswith(starts))  # noqa: E731
    return {
        "total": sum(sizes.values()),
        "embeddings": of("token_embedder/", "decoder_embedder/"),
        "encoder": of("encoder/", "token_embedder/"),
        "decoder": of("decoder/", "decoder_embedder/"),
    }
