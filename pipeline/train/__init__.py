"""Stage train: the conditional GAN."""
