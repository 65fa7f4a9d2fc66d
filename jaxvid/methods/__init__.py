"""What is trained, and how: each module exports `make(config, axis_name=None) -> Method`."""

from jaxvid.methods import classifier, gan, vqvae

METHODS = {"classifier": classifier.make, "gan": gan.make, "vqvae": vqvae.make}
