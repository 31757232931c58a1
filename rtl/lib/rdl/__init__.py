"""SystemRDL in, register blocks, Python bindings and documents out."""
