"""From a tree to a graph: names, arguments, shapes, and every mistake on the way."""
