"""What a user may set: how adapters are trained, pictures drawn and judged; presets, and overrides over them."""
