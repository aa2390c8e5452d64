"""The testbed: a language, a model and an SAE for which the true explanation of each latent is known."""
