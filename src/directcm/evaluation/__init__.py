"""What is sampled from teachers and students, and measured of it."""
