"""The small web app: images in, class names edited, scores at once; for one user, in memory."""
