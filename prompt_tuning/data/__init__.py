"""SeqIO tasks to batches. With `prompt_tuning.tasks`, the only home of TensorFlow and SeqIO."""
