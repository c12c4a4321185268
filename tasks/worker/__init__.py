"""What runs in a slot's child process: trainings, pictures, scores and probes on one device."""
