"""Draw the results of sweeps beside the paper's numbers, as one HTML page."""
