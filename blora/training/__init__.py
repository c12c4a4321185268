"""Pictures to adapters: packs trained in one pass, with their noise, optimizer, checkpoints and NaN policy."""
