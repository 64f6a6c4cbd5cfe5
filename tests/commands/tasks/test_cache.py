"""SeqIO's cache: written by Beam where it is installed, and read without it, in an order fixed by the seed."""

import importlib.util
import itertools
import json

import pytest
import seqio
import tensorflow as tf

from prompt_tuning import cli
from prompt_tuning.checkpoints import json_files
from prompt_tuning.data import batches, context, made_from
from prompt_tuning.data.batches import DatasetConfig
from prompt_tuning.errors import DataError
from prompt_tuning.tasks import super_glue as super_glue
from tests.data.local_data import write_data

TASK = "taskless_super_glue_rte_v102"
LENGTHS = {"inputs": 24, "targets": 8}
NUM_FILES = 3
HAS_BEAM = importlib.util.find_spec("apache_beam") is not None


@pytest.fixture
def clean():
    dirs = list(seqio.get_global_cache_dirs())
    yield
    context.set_context()
    seqio.set_global_cache_dirs(dirs)
    # A task remembers where it found its cache.
    seqio.TaskRegistry.get(TASK)._cache_dir = None


@pytest.fixture
def data_dir(clean, tmp_path, tiny_vocabulary):
    data = str(write_data(tmp_path / "data"))
    context.set_context(seqio.SentencePieceVocabulary(str(tiny_vocabulary)), data)
    return data


def write_cache(folder, split):
    """Writes what SeqIO's pipeline writes, without Beam."""
    task = seqio.TaskRegistry.get(TASK)
    ds = task.preprocess_precache(task.source.get_dataset(split, shuffle=False))
    examples = list(ds.as_numpy_iterator())
    folder.mkdir(parents=True)
    for i in range(NUM_FILES):
        path = f"{folder}/{split}.tfrecord-{i:05}-of-{NUM_FILES:05}"
        with tf.io.TFRecordWriter(path) as writer:
            for example in examples[i::NUM_FILES]:
                writer.write(seqio.dict_to_tfexample(example).SerializeToString())
    features = {
        name: {"shape": list(spec.shape), "dtype": spec.dtype.name}
        for name, spec in ds.element_spec.items()
    }
    info = {"num_shards": NUM_FILES, "features": features, "seqio_version": seqio.__version__}
    (folder / f"info.{split}.json").write_text(json.dumps(info))
    (folder / f"stats.{split}.json").write_text(json.dumps({"examples": len(examples)}))
    (folder / "COMPLETED").touch()


def check_batches_follow_the_seed():
    cfg = DatasetConfig(TASK, LENGTHS, "train", 8, shuffle=True, use_cached=True)

    def stream(seed, start=0, count=12):
        found = batches.train_batches(cfg, seed=seed, start_example=start)
        return [b["encoder_input_tokens"].tolist() for b in itertools.islice(found, count)]

    whole = stream(1)
    assert whole == stream(1) != stream(2)
    assert stream(1, start=7 * 8, count=5) == whole[7:]


def test_training_from_a_cache_has_the_same_batches_for_the_same_seed(data_dir, tmp_path):
    write_cache(tmp_path / "cache" / TASK, "train")
    seqio.add_global_cache_dirs([str(tmp_path / "cache")])
    # Nothing is read but the cache.
    context.set_context(context.get_vocabulary(), "/nowhere")
    check_batches_follow_the_seed()


@pytest.mark.skipif(HAS_BEAM, reason="Apache Beam is installed")
def test_a_cache_of_other_data_is_refused(data_dir, tmp_path):
    folder = tmp_path / "cache" / TASK
    write_cache(folder, "train")
    record = {"train": made_from.describe_cached(seqio.TaskRegistry.get(TASK), "train")}
    (folder / made_from.CACHE_RECORD).write_bytes(json_files.encode(record))
    seqio.add_global_cache_dirs([str(tmp_path / "cache")])
    cfg = DatasetConfig(TASK, LENGTHS, "train", 8, use_cached=True)
    made_from.check_cache(cfg)
    train = tmp_path / "data" / "RTE" / "train.jsonl"
    train.write_text(train.read_text().replace("a", "b", 1))
    with pytest.raises(DataError, match="made with another .*content of its files.*--overwrite"):
        made_from.check_cache(cfg)
    # Without the files there is nothing to compare them with.
    context.set_context(context.get_vocabulary(), "/nowhere")
    made_from.check_cache(cfg)
    (folder / made_from.CACHE_RECORD).write_text("[]")
    with pytest.raises(DataError, match="record of the cache .* is damaged"):
        made_from.check_cache(cfg)


def test_without_beam_the_error_names_the_extra(data_dir, tmp_path, tiny_vocabulary, capsys):
    flags = [f"--data_dir={data_dir}", f"--vocabulary={tiny_vocabulary}", "--extra_ids=0"]
    assert cli.main(["tasks", "cache", TASK, *flags, f"--output_cache_dir={tmp_path}/cache"]) == 2
    error = capsys.readouterr().err
    assert "Apache Beam" in error and "prompt-tuning[cache]" in error
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.skipif(not HAS_BEAM, reason="needs Apache Beam: pip install 'prompt-tuning[cache]'")
@pytest.mark.filterwarnings("default")
def test_beam_writes_a_cache_that_training_reads(data_dir, tmp_path, tiny_vocabulary, capsys):
    flags = [f"--data_dir={data_dir}", f"--vocabulary={tiny_vocabulary}", "--extra_ids=0"]
    cache = ["tasks", "cache", TASK, *flags, f"--output_cache_dir={tmp_path}/cache"]
    assert cli.main([*cache, f"--min_shards={NUM_FILES}", "--format=json"]) == 0
    (written,) = json.loads(capsys.readouterr().out)
    assert written["path"] == f"{tmp_path}/cache/{TASK}"
    counts = {split: (s["examples"], s["files"]) for split, s in written["splits"].items()}
    assert counts == {"train": (50, NUM_FILES), "validation": (5, NUM_FILES)}

    task = seqio.TaskRegistry.get(TASK)
    fresh = task.get_dataset(LENGTHS, "train", shuffle=False)
    seqio.add_global_cache_dirs([f"{tmp_path}/cache"])
    cached = task.get_dataset(LENGTHS, "train", use_cached=True, shuffle=False)
    rows = [
        sorted((int(e["idx"]), e["inputs"].tolist()) for e in ds.as_numpy_iterator())
        for ds in (fresh, cached)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 50
    check_batches_follow_the_seed()
    assert cli.main(cache) == 2
    assert "--overwrite" in capsys.readouterr().err
