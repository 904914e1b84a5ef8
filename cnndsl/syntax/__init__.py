"""The text of a `.cnn` file made into a tree, and its errors. The only room that imports lark."""
