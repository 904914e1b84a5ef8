"""What each layer of the language is, one class a layer."""
