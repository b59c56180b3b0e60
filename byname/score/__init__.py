"""Stage 3, what a match is worth: images and class vectors to logits."""
