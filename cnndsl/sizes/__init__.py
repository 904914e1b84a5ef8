"""Sizes as expressions in symbols, and conditions on them. The only room that imports islpy."""
