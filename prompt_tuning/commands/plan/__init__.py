"""Memory, operations and time of a run's step on a TPU slice, by its compiler; needs no TPU."""
