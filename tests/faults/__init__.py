"""Runs that are killed, starved of space and given damaged files, and what they lose by it."""
