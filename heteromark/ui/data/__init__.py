"""Read and compute the data that the pages show."""
