"""What can be said of images, texts and names without a label: findings, with what to do next."""
