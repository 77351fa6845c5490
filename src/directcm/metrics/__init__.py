"""Measures of samples: features, distances between them, and per-sample scores."""
