"""What every training run of a built-in model shares: checkpoints, averaged weights, shipped weight files."""
