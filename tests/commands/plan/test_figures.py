"""Figures that follow from the compiler's words and from counts, without compiling."""

import pytest

from prompt_tuning.commands.plan import figures
from prompt_tuning.commands.plan.generations import GENERATIONS
from prompt_tuning.commands.plan.hlo_costs import Costs
from prompt_tuning.commands.plan.run_step import StepOnCores

GIB = 2**30
STEP = StepOnCores(lowered=None, weight_bytes=2 * GIB, optimizer_bytes=GIB, batch_bytes=0)
SHORT = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO"
    " temporaries (31.62G) exceeds available HBM (15.48G). HLO module: jit_train_step.\nSee elsewhere."
)
LONG = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G of \
15.75G hbm. Exceeded hbm capacity by 4.75G.

Total hbm usage >= 20.75G:
    reserved        258.00M
    program          15.50G
    arguments         5.00G
"""


@pytest.mark.parametrize(
    ("message", "available", "peak", "temporaries"),
    [(SHORT, 15.48, 34.62, 31.62), (LONG, 15.75, 20.5, 17.5), ("RESOURCE_EXHAUSTED", 9, 3, 0)],
)
def test_a_refusals_figures_are_the_compilers(message, available, peak, temporaries):
    found = figures.too_large(message, STEP, hbm_bytes=9 * GIB)
    assert found["hbm_bytes_per_core"] == int(available * GIB)
    assert found["peak_bytes_per_core"] == pytest.approx(peak * GIB)
    assert found["temp_bytes_per_core"] == pytest.approx(temporaries * GIB)
    assert found["message"] == message.splitlines()[0]


@pytest.mark.parametrize(
    ("costs", "seconds", "bound_by"),
    [
        (Costs(flops=197e12, bytes_moved=819e8, collectives={"all-gather": 1e9}), 1.0, "compute"),
        (Costs(flops=197e12, bytes_moved=2 * 819e9), 2.0, "memory"),
        (Costs(flops=1.0, collectives={"all-gather": 400e9, "all-reduce": 200e9}), 3.0, "links"),
    ],
)
def test_the_estimate_is_what_takes_longest(costs, seconds, bound_by):
    found, by = figures.estimate_seconds(costs, GENERATIONS["v5e"])
    assert (found, by) == (pytest.approx(seconds), bound_by)
