"""Class-conditional training: BigGAN with a projection discriminator."""
