"""What is trained, and how: each module exports `make(config, axis_name=None) -> Method`; see `core.find_method`."""
