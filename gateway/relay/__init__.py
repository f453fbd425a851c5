"""One inference request, from its arrival to the last byte of its answer."""
