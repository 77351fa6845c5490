"""Artefacts, random numbers, interruption, code digests, processes: what every job stands on."""
