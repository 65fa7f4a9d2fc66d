"""The residual blocks of the tokenizer."""

import jax
import jax.numpy as jnp

from jaxvid.models.vqvae import ResidualStack


def test_remat_computes_no_convolution_again() -> None:
    x = jnp.ones((1, 2, 4, 4, 8))

    def convolutions(remat: bool) -> int:
        stack = ResidualStack(blocks=2, heads=2, remat=remat)
        variables = jax.eval_shape(stack.init, jax.random.key(0), x, True)
        gradient = jax.grad(lambda variables: stack.apply(variables, x, True).sum())
        return str(jax.make_jaxpr(gradient)(variables)).count("conv_general_dilated[")

    assert convolutions(True) == convolutions(False) > 0
