"""The grammar of the language, read as text by the parser."""
