"""The drawings that the embedded model was trained on and is judged by: their sources, their looks, their split."""
