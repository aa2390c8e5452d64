"""Explanations from Neuronpedia: the bulk export first, then batches of latents, then single latents."""
