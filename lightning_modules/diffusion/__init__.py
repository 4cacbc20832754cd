"""Diffusion models: pretrained or our own, fine-tuned on patches with few trainable parameters, and sampled."""
