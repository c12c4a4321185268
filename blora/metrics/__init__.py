"""Pictures to numbers: features and what scores say by them, distances of palettes and clips, and intervals."""
