"""Information Fused Temporal Transformation Network (arXiv 1902.09928), in PyTorch."""
