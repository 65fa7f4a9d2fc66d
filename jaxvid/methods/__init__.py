"""What is trained, and how: each module exports `make(config, axis_name=None) -> Method`."""

from jaxvid.methods import gan, vae, vqvae

METHODS = {"gan": gan.make, "vae": vae.make, "vqvae": vqvae.make}
