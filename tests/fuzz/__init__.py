"""Fuzzing: whatever a file or a server holds, byname answers or raises a ``BynameError``."""
