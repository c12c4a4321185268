"""How a base model is named, found and put together: hub, folder or file, with an autoencoder and LoRAs beside it."""
