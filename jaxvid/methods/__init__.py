"""What is trained, and how: each module exports `make(config, axis_name=None) -> Method`."""

from jaxvid.methods import classifier, gan, vae, vqvae

METHODS = {"classifier": classifier.make, "gan": gan.make, "vae": vae.make, "vqvae": vqvae.make}
