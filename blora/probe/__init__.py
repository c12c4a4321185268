"""Which block of a denoiser answers to which part of a prompt: pictures, readings, and the blocks they propose."""
