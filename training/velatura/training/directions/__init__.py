"""Named directions of a generator's latent space."""
