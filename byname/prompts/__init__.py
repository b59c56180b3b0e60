"""Stage 1, what is said of a class: classes to texts."""
