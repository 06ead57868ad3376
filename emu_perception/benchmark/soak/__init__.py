"""A soak test of the node: hours of ordinary trouble, with memory, threads and latency recorded."""
