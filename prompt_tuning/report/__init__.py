"""The report: figures and tables of a sweep's results beside the paper's own numbers, as one page."""
