"""What is trained, and how: each module exports `make(config, axis_name=None) -> Method`."""

from jaxvid.methods import gan, vqvae

METHODS = {"gan": gan.make, "vqvae": vqvae.make}
