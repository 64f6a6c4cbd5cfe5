"""Where raw examples come from: the original files in the run's `data_dir`, else TensorFlow Datasets."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf
from etils import epath

from prompt_tuning.data import columns, context, lines
from prompt_tuning.data.benchmarks import local_files
from prompt_tuning.data.benchmarks.local_files import FileFormat
from prompt_tuning.data.columns import Columns
from prompt_tuning.errors import DataError


class LocalOrTfdsDataSource(seqio.DataSource):
    """Reads `{data_dir}/{folder}/{split file}` where the run names a `data_dir`, else TensorFlow Datasets.

    With a `data_dir`, a missing folder or file is an error: a run never downloads what it was told to find locally.
    Nothing is read before a dataset is built.

    Args:
      tfds_name: Name with config and version, for example `super_glue/boolq:1.0.2`.
      local: Layout of the original files.
      splits: The splits that the data set has; a dict from our name of a split to the one of TensorFlow Datasets.
    """

    def __init__(
        self,
        *,
        tfds_name: str,
        local: FileFormat,
        splits: Sequence[str] | Mapping[str, str] = ("train", "validation", "test"),
    ):
        super().__init__(splits=tuple(splits))
        self._local = local
        self._tfds_name = tfds_name
        self._tfds = seqio.TfdsDataSource(tfds_name=tfds_name, splits=splits)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: a split lies in fixed files."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the names of a split's files."""
        path = self._local_path(split)
        if path is not None:
            return [str(path)]
        with self._explaining_tfds():
            return self._tfds.list_shards(split)

    def num_input_examples(self, split: str) -> int | None:
        """Returns the number of raw examples of a split."""
        path = self._local_path(split)
        if path is not None:
            return columns.length(_columns(path, self._local, split))
        with self._explaining_tfds():
            return self._tfds.num_input_examples(split)

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
          split: `train`, `validation` or `test`.
          shuffle: Whether to permute local rows, or the files of TensorFlow Datasets.
          seed: Seed of that; the same seed gives the same order on every machine.
          shard_info: Which share of the examples to return; all if None.
          sequence_length: Not used, as in SeqIO's own sources.
          use_cached: Not used.
          num_epochs: Not used.

        Returns:
          The features as TensorFlow Datasets has them: {field: string, "label": int64, "idx": int32} of most.

        Raises:
          DataError: The data is missing, empty or malformed.
        """
        del sequence_length, use_cached, num_epochs
        path = self._local_path(split)
        if path is None:
            with self._explaining_tfds():
                return self._tfds.get_dataset(split, shuffle, seed, shard_info)
        examples = _columns(path, self._local, split)
        if shuffle:
            order = np.random.default_rng(seed).permutation(columns.length(examples))
            examples = columns.take(examples, order)
        ds = columns.as_dataset(examples)
        return ds.shard(shard_info.num_shards, shard_info.index) if shard_info else ds

    def _local_path(self, split: str) -> epath.Path | None:
        """Returns the local file of a split, or None where TensorFlow Datasets is meant."""
        data_dir = context.get_data_dir()
        if data_dir is None:
            return None
        return local_files.find_split(data_dir, self._local, split)

    @contextlib.contextmanager
    def _explaining_tfds(self) -> Iterator[None]:
        """Adds to a failure of TensorFlow Datasets what the user can do here."""
        try:
            yield
        except ImportError:
            # A package is missing here, which no other folder would mend.
            raise
        # Downloads raise errors of several libraries.
        except Exception as error:
            raise DataError(
                f"TensorFlow Datasets cannot load {self._tfds_name!r}"
                f" ({type(error).__name__}: {lines.shorten(str(error), 300)})",
                got=self._tfds.tfds_dataset.data_dir,
                expected="a prepared data set, or network access to download it",
                fix=f"pass --tfds_data_dir with a prepared copy, or set data_dir to a folder"
                f" that holds {self._local.folder}/ with the original {self._local.suffix} files",
            ) from error

    def __repr__(self) -> str:
        return (
            f"LocalOrTfdsDataSource(tfds_name={self._tfds_name!r}, folder={self._local.folder!r})"
        )


def _columns(path: epath.Path, local: FileFormat, split: str) -> Columns:
    """Returns the columns of a file, parsed once for as long as the file does not change."""
    stat = path.stat()
    return _parse(str(path), stat.mtime, stat.length, local, split)


@functools.lru_cache(maxsize=8)
def _parse(path: str, mtime: float, length: int, local: FileFormat, split: str) -> Columns:
    del mtime, length  # They are part of the cache's key only.
    return local.read(epath.Path(path), split)
