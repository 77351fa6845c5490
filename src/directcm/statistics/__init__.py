"""Numbers in, numbers out: no torch, no files."""
