"""Training: objectives, the loop on cached activations, and adapters attached to a Hugging Face model."""
