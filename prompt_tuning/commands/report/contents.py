"""The sections of the report, in the order of the paper."""

from prompt_tuning.commands.report import paper_figures, paper_runs, paper_tables
from prompt_tuning.commands.report.rows import Results
from prompt_tuning.commands.report.sections import Section


def sections(results: Results) -> list[Section]:
    """Returns every section; those of the paper also where nothing was measured.

    Args:
      results: All results.

    Returns:
      The paper's figures and tables, real data, then sweeps that are none of the paper's.
    """
    found = [
        *(paper_figures.section(name, results) for name in paper_figures.FIGURES),
        paper_tables.table_1(results),
        paper_tables.table_2(results),
        paper_tables.table_3(results),
        paper_tables.table_4(results),
        paper_runs.table_5(results),
        paper_runs.search(results),
        paper_runs.real_data(results),
    ]
    known = {made.sweep.name for section in found for made in section.made}
    own = sorted({sweep.name for sweep in results.sweeps} - known)
    return [*found, *(paper_runs.other(name, results) for name in own)]
