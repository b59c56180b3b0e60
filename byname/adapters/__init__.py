"""Whatever yields an encoder or a classification head."""
