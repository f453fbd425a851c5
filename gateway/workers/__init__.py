"""Several worker processes of one gateway on one data port: the first starts the others and speaks for all of them."""
