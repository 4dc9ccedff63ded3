"""Edit directions: imported from other projects' files, or computed from a generator."""
