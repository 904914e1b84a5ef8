"""The Python file that a network becomes. Writes text; runs and imports nothing that it writes."""
