"""Networks, discriminators and transfer layers."""
