"""Data sets, training and evaluation of Velatura's networks."""
