"""Measurements of our own parts beside the programs that others use for the same, on the machine of whoever asks."""
