"""Whatever runs the pipeline more than once, or over several recipes."""
