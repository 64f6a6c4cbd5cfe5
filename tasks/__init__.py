"""SeqIO tasks. Import the module that registers what you need, or name it as `MIXTURE_OR_TASK_MODULE`."""
