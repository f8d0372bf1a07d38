"""DropClass (NeurIPS 2021, arXiv 2111.00531): the method itself."""
