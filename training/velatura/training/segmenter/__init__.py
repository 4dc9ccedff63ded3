"""Training and evaluation of semantic segmenters (DeepLabv3+, U-Net with scSE)."""
