"""Noise processes, ODE solvers, distances and teachers."""
