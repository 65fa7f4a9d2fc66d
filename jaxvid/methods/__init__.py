"""What is trained, and how: each module exports `make(config, axis_name=None) -> Method`."""

from jaxvid.methods import vae, vqvae

METHODS = {"vae": vae.make, "vqvae": vqvae.make}
