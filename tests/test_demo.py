"""The demo: the README's first command."""

import pytest

from prompt_tuning import demo
from prompt_tuning.errors import ConfigError
from prompt_tuning.tasks import demo_reviews
from tests.helpers import run_cli


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "something").write_text("")
    with pytest.raises(ConfigError, match="demo's folder is not empty"):
        demo.main(["--dir", str(tmp_path)])


def test_generated_splits_share_no_sentence_and_hold_both_labels():
    train, dev = dict(demo_reviews.sentences("train")), dict(demo_reviews.sentences("validation"))
    assert (len(train), len(dev)) == (6000, 400)
    assert not train.keys() & dev.keys()
    for rows in (train, dev):
        assert 0.35 < sum(rows.values()) / len(rows) < 0.65
    assert list(demo_reviews.sentences("train")) == list(demo_reviews.sentences("train"))


@pytest.mark.slow
@pytest.mark.entry
@pytest.mark.timeout(900)
def test_the_demo_tunes_a_prompt_that_replaces_the_phrase(tmp_path):
    # One device, as on a laptop.
    done = run_cli("demo", "--dir", str(tmp_path), env={"XLA_FLAGS": ""}, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    scores = {}
    for line in done.stdout.splitlines():
        name, _, value = line.strip().rpartition(" ")
        if name.strip().startswith(("frozen model", "majority")):
            scores[name.strip()] = float(value)
    assert len(scores) == 4
    assert scores["frozen model, before tuning"] < 50
    assert scores["frozen model with the tuned prompt"] > scores["majority class"] + 20
    assert scores["frozen model with the tuned prompt"] > scores["frozen model, before tuning"] + 40
    assert (tmp_path / "prompt/numpy_checkpoints").is_dir()
