"""A short one of the long loads."""

import json
import re

import pytest

from prompt_tuning.launch.benchmarks.serving import long_load


@pytest.mark.slow
def test_no_answer_is_lost_or_anothers(capsys):
    code = long_load.run(200, "pico", 8, 0)
    printed = capsys.readouterr().out
    assert code == 0, printed
    (found,) = re.findall(r"^\{.*^\}", printed, re.M | re.S)
    counts = json.loads(found)
    assert counts["refused as they should be"] > 10 and counts["sent: lend"] > 0
    assert sum(n for what, n in counts.items() if what.startswith("sent: ")) == 200
    assert "exit code 0; 0 tracebacks" in printed
