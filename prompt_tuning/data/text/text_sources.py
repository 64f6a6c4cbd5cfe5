"""Where a language model's documents come from: files of one's own, C4's shards, or TensorFlow Datasets."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf
from absl import logging
from etils import epath

from prompt_tuning.data import context
from prompt_tuning.data.lines import shorten
from prompt_tuning.data.text import text_files
from prompt_tuning.errors import DataError

C4_TFDS_NAME = "c4/en:2.2.0"
# As the data set `allenai/c4` on the Hugging Face Hub has it: c4/en/c4-train.00000-of-01024.json.gz and so on.
C4_FOLDER = "c4/en"
# Files read in turns, and documents taken from each before the next one's turn, as SeqIO's own file sources do.
_FILES_IN_TURNS = 16
_DOCUMENTS_A_TURN = 16

# What a reader inside a dataset raised last: TensorFlow passes on its text, but not the error.
_raised: DataError | None = None


class TextFilesDataSource(seqio.DataSource):
    """Documents of text files, read while they are needed.

    Args:
      split_to_patterns: Paths and globs of each split (see `text_files.find_files`).
      text_field: Where JSON objects hold their text.
    """

    def __init__(self, split_to_patterns: Mapping[str, Sequence[str]], text_field: str = "text"):
        super().__init__(splits=tuple(split_to_patterns))
        self._patterns = dict(split_to_patterns)
        self._text_field = text_field

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: a split lies in fixed files."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the files of a split."""
        return text_files.find_files(self._patterns[split])

    def num_input_examples(self, split: str) -> int | None:
        """Returns None: files are not read to count their documents."""
        del split
        return None

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
        """Returns the documents of a split.

        Args:
          split: One of the splits with files.
          shuffle: Whether to permute the files; documents are shuffled later on, among a thousand examples.
          seed: Seed of that; the same seed gives the same order on every machine.
          shard_info: Which share of the files to read (of the documents, where there are fewer files); all if None.
          sequence_length: Not used, as in SeqIO's own sources.
          use_cached: Not used.
          num_epochs: Not used.

        Returns:
          {"text": string}.

        Raises:
          DataError: A file is missing, or its first document malformed. What is wrong further on is found when it is
            read; `readable_errors` makes that a DataError too.
        """
        del sequence_length, use_cached, num_epochs
        files = np.array(self.list_shards(split))
        next(text_files.read_documents(str(files[0]), self._text_field))
        if shuffle:
            files = np.random.default_rng(seed).permutation(files)
        num_shards = shard_info.num_shards if shard_info else 1
        has_shards = len(files) >= num_shards
        if shard_info and has_shards:
            files = files[shard_info.index :: num_shards]
        ds = tf.data.Dataset.from_tensor_slices(files).interleave(
            self._read, cycle_length=_FILES_IN_TURNS, block_length=_DOCUMENTS_A_TURN
        )
        return ds.shard(num_shards, shard_info.index) if shard_info and not has_shards else ds

    @tf.autograph.experimental.do_not_convert
    def _read(self, path: tf.Tensor) -> tf.data.Dataset:
        """Returns the documents of one file."""

        def documents(path: bytes) -> Iterator[dict[str, str]]:
            global _raised
            try:
                for text in text_files.read_documents(path.decode(), self._text_field):
                    yield {"text": text}
            except DataError as error:
                _raised = error
                raise

        signature = {"text": tf.TensorSpec([], tf.string)}
        return tf.data.Dataset.from_generator(documents, output_signature=signature, args=(path,))

    def __repr__(self) -> str:
        return f"TextFilesDataSource({self._patterns}, text_field={self._text_field!r})"


class C4DataSource(seqio.DataSource):
    """English C4: its JSONL shards in `{data_dir}/c4/en` where the run names a `data_dir`, else TensorFlow Datasets.

    The shards are those of `allenai/c4`; some of them are enough to start with. TensorFlow Datasets has to build C4
    from Common Crawl first. Nothing is read before a dataset is built.
    """

    def __init__(self) -> None:
        super().__init__(splits=("train", "validation"))
        self._tfds = seqio.TfdsDataSource(tfds_name=C4_TFDS_NAME, splits=self.splits)

    @property
    def supports_arbitrary_sharding(self) -> bool:
        """False: a split lies in fixed files."""
        return False

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the names of a split's files."""
        with self._chosen(split) as source:
            return source.list_shards(split)

    def num_input_examples(self, split: str) -> int | None:
        """Returns the number of documents of a split, None where that is not known."""
        with self._chosen(split) as source:
            return source.num_input_examples(split)

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
        """Returns the documents of a split; arguments and errors as in `TextFilesDataSource`.

        Returns:
          {"text": string}, with the other features of TensorFlow Datasets where it is read.
        """
        del sequence_length, use_cached, num_epochs
        with self._chosen(split) as source:
            return source.get_dataset(split, shuffle, seed, shard_info)

    @contextlib.contextmanager
    def _chosen(self, split: str) -> Iterator[seqio.DataSource]:
        """Yields the shards, or TensorFlow Datasets, whose failures are then explained."""
        files = self._files(split)
        if files is not None:
            yield files
            return
        try:
            yield self._tfds
        except ImportError:
            # A package is missing here, which no folder would mend.
            raise
        # Downloads and builders raise errors of several libraries.
        except Exception as error:
            raise DataError(
                f"TensorFlow Datasets cannot load {C4_TFDS_NAME!r}"
                f" ({type(error).__name__}: {shorten(str(error), 300)})",
                got=self._tfds.tfds_dataset.data_dir,
                expected="a prepared data set",
                fix=f"set data_dir to a folder that holds {C4_FOLDER}/ with the .json.gz files of allenai/c4,"
                " or pass --tfds_data_dir with a prepared copy",
            ) from error

    def _files(self, split: str) -> TextFilesDataSource | None:
        """Returns the shards of a split, or None where TensorFlow Datasets is meant."""
        data_dir = context.get_data_dir()
        if data_dir is None:
            return None
        folder = epath.Path(data_dir) / C4_FOLDER
        pattern = f"c4-{split}.*.json.gz"
        found = sorted(map(str, folder.glob(pattern))) if folder.is_dir() else []
        if not found:
            raise DataError(
                f"data_dir has no shards of C4's {split} split",
                got=str(folder / pattern),
                expected=f"the files of allenai/c4, such as {folder}/c4-{split}.00000-of-01024.json.gz",
                fix="download some of them there, name another data_dir, or leave data_dir out to use"
                " TensorFlow Datasets",
            )
        logging.log_first_n(logging.INFO, "C4 %s: %d shards in %s", 2, split, len(found), folder)
        return TextFilesDataSource({split: found})

    def __repr__(self) -> str:
        return "C4DataSource()"


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Within the block, what stops TensorFlow's pipeline at a malformed line is the DataError that names it.

    Yields:
      Nothing.

    Raises:
      DataError: A source of this module raised it while the block took examples from a dataset.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if _raised is not None and str(_raised) in str(error):
            raise _raised from None
        raise
