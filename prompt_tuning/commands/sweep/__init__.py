"""Run an experiment: every combination of sizes, tasks, seeds, ...; finished ones never again."""
