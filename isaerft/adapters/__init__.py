"""Adapters: what is trained, on an SAE's latents or on the model itself."""
