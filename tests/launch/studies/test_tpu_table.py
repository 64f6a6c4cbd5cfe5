"""The tables of docs/machines/tpu.md, from figures that are made up."""

import dataclasses

import pytest

from prompt_tuning.commands.plan.figures import Figures
from prompt_tuning.commands.plan.search import Variants
from prompt_tuning.launch.studies import tpu_table

GIB = 2**30
FITS = Figures(
    topology="v5e:2x2",
    mode="train",
    fits=True,
    mesh={"data": 4, "model": 1},
    cores=4,
    hbm_bytes_per_core=16 * GIB,
    peak_bytes_per_core=5 * GIB,
    weight_bytes_per_core=2 * GIB,
    optimizer_bytes_per_core=GIB,
    batch_bytes_per_core=0,
    temp_bytes_per_core=2 * GIB,
    flops_per_core=1.5e12,
    bytes_moved_per_core=2e9,
    collective_bytes_per_core=3e9,
    estimated_step_seconds=0.25,
    hours=2.0,
    chip_hours=8.0,
    compiler="libtpu 1",
)


def measure_as(monkeypatch, temporaries_of_one):
    """Makes up a compiler whose temporaries shrink with the microbatches; returns the changes it is asked for."""
    asked = []

    def measure(self, topology, change):
        settings = dict(change.settings)
        asked.append(settings)
        size = temporaries_of_one * GIB // int(settings["trainer.Trainer.num_microbatches"])
        return dataclasses.replace(
            FITS, topology=topology, temp_bytes_per_core=size, fits=size <= 13 * GIB
        )

    monkeypatch.setattr(Variants, "measure", measure)
    return asked


@pytest.mark.parametrize(
    ("temporaries", "parts", "tries"),
    [(10, 1, 1), (20, 2, 2), (100, 8, 2), (500, 8, 2)],
)
def test_a_row_takes_the_microbatches_that_fit(monkeypatch, temporaries, parts, tries):
    asked = measure_as(monkeypatch, temporaries)
    row = tpu_table.measure(tpu_table.RUNS["prompt"], "small", "v5e:2x2")
    # At most 32 examples / 4 replicas.
    assert (row["microbatches"], len(asked)) == (parts, tries)
    assert row["fits"] is (temporaries // parts <= 13)
    assert (row["batch"], row["num_steps"]) == (32, None)


@pytest.mark.parametrize("name", list(tpu_table.RUNS))
def test_every_run_of_the_tables_resolves(name):
    run = tpu_table.RUNS[name]
    planned = run.variants(run.sizes[0]).read()
    assert planned.num_steps and planned.trainer is not None


def test_the_page_shows_what_fits_and_what_does_not(tmp_path):
    common = {"batch": 32, "microbatches": 2, "remat": "none"}
    too_large = dataclasses.replace(FITS, fits=False, peak_bytes_per_core=20 * GIB)
    rows = {
        ("prompt", "xl", "v5e:2x2"): FITS.to_json() | common,
        ("prompt", "xxl", "v5e:1x1"): too_large.to_json() | common,
    }
    page = tmp_path / "tpu.md"
    page.write_text(f"before\n{tpu_table.BEGIN}old\n{tpu_table.END}after\n")
    tpu_table.write_page(page, tpu_table.tables(rows))
    text = page.read_text()
    assert text.startswith(f"before\n{tpu_table.BEGIN}") and text.endswith("after\n")
    assert "old" not in text and "libtpu 1" in text and "Model tuning" not in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    assert "| XL | `v5e:2x2` | 4 x 1 | 32 / 2 | none | 5.00 | 16.00 | 2.00 | 2.00 | 1.500 |" in text
    assert "*0.250* | *2.0* | *8* |" in text
    assert "**too large**: 20.00" in text


def test_the_page_in_the_repository_has_its_markers():
    text = tpu_table.PAGE.read_text()
    assert text.count(tpu_table.BEGIN) == text.count(tpu_table.END) == 1
