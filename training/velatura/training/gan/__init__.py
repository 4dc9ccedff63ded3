"""Adversarial training: discriminator, objectives, adaptive augmentation and the loop."""
