"""B-LoRA against other methods where the truth is drawn: drawings, rows, judges, and rates with intervals."""
