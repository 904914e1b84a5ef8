"""What a mistake is, and how it is shown: text, JSON, fixes, and a page a code."""
