"""How the embedded model was made; nothing here is needed to use it."""
