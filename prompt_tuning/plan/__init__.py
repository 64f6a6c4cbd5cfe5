"""`prompt-tuning plan`: what the TPU compiler says of a run's step, on a machine without a TPU."""
