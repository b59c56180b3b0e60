"""Stage 2, how much each text counts: texts to a weight each and one vector a class."""
