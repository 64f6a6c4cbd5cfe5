import pytest

from prompt_tuning.checkpoints import paths


@pytest.mark.parametrize("slash", ["", "/"])
def test_folders_as_tensorstore_names_them(tmp_path, monkeypatch, slash):
    assert paths.kvstore(f"gs://bucket/t5/target.a{slash}") == {
        "driver": "gcs",
        "bucket": "bucket",
        "path": "t5/target.a/",
    }
    monkeypatch.chdir(tmp_path)
    for folder in (f"t5/target.a{slash}", f"{tmp_path}/t5/target.a{slash}"):
        assert paths.kvstore(folder) == {"driver": "file", "path": f"{tmp_path}/t5/target.a/"}


def test_steps_in_counts_only_checkpoints(tmp_path):
    for name in ("checkpoint_2", "checkpoint_10", "checkpoint_x", "numpy_checkpoints"):
        (tmp_path / name).mkdir()
    assert paths.steps_in(tmp_path) == [2, 10]
    assert paths.steps_in(tmp_path / "none") == []
