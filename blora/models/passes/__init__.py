"""One pass of the denoiser: how it is handed to the device, what of it is kept, and what each block is told."""
