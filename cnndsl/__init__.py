"""A small language for convolutional networks and its compiler."""
