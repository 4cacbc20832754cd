"""A comparison on Weights & Biases."""
