"""Which block of a UNet answers to which part of a prompt: pictures, readings, and the blocks they propose."""
