"""Triton kernels, read as text by the emitter: each file is whole and runs alone."""
