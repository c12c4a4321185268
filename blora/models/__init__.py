"""The diffusion model in memory: where it comes from, its parts, what fits on a device, how work is handed to it."""
