"""What is trained, and how: each module exports `make(config, axis_name=None) -> Method`."""

from jaxvid.methods import classifier, vqvae

METHODS = {"classifier": classifier.make, "vqvae": vqvae.make}
