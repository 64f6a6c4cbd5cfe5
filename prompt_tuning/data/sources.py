"""Where raw examples come from: files that are read here, or TensorFlow Datasets."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from prompt_tuning.data import columns, context, home
from prompt_tuning.data.columns import Columns
from prompt_tuning.data.lines import shorten
from prompt_tuning.errors import ConfigError, DataError


def files_by_split(given: Mapping[str, str | Sequence[str] | None]) -> dict[str, tuple[str, ...]]:
    """Returns the paths of each split that has some.

    Args:
      given: Split -> a path, several, or None.

    Raises:
      ConfigError: No split has any, or one has an empty list.
    """
    files = {
        split: tuple(map(home.expand, [paths] if isinstance(paths, str) else map(str, paths)))
        for split, paths in given.items()
        if paths is not None
    }
    # A list that came out empty is a slip of the pen, such as a pattern that nothing matches.
    empty = [split for split, paths in files.items() if not any(paths)]
    if empty or not files:
        raise ConfigError(
            f"The task has no files for {empty[0]}" if empty else "The task has no files",
            got=given[empty[0]] if empty else None,
            expected=f"a path for one of {', '.join(given)}",
            fix=f"correct {empty[0]}, or leave it out" if empty else "set train and validation",
        )
    return files


class FileFormat(Protocol):
    """How the examples of a split lie in its files; equal formats are hashed alike."""

    def read(self, paths: Sequence[str], split: str) -> Columns:
        """Returns the examples of a split's files."""
        ...


class FilesDataSource(seqio.DataSource):
    """A source whose splits lie in files; nothing is read before a dataset is built.

    Subclasses say in `examples` what they read.
    """

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: a split lies in fixed files."""
        return False

    @property
    def form(self) -> Any:
        """What is made of the files, wherever they are: what tells two sources of the same files apart."""
        return None

    @property
    def has_files(self) -> bool:
        """Whether `list_shards` names files whose content may be compared."""
        return True

    def get_dataset(
        self,
        split: str = "train",
        shuffle: bool = True,
        seed: int | None = None,
        shard_info: seqio.ShardInfo | None = None,
        *,
        sequence_length: Mapping[str, int] | None = None,
        use_cached: bool = False,
        num_epochs: int | None = 1,
    ) -> tf.data.Dataset:
        """Returns the raw examples of a split.

        Args:
          split: One of the source's splits.
          shuffle: Whether to permute its examples, or its files.
          seed: Seed of that; the same seed gives the same order on every machine.
          shard_info: Which share of the examples to return; all if None.
          sequence_length: Not used, as in SeqIO's own sources.
          use_cached: Not used.
          num_epochs: Not used.

        Returns:
          {feature: value} of each example.

        Raises:
          DataError: The data is missing, empty or malformed.
        """
        del sequence_length, use_cached, num_epochs
        return self.examples(split, shuffle, seed, shard_info)

    def examples(
        self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        """Returns the raw examples of a split; arguments as `get_dataset`."""
        raise NotImplementedError

    def rows(self, split: str) -> Iterator[Mapping[str, Any]] | None:
        """Returns the raw examples of a split in order, as tensors or bytes; None where only a dataset has them."""
        del split


class RecordFilesDataSource(FilesDataSource):
    """Examples that are read whole and kept in memory.

    Args:
      files: Paths of each split.
      fmt: Reads them.
    """

    def __init__(self, files: Mapping[str, Sequence[str]], fmt: FileFormat):
        super().__init__(splits=tuple(files))
        self._files = {split: tuple(paths) for split, paths in files.items()}
        self._format = fmt

    @property
    def form(self) -> Any:
        """The format."""
        return self._format

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the names of a split's files."""
        return list(self._files[split])

    def num_input_examples(self, split: str) -> int | None:
        """Returns the number of raw examples of a split."""
        return columns.length(self._columns(split))

    def examples(
        self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        """Returns the raw examples of a split; arguments as `get_dataset`."""
        found = self._columns(split)
        if shuffle:
            order = np.random.default_rng(seed).permutation(columns.length(found))
            found = columns.take(found, order)
        ds = columns.as_dataset(found)
        return ds.shard(shard_info.num_shards, shard_info.index) if shard_info else ds

    def rows(self, split: str) -> Iterator[Mapping[str, Any]]:
        """Yields the raw examples of a split in order."""
        found = self._columns(split)
        for index in range(columns.length(found)):
            yield columns.row(found, index)

    def _columns(self, split: str) -> Columns:
        """Returns the columns of a split, parsed once for as long as its files do not change."""
        paths = self._files[split]
        stats = [path.stat() for path in map(epath.Path, paths) if path.is_file()]
        return _parse(self._format, paths, split, tuple((s.mtime, s.length) for s in stats))

    def __repr__(self) -> str:
        return f"RecordFilesDataSource({self._files})"


@functools.lru_cache(maxsize=8)
def _parse(fmt: FileFormat, paths: tuple[str, ...], split: str, stats: Any) -> Columns:
    # Part of the cache's key only: a changed file is read again.
    del stats
    return fmt.read(paths, split)


class DataDirOrTfdsDataSource(FilesDataSource):
    """The original files in the run's `data_dir`, where it names one, else TensorFlow Datasets.

    With a `data_dir`, a missing folder or file is an error: a run never downloads what it was told to find locally.

    Args:
      tfds_name: Name with config and version, for example `super_glue/boolq:1.0.2`.
      splits: The splits that there are; a dict from our name of a split to the one of TensorFlow Datasets.
      originals: What a `data_dir` must hold, for the error where TensorFlow Datasets fails.
    """

    def __init__(
        self, tfds_name: str, splits: Sequence[str] | Mapping[str, str], *, originals: str
    ):
        super().__init__(splits=tuple(splits))
        self._tfds_name = tfds_name
        self._tfds = seqio.TfdsDataSource(tfds_name=tfds_name, splits=splits)
        self._originals = originals

    def find(self, data_dir: str, split: str) -> seqio.DataSource:
        """Returns the source of a split's original files; raises DataError where they are not there."""
        raise NotImplementedError

    @property
    def form(self) -> Any:
        """Name and version; the format of the original files is the program's own."""
        return self._tfds_name

    @property
    def has_files(self) -> bool:
        """Whether the original files are read: data sets of TensorFlow Datasets are known by name and version."""
        return context.get_data_dir() is not None

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the names of a split's files."""
        with self._chosen(split) as source:
            return source.list_shards(split)

    def num_input_examples(self, split: str) -> int | None:
        """Returns the number of raw examples of a split, None where that is not known."""
        with self._chosen(split) as source:
            return source.num_input_examples(split)

    def examples(
        self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        """Returns the features as TensorFlow Datasets has them; arguments as `get_dataset`."""
        with self._chosen(split) as source:
            return source.get_dataset(split, shuffle, seed, shard_info)

    @contextlib.contextmanager
    def _chosen(self, split: str) -> Iterator[seqio.DataSource]:
        """Yields the original files, or TensorFlow Datasets, whose failures are then explained."""
        data_dir = context.get_data_dir()
        if data_dir is not None:
            yield self.find(data_dir, split)
            return
        try:
            yield self._tfds
        except ImportError:
            # A package is missing here, which no other folder would mend.
            raise
        # Downloads and builders raise errors of several libraries.
        except Exception as error:
            raise DataError(
                f"TensorFlow Datasets cannot load {self._tfds_name!r}"
                f" ({type(error).__name__}: {shorten(str(error), 300)})",
                got=self._tfds.tfds_dataset.data_dir,
                expected="a prepared data set, or network access to download it",
                fix="pass --tfds_data_dir with a prepared copy, or set data_dir to a folder that holds"
                f" {self._originals}",
            ) from error
