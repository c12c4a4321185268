"""One kind of diffusion model a file behind one seam: what nothing else of the method knows of it."""
