"""Finding images, decoding them, and turning them into the pixels an encoder asks for."""
