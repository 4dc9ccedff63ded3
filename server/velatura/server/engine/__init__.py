"""Runs the bundle's networks: bundle registry, execution providers, sessions, dynamic batching."""
