"""Distillation in the latent space of a generator: generators, their latents, and what these are matched by."""
