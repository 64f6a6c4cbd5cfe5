"""T0's tasks: 66 data sets, a task for each of their templates, mixtures of them, and T-Few's few-shot sets."""
