"""What the trained networks are worth, measured on avatars that training never draws."""
