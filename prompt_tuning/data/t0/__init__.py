"""T0: its data sets and mixtures, and what was published of it."""
