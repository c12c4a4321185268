"""A B-LoRA's weights: the value, its file and keys, the blocks it lives in, and many of them in one UNet."""
