"""Stage 5, what is answered: logits to a leaf, an ancestor, several classes or none."""
