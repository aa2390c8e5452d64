"""What training changed: measures per latent, and checks of their effect on loss and answers."""
