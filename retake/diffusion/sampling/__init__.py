"""Denoising and inversion over a Backbone: DDIM, windows, the diagonal queue, latents in chunks."""
