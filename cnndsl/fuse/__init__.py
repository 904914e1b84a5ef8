"""Which layers share a kernel. Knows roles, not layers, and no text of any kernel."""
