"""One dictionary of results, rendered for the terminal, as JSON, and as one HTML file."""
