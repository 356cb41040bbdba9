"""Which runners exist, and who may use them."""
