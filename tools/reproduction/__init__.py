"""What `tools/reproduce` is made of."""
