"""How a model runs: the training loop, checkpoints, ranks, random numbers, files."""
