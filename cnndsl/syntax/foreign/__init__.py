"""Lines of PyTorch, Keras, Darknet and Caffe, and what they are in this language.

`table` holds the layers of each as data: a signature and the line that it stands for. `python`,
`darknet` and `caffe` read such lines; `find` looks for them in a text that could not be read.
"""
