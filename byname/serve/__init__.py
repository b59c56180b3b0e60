"""The small web app."""
