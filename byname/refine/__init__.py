"""Stage 4, what the other unlabeled images say: logits of a whole batch to better ones."""
