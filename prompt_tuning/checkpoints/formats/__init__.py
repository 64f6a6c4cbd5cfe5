"""Every format of checkpoints that is read, a module each."""
