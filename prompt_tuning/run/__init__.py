"""What the four runs share: where parameters come from, what is compiled, how a run stops and goes on."""
