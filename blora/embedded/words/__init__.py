"""How the embedded model hears: two CLIPs, the text encoders made of them, and layers by which names draw things."""
