"""Where a language model's documents come from: files of one's own, C4's shards, or TensorFlow Datasets."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import seqio
import tensorflow as tf
from absl import logging
from etils import epath

from prompt_tuning.data import pipelines
from prompt_tuning.data.sources import DataDirOrTfdsDataSource, FilesDataSource
from prompt_tuning.data.text import text_files
from prompt_tuning.errors import DataError

C4_TFDS_NAME = "c4/en:2.2.0"
# As the data set `allenai/c4` on the Hugging Face Hub has it: c4/en/c4-train.00000-of-01024.json.gz and so on.
C4_FOLDER = "c4/en"
# Files read in turns, and documents taken from each before the next one's turn, as SeqIO's own file sources do.
_FILES_IN_TURNS = 16
_DOCUMENTS_A_TURN = 16


class TextFilesDataSource(FilesDataSource):
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
    def form(self) -> str:
        """Where the text is."""
        return self._text_field

    def list_shards(self, split: str) -> Sequence[str]:
        """Returns the files of a split."""
        return text_files.find_files(self._patterns[split])

    def num_input_examples(self, split: str) -> int | None:
        """Returns None: files are not read to count their documents."""
        del split
        return None

    def examples(
        self, split: str, shuffle: bool, seed: int | None, shard_info: seqio.ShardInfo | None
    ) -> tf.data.Dataset:
        """Returns the documents of a split, {"text": string}; arguments as `get_dataset`.

        The files are permuted; documents are shuffled later on, among a thousand examples. Where there are fewer files
        than shards, the documents are divided among these.

        Raises:
          DataError: A file is missing, or its first document malformed. What is wrong further on is found when it is
            read; `pipelines.readable_errors` makes that a DataError too.
        """
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
            with pipelines.remembering():
                for text in text_files.read_documents(path.decode(), self._text_field):
                    yield {"text": text}

        signature = {"text": tf.TensorSpec([], tf.string)}
        return tf.data.Dataset.from_generator(documents, output_signature=signature, args=(path,))

    def __repr__(self) -> str:
        return f"TextFilesDataSource({self._patterns}, text_field={self._text_field!r})"


class C4DataSource(DataDirOrTfdsDataSource):
    """English C4: its JSONL shards in `{data_dir}/c4/en` where the run names a `data_dir`, else TensorFlow Datasets.

    The shards are those of `allenai/c4`; some of them are enough to start with. TensorFlow Datasets has to build C4
    from Common Crawl first. Nothing is read before a dataset is built.
    """

    def __init__(self) -> None:
        super().__init__(
            C4_TFDS_NAME,
            ("train", "validation"),
            originals=f"{C4_FOLDER}/ with the .json.gz files of allenai/c4",
        )

    def find(self, data_dir: str, split: str) -> seqio.DataSource:
        """Returns the source of a split's shards."""
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
