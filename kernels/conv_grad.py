"""Backward kernels of a convolution region: gradients of the input, the weight and the bias.

The gradient before the pool is never stored. It is rebuilt wherever it is read, from the gradient
after the pool and from the byte that says which pixel won: for a pixel of the convolution and a
window that holds it, `window_gradient if winner == 1 + position else 0`.
"""
