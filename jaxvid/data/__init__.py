"""Videos as clips: sources with random access, and the pipeline that batches them."""
