"""Order: which steps, in what order. No tensors here; importing this package never imports torch."""
