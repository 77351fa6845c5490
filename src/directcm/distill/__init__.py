"""From encoded images to students: latents, noise, solved targets, methods, training."""
