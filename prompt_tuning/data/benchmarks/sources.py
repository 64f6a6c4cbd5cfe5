"""The source of a published data set: its original files in the run's `data_dir`, else TensorFlow Datasets."""

from collections.abc import Mapping, Sequence

import seqio

from prompt_tuning.data.benchmarks import local_files
from prompt_tuning.data.benchmarks.local_files import OriginalFormat
from prompt_tuning.data.sources import DataDirOrTfdsDataSource, RecordFilesDataSource


class LocalOrTfdsDataSource(DataDirOrTfdsDataSource):
    """Reads `{data_dir}/{folder}/{split file}` where the run names a `data_dir`, else TensorFlow Datasets.

    Args:
      tfds_name: Name with config and version, for example `super_glue/boolq:1.0.2`.
      local: Layout of the original files.
      splits: The splits that the data set has; a dict from our name of a split to the one of TensorFlow Datasets.
    """

    def __init__(
        self,
        *,
        tfds_name: str,
        local: OriginalFormat,
        splits: Sequence[str] | Mapping[str, str] = ("train", "validation", "test"),
    ):
        originals = f"{local.folder}/ with the original {local.suffix} files"
        super().__init__(tfds_name, splits, originals=originals)
        self._local = local

    def find(self, data_dir: str, split: str) -> seqio.DataSource:
        """Returns the source of a split's original file."""
        path = local_files.find_split(data_dir, self._local, split)
        return RecordFilesDataSource({split: [str(path)]}, self._local)

    def __repr__(self) -> str:
        return (
            f"LocalOrTfdsDataSource(tfds_name={self._tfds_name!r}, folder={self._local.folder!r})"
        )
