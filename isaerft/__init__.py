"""isaerft: find out whether the explanations of a sparse autoencoder's latents are true, by training through them."""

__version__ = "0.1.0"
