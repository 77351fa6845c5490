"""Consistency models against Direct consistency models (arXiv 2411.08954), end to end."""
