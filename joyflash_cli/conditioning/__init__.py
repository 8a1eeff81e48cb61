"""From inputs to the conditioning of each latent frame."""
