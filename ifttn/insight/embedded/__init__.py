"""What serves the embedded data set alone: judges of rings and discs, masks of its balls, a denoiser of its frames."""
