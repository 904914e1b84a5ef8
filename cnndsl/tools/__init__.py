"""What is made of a compiled model for other programs. Beside `train`, which it does not know."""
