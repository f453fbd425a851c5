"""Several processes of one gateway on one data port."""
