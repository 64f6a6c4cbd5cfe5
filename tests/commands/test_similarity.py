"""Similarity of prompts as in SPoT, the choice of sources, and the command."""

import json

import numpy as np
import pytest

from prompt_tuning import cli
from prompt_tuning.checkpoints.prompt_files import write
from prompt_tuning.commands import similarity
from prompt_tuning.commands.similarity import similarity_of_means, similarity_of_pairs
from prompt_tuning.errors import CheckpointError, ConfigError


def prompt_of(seed, length=6, width=8, lean=0.0):
    """A random prompt, leaning towards a direction that all share."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(length, width)) + lean).astype(np.float32)


def test_both_measures_are_what_their_definitions_say():
    prompts = [prompt_of(seed, length) for seed, length in enumerate((6, 3, 10))]
    means, pairs = similarity_of_means(prompts), similarity_of_pairs(prompts)
    compared = 0
    for i, a in enumerate(prompts):
        for j, b in enumerate(prompts):
            cosine = a.mean(0) @ b.mean(0) / np.linalg.norm(a.mean(0)) / np.linalg.norm(b.mean(0))
            assert means[i, j] == pytest.approx(cosine, abs=1e-6)
            each = [x @ y / np.linalg.norm(x) / np.linalg.norm(y) for x in a for y in b]
            assert pairs[i, j] == pytest.approx(np.mean(each), abs=1e-6)
            compared += 1
    assert compared == 9
    np.testing.assert_allclose(np.diag(means), 1, atol=1e-12)


def test_the_order_of_rows_and_the_length_of_all_of_them_do_not_matter():
    one, other = prompt_of(0), prompt_of(1)
    mixed = 7 * np.random.default_rng(2).permutation(one)
    for measure in (similarity_of_means, similarity_of_pairs):
        np.testing.assert_allclose(
            measure([one, other]), measure([mixed, other]), rtol=1e-5, atol=1e-7
        )
    # In another order a prompt is as alike to itself as in its own: 1 by its mean; by pairs only if all rows agree.
    assert similarity_of_means([one, mixed])[0, 1] == pytest.approx(1, abs=1e-6)
    assert similarity_of_pairs([one, mixed])[0, 1] == pytest.approx(
        similarity_of_pairs([one])[0, 0], rel=1e-5
    )
    alike = np.arange(1, 4, dtype=np.float32)[:, None] * one[:1]
    assert similarity_of_pairs([alike])[0, 0] == pytest.approx(1, abs=1e-6)


@pytest.fixture
def prompts(tmp_path):
    """Files of a target, a near source, a middling one that is longer, and a far one."""
    shared = prompt_of(9, 1)
    made = {
        "target": prompt_of(0) + 3 * shared,
        "near": prompt_of(1) + 3 * shared,
        "middle": prompt_of(2, 9) + shared,
        "far": prompt_of(3) - 3 * shared,
    }
    paths = {}
    for name, prompt in made.items():
        paths[name] = tmp_path / f"{name}.npy"
        np.save(paths[name], prompt)
    return paths


def run(capsys, *args):
    assert cli.main(["similarity", *map(str, args)]) == 0
    return capsys.readouterr()


def test_the_command_ranks_sources_and_says_how_to_start_from_the_best(prompts, capsys):
    named = [f"{name}={path}" for name, path in prompts.items()]
    result = json.loads(run(capsys, *named, "--target=target", "--top=2", "--format=json").out)
    assert [prompt["name"] for prompt in result["prompts"]] == list(prompts)
    assert [prompt["length"] for prompt in result["prompts"]] == [6, 6, 9, 6]
    assert len(result["sources"]) == 2
    for sources in result["sources"].values():
        assert [source["name"] for source in sources] == ["near", "middle"]
    assert result["of_means"][0][1] > 0.9 and result["of_means"][0][3] < 0
    table = run(capsys, *named, "--target=target").out
    assert f"--gin.PROMPT_FILE=\"'{prompts['near']}'\" \\\n" in table
    assert "--gin.PROMPT_LENGTH=6" in table
    assert "middle" in table and "far" in table
    assert "start from" not in run(capsys, *named).out


def test_a_run_is_named_by_its_folder_and_the_flags_name_the_prompt_that_was_compared(
    tmp_path, prompts
):
    for step in (5, 10):
        info = {"frozen_digest": "ab", "task": "boolq"}
        write.save_prompts(
            tmp_path / "run", step, {"encoder/prompt/prompt/prompt": prompt_of(step)}, info
        )
    paths = {"run": str(tmp_path / "run"), "other": str(prompts["near"])}
    result = similarity.compare(paths, target="other")
    assert result["prompts"][0]["step"] == 10 and result["prompts"][0]["task"] == "boolq"
    sources = next(iter(result["sources"].values()))
    file = tmp_path / "run" / "numpy_checkpoints" / "checkpoint_10"
    assert sources[0]["flags"][1] == f"--gin.PROMPT_FILE=\"'{file}'\""


def test_prompts_of_different_frozen_weights_are_compared_with_a_warning(tmp_path, capsys):
    for name in "ab":
        write.save_prompts(
            tmp_path / name,
            1,
            {"encoder/prompt/prompt/prompt": prompt_of(0)},
            {"frozen_digest": name},
        )
    printed = run(capsys, f"a={tmp_path / 'a'}", f"b={tmp_path / 'b'}")
    assert "warning: the prompts were tuned on different frozen weights" in printed.err


def test_what_cannot_be_compared_is_refused(tmp_path, prompts):
    np.save(tmp_path / "wide.npy", prompt_of(0, width=16))
    near = str(prompts["near"])
    with pytest.raises(CheckpointError, match="different widths: got {'near': 8, 'wide': 16}"):
        similarity.compare({"near": near, "wide": str(tmp_path / "wide.npy")})
    with pytest.raises(ConfigError, match="--target is unknown: got 'neer'.*Closest matches: near"):
        similarity.compare({"near": near, "far": near}, target="neer")
    with pytest.raises(ConfigError, match="--top is not a number of sources: got 0"):
        similarity.compare({"near": near, "far": near}, target="near", top=0)
    for wrong in ([near], [f"a={near}"], [f"a={near}", f"a={near}"], [f"a={near}", f"={near}"]):
        with pytest.raises(ConfigError, match="expected NAME=PROMPT for each"):
            similarity.main(wrong)


@pytest.mark.parametrize(("name", "head"), [("s.png", b"\x89PNG"), ("s.svg", b"<?xml")])
def test_the_heat_map_is_written_in_the_format_of_its_name(prompts, tmp_path, capsys, name, head):
    named = [f"{key}={path}" for key, path in prompts.items()]
    picture = tmp_path / "pictures" / name
    run(capsys, *named, f"--png={picture}")
    assert picture.read_bytes().startswith(head)
