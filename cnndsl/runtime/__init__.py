"""Loads and runs emitted modules, and compiles their kernels. Here torch starts."""
