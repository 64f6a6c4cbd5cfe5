"""Where the records of T0's data sets are: Hugging Face `datasets`, or folders of JSONL files."""

import abc
import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from prompt_tuning.data import lines, pipelines
from prompt_tuning.data.content import is_file
from prompt_tuning.data.lines import shorten
from prompt_tuning.data.sources import FilesDataSource
from prompt_tuning.data.t0.data_sets import DataSet
from prompt_tuning.data.templates.tasks import RECORD
from prompt_tuning.errors import ConfigError, DataError


class RecordsDataSource(FilesDataSource):
    """Records that are read one by one where they are, in any order; each is the JSON text of `record`."""

    @abc.abstractmethod
    def count(self, split: str) -> int:
        """Returns the number of a split's records; raises DataError where it cannot be read."""

    @abc.abstractmethod
    def read(self, split: str, index: int) -> bytes:
        """Returns one record of a split as JSON; raises DataError where it is malformed."""

    def num_input_examples(self, split: str) -> int | None:
        """Returns None: SeqIO would keep the records of each template's task in memory, many times over."""
        del split

    def examples(
        self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        """Returns the records, shuffled in an order of all of them, another one in each epoch."""
        ds = _order(self.count(split), seed if shuffle else None)
        if shard_info:
            ds = ds.shard(shard_info.num_shards, shard_info.index)

        def python(index: np.int64) -> bytes:
            with pipelines.remembering():
                return self.read(split, int(index))

        def read(index: Any) -> dict[str, Any]:
            record: Any = tf.numpy_function(python, [index], tf.string, stateful=False)
            record.set_shape([])
            return {RECORD: record}

        return ds.map(read, num_parallel_calls=1)

    def rows(self, split: str) -> Iterator[Mapping[str, Any]]:
        """Yields the records of a split in order."""
        for index in range(self.count(split)):
            yield {RECORD: self.read(split, index)}


def _order(num: int, seed: int | None) -> tf.data.Dataset:
    """0, 1, …, num - 1 as int64; with a seed in an order that is drawn anew whenever the dataset is gone through."""
    numbers = tf.data.Dataset.range(num)
    if seed is None:
        return numbers
    # A permutation that is computed, not kept: the numbers of a large data set would take seconds to shuffle.
    shuffled: Any = tf.random.experimental.index_shuffle  # pyright: ignore[reportAttributeAccessIssue]
    draws = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    return draws.flat_map(
        lambda draw: numbers.map(lambda i: shuffled(i, seed=tf.stack([draw, 0]), max_index=num - 1))
    )


class JsonlDataSource(RecordsDataSource):
    """Records of JSONL files, one a split, whose lines are read where they are.

    Args:
      files: Split -> path.
    """

    def __init__(self, files: Mapping[str, str]):
        super().__init__(splits=tuple(files))
        self._files = dict(files)

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the path of a split's file; raises DataError where there is none."""
        return [str(_existing(self._files[split]))]

    def count(self, split: str) -> int:
        """Returns the number of lines that are not blank."""
        return len(_lines(self._files[split]))

    def read(self, split: str, index: int) -> bytes:
        """Returns a line, which is checked to be a JSON object."""
        path = self._files[split]
        number, start = _lines(path)[index]
        with epath.Path(path).open("rb") as file:
            file.seek(int(start))
            line = file.readline().rstrip(b"\r\n")
        where = f"{path}:{number}"
        lines.parse_json_object(lines.decode(line, where=where), where=where)
        return line

    def __repr__(self) -> str:
        return f"JsonlDataSource({self._files})"


def _existing(path: str) -> epath.Path:
    """The path of a file; raises DataError where there is none."""
    if not is_file(path):
        raise DataError(
            "The file does not exist",
            got=path,
            expected="a JSONL file of the data set's records",
            fix="write it there, or correct tasks.t0.data",
        )
    return epath.Path(path)


def _lines(path: str) -> np.ndarray:
    """(number from 1, first byte) of each line that is not blank, [n, 2] int64; counted once until the file changes."""
    stat = _existing(path).stat()
    return _count_lines(path, (stat.mtime, stat.length))


@functools.lru_cache(maxsize=1024)
def _count_lines(path: str, stat: Any) -> np.ndarray:
    # Part of the cache's key only.
    del stat
    found, start = [], 0
    with epath.Path(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                found.append((number, start))
            start += len(line)
    if not found:
        raise DataError(
            "The file holds no examples",
            got=path,
            expected="at least one record",
            fix="put examples into the file, or remove it",
        )
    return np.array(found, np.int64)


class HubDataSource(RecordsDataSource):
    """Records of a data set that Hugging Face `datasets` loads, and downloads where it must.

    Args:
      data: The data set.
      splits: Name of each split -> its name in the data set; None for the usual ones.
    """

    def __init__(self, data: DataSet, splits: Mapping[str, str] | None = None):
        self._splits_there = dict(splits or data.splits)
        super().__init__(splits=tuple(self._splits_there))
        self._data = data

    @property
    def form(self) -> Any:
        """What it is loaded by; the Hub may hold other records under it some day, which nothing here tells."""
        return [self._data.hub_id, self._data.subset, self._splits_there]

    @property
    def has_files(self) -> bool:
        """False: it is known by its name."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns what stands for a split's files; raises DataError where it cannot be loaded."""
        self.count(split)
        return [f"{self._data.hub_id}/{split}"]

    def count(self, split: str) -> int:
        """Returns the number of records."""
        return len(_load(self._data, self._splits_there[split]))

    def read(self, split: str, index: int) -> bytes:
        """Returns a record; of what JSON has no form for, dates say, the text."""
        return json.dumps(_load(self._data, self._splits_there[split])[index], default=str).encode(
            "utf-8"
        )

    def __repr__(self) -> str:
        return f"HubDataSource({self._data.path!r})"


@functools.lru_cache(maxsize=1024)
def _load(data: DataSet, split: str) -> Any:
    """A split, by its name in the data set, as Hugging Face `datasets` has it."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError(
            f"T0's data sets need Hugging Face `datasets`, which cannot be imported ({error})",
            got="an installation without it",
            expected="the extra [t0], or tasks.t0.data with a folder of JSONL files or P3's cache",
            fix="run `pip install 'prompt-tuning[t0]'`",
        ) from error
    try:
        return datasets.load_dataset(data.hub_id, data.subset, split=split)
    # Servers, scripts that are not run any more, unknown splits: each raises errors of its own.
    except Exception as error:
        raise DataError(
            f"Hugging Face `datasets` cannot load {split} of {data.path!r}"
            f" ({type(error).__name__}: {shorten(str(error), 300)})",
            got=data.hub_id,
            expected="a data set that `datasets.load_dataset` knows under this name and configuration",
            fix=f"write its records to FOLDER/{data.path}/{split}.jsonl, those of the other data sets likewise, and"
            " bind tasks.t0.data = FOLDER",
        ) from error
