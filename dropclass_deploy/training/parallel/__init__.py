"""Several processes: who they are, how Accelerate is set up, and batch statistics over all of them."""
