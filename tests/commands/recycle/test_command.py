"""`prompt-tuning recycle`: files in and out, and models or prompts that do not belong together."""

import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.checkpoints.prompt_files.read import load_prompt
from prompt_tuning.params.names import EMBEDDING
from tests.checkpoints.huggingface_writer import make_tensors, write_model
from tests.checkpoints.t5x_writer import write_t5x_checkpoint

WORDS = ["--num_words=20", "--word_offset=10"]


@pytest.fixture
def models(tmp_path):
    """Two models of which one's embeddings are a linear map of the other's, and a prompt of the first."""
    rng = np.random.default_rng(0)
    table, matrix, prompt = (
        rng.normal(size=shape).astype(np.float32) for shape in ((32, 8), (8, 6), (3, 8))
    )
    table[:10] = 100
    paths = {
        name: str(write_t5x_checkpoint(tmp_path / name / "checkpoint_1", {EMBEDDING: x}, 1))
        for name, x in (("one", table), ("other", table @ matrix), ("larger", np.ones((40, 6))))
    }
    paths["prompt"] = str(tmp_path / "prompt.npy")
    info = {"task": "a", "initial_checkpoint_path": paths["one"], "frozen_digest": "0" * 64}
    write.write_prompt(paths["prompt"], prompt, info, file_format="npy")
    return paths, prompt @ matrix


def test_the_prompt_is_mapped_as_the_embeddings_are(models, tmp_path, capsys):
    paths, expected = models
    target = tmp_path / "mapped.safetensors"
    argv = ["recycle", paths["prompt"], str(target), f"--target_model={paths['other']}", *WORDS]
    assert cli.main([*argv, "--recycler=v2v-lin"]) == 0
    captured = capsys.readouterr()
    assert "length 3 and width 6, recycled by v2v-lin" in captured.out
    assert "ids are taken to mean the same tokens" in captured.err
    prompt, info = load_prompt(target)
    np.testing.assert_allclose(prompt, expected, atol=1e-4)
    # It belongs to other weights than the one that it comes from, and no digest says to which.
    assert info is not None and "frozen_digest" not in info and info["task"] == "a"
    assert info["recycled"] == {
        "recycler": "v2v-lin",
        "num_words": 20,
        "word_offset": 10,
        "source_model": paths["one"],
        "target_model": paths["other"],
        "from": paths["prompt"],
    }


def test_what_does_not_belong_together_is_refused(models, tmp_path, capsys):
    paths, _ = models
    np.save(tmp_path / "unknown.npy", np.ones((2, 8), np.float32))
    unknown = str(tmp_path / "unknown.npy")
    target, other = str(tmp_path / "mapped.npy"), f"--target_model={paths['other']}"
    folders = [tmp_path / name for name in ("hf", "hf2")]
    for folder, vocabulary in zip(folders, ("spiece.model", "tokenizer.model"), strict=True):
        write_model(folder, make_tensors())
        (folder / vocabulary).write_bytes(vocabulary.encode())
    of_hf = [f"--source_model={folders[0]}", f"--target_model={folders[1]}"]
    for argv, text in (
        ([paths["prompt"], target, f"--target_model={paths['larger']}"], "different vocabularies"),
        ([paths["prompt"], target, *of_hf], "different vocabularies"),
        ([paths["prompt"], target, other, "--word_offset=20"], "at most 32 together"),
        ([paths["prompt"], target, other, "--num_words=0"], "--num_words"),
        ([paths["prompt"], str(tmp_path / "mapped"), other], "format of TARGET"),
        ([paths["prompt"], unknown, other], "TARGET exists"),
        ([unknown, target, other], "add --source_model"),
        ([paths["prompt"], target, other, f"--source_model={paths['other']}"], "was not tuned on"),
    ):
        assert cli.main(["recycle", *argv[:2], *WORDS, *argv[2:]]) == 2
        assert text in capsys.readouterr().err
    assert not (tmp_path / "mapped.npy").exists()
