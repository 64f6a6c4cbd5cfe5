"""P3's cache: examples of T0's tasks as they were written and tokenized, a folder of TFRecords each."""

import json
from collections.abc import Sequence
from typing import Any

import seqio
import tensorflow as tf
from etils import epath

from prompt_tuning.data.preprocessors import TextPreprocessor, mapped
from prompt_tuning.data.sources import FilesDataSource
from prompt_tuning.errors import DataError

_TEXTS = {"inputs": "inputs_pretokenized", "targets": "targets_pretokenized"}
_CHOICES = "answer_choices"


class P3DataSource(FilesDataSource):
    """The texts of one task in P3's cache, which is in the form of SeqIO's offline cache.

    Its ids are left where they are: tokenizing the texts gives the same ones, with T5's vocabulary, and others with
    another. So it does not matter which ids end with EOS there.

    Args:
      folder: The task's folder.
      has_choices: Whether its answer choices are read too.
    """

    def __init__(self, folder: str, *, has_choices: bool):
        self._folder = epath.Path(folder)
        self._has_choices = has_choices
        found = self._folder.glob("info.*.json") if self._folder.is_dir() else []
        super().__init__(splits=sorted(path.name.split(".")[1] for path in found))

    @property
    def form(self) -> Any:
        """What is read of each record."""
        return [*_TEXTS.values(), *([_CHOICES] if self._has_choices else [])]

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the paths of a split's files."""
        return sorted(map(str, self._folder.glob(f"{split}.tfrecord-*")))

    def num_input_examples(self, split: str) -> int | None:
        """Returns None: a mixture would keep each task's examples in memory."""
        del split

    def examples(
        self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        """Returns {inputs, targets: string} and, where asked for, {answer_choices: string [choices]}."""
        files = self._checked_files(split)
        if shard_info:
            files = files[shard_info.index :: shard_info.num_shards]
        ds = tf.data.Dataset.from_tensor_slices(files)
        if shuffle:
            ds = ds.shuffle(len(files), seed=seed)
        ds = ds.flat_map(tf.data.TFRecordDataset)
        spec: dict[str, Any] = {
            name: tf.io.FixedLenFeature([], tf.string) for name in _TEXTS.values()
        }
        if self._has_choices:
            spec[_CHOICES] = tf.io.VarLenFeature(tf.string)

        def parse(serialized: tf.Tensor) -> dict[str, Any]:
            found = tf.io.parse_single_example(serialized, spec)
            texts = {name: found[stored] for name, stored in _TEXTS.items()}
            return texts | ({_CHOICES: found[_CHOICES].values} if self._has_choices else {})

        return ds.map(parse, num_parallel_calls=tf.data.AUTOTUNE)

    def _checked_files(self, split: str) -> list[str]:
        """The split's files, complete and with the features that are read."""
        path = self._folder / f"info.{split}.json"
        try:
            info = json.loads(path.read_text())
            features, num_files = set(info["features"]), int(info["num_shards"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"The cache of a task cannot be read ({type(error).__name__}: {error})",
                got=str(path),
                expected="SeqIO's record of the split, with `features` and `num_shards`",
                fix="download the folder again",
            ) from error
        files = list(self.list_shards(split))
        missing = {*self.form} - features
        if missing or len(files) != num_files:
            raise DataError(
                f"The cache in {self._folder} is not complete",
                got=f"{len(files)} files of {split} with {', '.join(sorted(features))}",
                expected=f"{num_files} files with {', '.join(self.form)}",
                fix="download the folder again, or bind tasks.t0.data to a folder of JSONL files",
            )
        return files

    def __repr__(self) -> str:
        return f"P3DataSource({str(self._folder)!r})"


def is_cache(folder: epath.Path) -> bool:
    """Returns whether a folder is P3's cache, or one in its form: folders with SeqIO's records in them."""
    return any(True for _ in folder.glob("*/info.*.json"))


def written() -> TextPreprocessor:
    """Returns the preprocessor of texts that are written already: without the line break in front of P3's targets."""

    def strip(example: dict[str, Any]) -> dict[str, Any]:
        return {**example, "targets": tf.strings.strip(example["targets"])}

    return mapped(strip)
