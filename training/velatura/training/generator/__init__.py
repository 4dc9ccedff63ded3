"""Training of the W+ generator and its encoder."""
