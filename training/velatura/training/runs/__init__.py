"""What every training run leaves behind: checkpoints, a CSV log, sample grids."""
