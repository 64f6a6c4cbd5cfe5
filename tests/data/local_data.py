"""Small original-format data sets on disk, for the tests of data and tasks."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any


def write_jsonl(path: pathlib.Path, rows: Sequence[Any]) -> pathlib.Path:
    """Writes one JSON value a line (text is written as it is) and returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def prepare_tfds(
    folder: pathlib.Path, name: str, splits: Mapping[str, Sequence[Any]], *, in_shard: int = 20
) -> None:
    """Writes examples by split as TensorFlow Datasets prepares the data set `name`, at most `in_shard` a file."""
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=folder)
    pathlib.Path(builder.data_dir).mkdir(parents=True)
    writer = tfds.core.SequentialWriter(builder.info, max_examples_per_shard=in_shard)
    writer.initialize_splits(list(splits))
    writer.add_examples({split: list(examples) for split, examples in splits.items()})
    writer.close_all()


def write_data(root: pathlib.Path, *, train: int = 50, validation: int = 5) -> pathlib.Path:
    """Writes CB, MRPC, RTE (SuperGLUE's and GLUE's) and SST-2 with numbered examples below `root`; returns it."""
    entailment = ("entailment", "not_entailment")
    for split, count in (("train", train), ("val", validation)):
        pairs = [
            {"premise": f"a river {i}", "hypothesis": "the mill", "idx": i} for i in range(count)
        ]
        rte = [{**pair, "label": entailment[i % 2]} for i, pair in enumerate(pairs)]
        write_jsonl(root / "RTE" / f"{split}.jsonl", rte)
        classes = ("entailment", "contradiction", "neutral")
        cb = [{**pair, "label": classes[i % 3]} for i, pair in enumerate(pairs)]
        write_jsonl(root / "CB" / f"{split}.jsonl", cb)
    for split, count in (("train", train), ("dev", validation)):
        lines = ["sentence\tlabel", *(f"a film {i} \t{i % 2}" for i in range(count))]
        write_jsonl(root / "SST-2" / f"{split}.tsv", lines)
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [f"{i % 2}\t{i}\t{i + 1}\ta river {i}\tthe mill" for i in range(count)]
        write_jsonl(root / "MRPC" / f"{split}.tsv", lines)
        lines = ["index\tsentence1\tsentence2\tlabel"]
        lines += [f"{i}\ta river {i}\tthe mill\t{entailment[i % 2]}" for i in range(count)]
        write_jsonl(root / "RTE" / f"{split}.tsv", lines)
    return root
