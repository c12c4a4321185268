"""How the embedded model hears: captions, two CLIPs, text encoders made of them, layers by which names draw things."""
