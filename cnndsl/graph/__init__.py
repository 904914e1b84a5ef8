"""The checked network: nodes, their shapes, and what is counted on them."""
