"""What every emitted program shares: launches, memory, operators, what is refused, the loss."""
