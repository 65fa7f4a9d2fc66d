"""Training steps in PyTorch with the layers, the optimizer and the work of jaxvid's recipes.

Typed from the published layouts: DCGAN (Radford et al., 2016), in 3-D as in Vondrick et al. (2016), the convolutional
VAE of single frames (Kingma and Welling, 2014), the transformer over tokens of VideoGPT (Yan et al., 2021), and
CycleGAN (Zhu et al., 2017). Every step includes what jaxvid's step includes: bytes to floats, noise, the average of the
sampled parameters, and the norms of the gradients. The optimizer is the fused one and memory is channels last, which is
the fastest of PyTorch's settings on CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, gelu, pad, scaled_dot_product_attention, silu, softplus

SLOPE = 0.2  # of the leaky ReLU, below 0
Step = Callable[[], Tensor]


def normalize(video: Tensor) -> Tensor:
    """uint8 [B,...,C] -> float [B,C,...] in [-1, 1], channels last in memory."""
    return (video.float() / 127.5 - 1).movedim(-1, 1)


def leaky() -> nn.Module:
    return nn.LeakyReLU(SLOPE)


def norm_of(parameters: Iterable[Tensor]) -> Tensor:
    """The global norm of the gradients."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def dcgan(video: Tensor, noise: int = 100, wide: int = 256, narrow: int = 128, compiled: bool = False) -> Step:
    """A step of both players of the DCGAN of `gan3d:dcgan` on uint8 videos [B,16,16,16,3].

    Generator z -> 4x4x4 x wide -> 8x8x8 x narrow -> 16x16x16x3, batch norm before each leaky ReLU; the discriminator
    mirrored, with batch norm after its second convolution. Non-saturating loss, Adam.
    """
    device = video.device
    generator = nn.Sequential(
        nn.Linear(noise, wide * 4**3), nn.Unflatten(1, (wide, 4, 4, 4)), nn.BatchNorm3d(wide), leaky(),
        nn.ConvTranspose3d(wide, narrow, 4, 2, 1), nn.BatchNorm3d(narrow), leaky(),
        nn.ConvTranspose3d(narrow, 3, 4, 2, 1), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv3d(3, narrow, 4, 2, 1), leaky(), nn.Conv3d(narrow, wide, 4, 2, 1), nn.BatchNorm3d(wide), leaky(),
        nn.Flatten(), nn.Linear(wide * 4**3, 1),
    )  # fmt: skip
    players = generator, discriminator = [
        player.to(device, memory_format=torch.channels_last_3d) for player in (generator, discriminator)
    ]
    optimizers = [torch.optim.Adam(p.parameters(), 2e-4, (0.5, 0.99), fused=True) for p in players]
    average = [p.detach().clone() for p in generator.parameters()]
    generate, judge = (torch.compile(player) if compiled else player for player in players)

    def step() -> Tensor:
        real, fake = normalize(video), generate(torch.randn(len(video), noise, device=device))
        discriminator.requires_grad_(True).zero_grad()
        d_loss = (softplus(-judge(real).float()) + softplus(judge(fake.detach()).float())).mean()
        d_loss.backward()
        d_norm = norm_of(discriminator.parameters())
        optimizers[1].step()
        # Without gradients of the discriminator's parameters, which the generator's step does not need.
        discriminator.requires_grad_(False)
        generator.zero_grad()
        g_loss = softplus(-judge(fake).float()).mean()
        g_loss.backward()
        g_norm = norm_of(generator.parameters())
        optimizers[0].step()
        torch._foreach_lerp_(average, list(generator.parameters()), 0.005)
        return torch.stack([d_loss.detach(), g_loss.detach(), d_norm, g_norm])

    return step


class FrameVAE(nn.Module):
    """Frames [N,3,H,W] and noise [N,dim] -> means and log variances [N,dim], and reconstructions."""

    def __init__(self, size: int, width: int, hidden: int, dim: int) -> None:
        super().__init__()
        grid, w = (4 * width, size // 8, size // 8), width
        flat = grid[0] * grid[1] * grid[2]
        self.encoder = nn.Sequential(
            nn.Conv2d(3, w, 4, 2, 1), leaky(), nn.Conv2d(w, 2 * w, 4, 2, 1), leaky(),
            nn.Conv2d(2 * w, 4 * w, 4, 2, 1), leaky(), nn.Flatten(), nn.Linear(flat, hidden), leaky(),
            nn.Linear(hidden, 2 * dim),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(dim, hidden), leaky(), nn.Linear(hidden, flat), leaky(), nn.Unflatten(1, grid),
            nn.ConvTranspose2d(4 * w, 2 * w, 4, 2, 1), leaky(), nn.ConvTranspose2d(2 * w, w, 4, 2, 1), leaky(),
            nn.ConvTranspose2d(w, 3, 4, 2, 1),
        )  # fmt: skip

    def forward(self, frames: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_variance = self.encoder(frames).float().chunk(2, 1)
        log_variance = log_variance - 4
        z = mean + torch.exp(0.5 * log_variance) * noise
        return mean, log_variance, self.decoder(z).float()


def frame_vae(video: Tensor, width: int = 32, hidden: int = 512, dim: int = 16, compiled: bool = False) -> Step:
    """A step of the VAE of `vae:frame` on uint8 clips [B,T,H,W,3].

    A Gaussian likelihood of the likeliest scale, Adam, gradients clipped to norm 1.
    """
    model = FrameVAE(video.shape[2], width, hidden, dim).to(video.device, memory_format=torch.channels_last)
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, 1e-3, fused=True)
    average = [p.detach().clone() for p in parameters]
    apply = torch.compile(model) if compiled else model

    def step() -> Tensor:
        frames = normalize(video.flatten(0, 1))
        mean, log_variance, output = apply(frames, torch.randn(len(frames), dim, device=video.device))
        error = (output - frames).square()
        log_scale = 0.5 * torch.log(error.detach().mean() + 1e-8)
        nll = (0.5 * error * torch.exp(-2 * log_scale) + log_scale + 0.9189).sum() / len(video)
        kl = 0.5 * (log_variance.exp() - log_variance - 1 + mean.square()).sum() / len(video)
        loss = (nll + kl) / video[0].numel()
        model.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, parameters, 0.01)
        return torch.stack([loss.detach(), norm])

    return step


class CausalConv(nn.Conv3d):
    """Behind as many frames of zeros as its kernel reaches back."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad(x, (0, 0, 0, 0, self.kernel_size[0] - 1, 0)))


class CausalResidual(nn.Module):
    """x [B,C,T,H,W] + causal convolutions, each behind a norm of each channel of each frame, and SiLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread, self.point = CausalConv(width, width, 3, padding=(0, 1, 1)), nn.Conv3d(width, width, 1)
        self.scales = nn.ParameterList([torch.ones(width) for _ in range(2)])
        self.shifts = nn.ParameterList([torch.zeros(width) for _ in range(2)])

    def norm(self, x: Tensor, index: int) -> Tensor:
        variance, mean = torch.var_mean(x, (3, 4), keepdim=True, correction=0)
        scale = self.scales[index][:, None, None, None] * (variance + 1e-6).rsqrt()
        return silu(x * scale + (self.shifts[index][:, None, None, None] - mean * scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.point(self.norm(self.spread(self.norm(x, 0)), 1))


class CausalTokenizer(nn.Module):
    """The network of `vqvae:causal`, from video in [-1, 1] to its reconstruction from codes."""

    def __init__(self, width: int = 64, blocks: int = 2, dim: int = 32, codes: int = 1024, factor: int = 4) -> None:
        super().__init__()
        self.factor, size = factor, 3 * factor**3
        self.inward, self.to_latents = nn.Conv3d(size, width, 1), nn.Conv3d(width, dim, 1)
        self.encoder, self.decoder = (nn.Sequential(*[CausalResidual(width) for _ in range(blocks)]) for _ in range(2))
        self.from_latents = nn.Conv3d(dim, width, 1)
        self.outward = nn.ConvTranspose3d(width, 3, 2 * factor, factor, (0, factor // 2, factor // 2))
        self.codes = nn.Parameter(torch.randn(codes, dim))

    def encode(self, video: Tensor) -> Tensor:
        """[B,3,1+f*T,H,W] -> codes [B,1+T,H/f,W/f]."""
        f = self.factor
        video = torch.cat([video[:, :, :1].expand(-1, -1, f - 1, -1, -1), video], 2)
        blocks = video.unflatten(4, (-1, f)).unflatten(3, (-1, f)).unflatten(2, (-1, f))
        grid = blocks.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4).contiguous(memory_format=torch.channels_last_3d)
        rows = self.to_latents(self.encoder(self.inward(grid))).movedim(1, -1)
        distances = self.codes.square().sum(1) - 2 * rows @ self.codes.T
        return distances.argmin(-1)

    def decode(self, indices: Tensor) -> Tensor:
        """[B,1+T,H/f,W/f] -> [B,3,1+f*T,H,W]."""
        latents = self.codes[indices].movedim(-1, 1)
        video = self.outward(self.decoder(self.from_latents(latents)))
        return video[:, :, self.factor - 1 : self.factor * indices.shape[1]].clamp(-1, 1)


def causal_tokenizer(video: Tensor, **sizes: int) -> Callable[[], Tensor]:
    """Encodes and decodes uint8 videos [B,T,H,W,3] with a tokenizer of random parameters."""
    model = CausalTokenizer(**sizes).to(video.device, memory_format=torch.channels_last_3d).eval()

    def run() -> Tensor:
        with torch.inference_mode():
            return model.decode(model.encode(normalize(video)))

    return run


class CausalBlock(nn.Module):
    """x [B,N,W] -> the same, each place from itself and those before it.

    `fused`: with PyTorch's own attention, which never writes the scores down; VideoGPT's code does.
    """

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.query_key_value, self.attended = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.hidden, self.output = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.query_key_value(self.norms[0](x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = heads.unbind(0)
        if self.fused:
            attended = scaled_dot_product_attention(queries, keys, values, is_causal=True)
        else:
            scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            attended = scores.masked_fill(later, -torch.inf).softmax(-1) @ values
        x = x + self.attended(attended.transpose(1, 2).flatten(2))
        return x + self.output(gelu(self.hidden(self.norms[1](x)), approximate="tanh"))


class GPT(nn.Module):
    """Tokens [B,t,h,w] -> logits [B,N,K], each of the tokens before it."""

    def __init__(self, grid: tuple[int, ...], codes: int, width: int, layers: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.codes = nn.Embedding(codes, width)
        shapes = [[size if axis == here else 1 for axis, size in enumerate(grid)] for here in range(len(grid))]
        self.positions = nn.ParameterList([0.02 * torch.randn(*shape, width) for shape in shapes])
        self.blocks = nn.Sequential(*[CausalBlock(width, heads, fused) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, codes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.codes(tokens).flatten(1, 3)
        places = (self.positions[0] + self.positions[1] + self.positions[2]).flatten(0, 2)
        return self.head(self.norm(self.blocks(pad(x[:, :-1], (0, 0, 1, 0)) + places)))


def gpt(
    tokens: Tensor,
    codes: int,
    width: int,
    layers: int,
    heads: int,
    fused: bool = True,
    compiled: bool = False,
) -> Step:
    """A step of the transformer of configs/transformer.py without conditions, on tokens [B,t,h,w].

    Its layers are VideoGPT's: no norms of queries and keys, and no modulation, which jaxvid's has beside. AdamW,
    gradients clipped to norm 1.
    """
    tokens = tokens.long()
    model = GPT(tuple(tokens.shape[1:]), codes, width, layers, heads, fused).to(tokens.device)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, 2e-3, (0.9, 0.99), weight_decay=0.01, fused=True)
    average = [p.detach().clone() for p in parameters]
    apply = torch.compile(model) if compiled else model

    def step() -> Tensor:
        logits = apply(tokens)
        loss = cross_entropy(logits.float().flatten(0, 1), tokens.flatten())
        model.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        torch._foreach_lerp_(average, parameters, 0.01)
        return torch.stack([loss.detach(), norm])

    return step


def resnet(width: int, blocks: int) -> nn.Module:
    """Frames [N,3,H,W] -> the same: the generator of Zhu et al. (2017, section 7.1), with reflected borders."""

    class Block(nn.Module):
        def __init__(self, channels: int) -> None:
            super().__init__()
            convolutions = [
                (nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect"), nn.InstanceNorm2d(channels))
                for _ in range(2)
            ]
            (first, norm), (second, last) = convolutions
            self.layers = nn.Sequential(first, norm, nn.ReLU(), second, last)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.layers(x)

    def end(inward: int, outward: int) -> nn.Module:
        return nn.Conv2d(inward, outward, 7, padding=3, padding_mode="reflect")

    layers: list[nn.Module] = [end(3, width), nn.InstanceNorm2d(width), nn.ReLU()]
    for channels in (width, 2 * width):
        layers += [nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.InstanceNorm2d(2 * channels), nn.ReLU()]
    layers += [Block(4 * width) for _ in range(blocks)]
    for channels in (4 * width, 2 * width):
        up = nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1)
        layers += [up, nn.InstanceNorm2d(channels // 2), nn.ReLU()]
    return nn.Sequential(*layers, end(width, 3), nn.Tanh())


def patches(width: int) -> nn.Module:
    """Frames [N,3,H,W] -> logits of patches of 70 pixels, [N,1,h,w] (Isola et al., 2017, section 6.1.2)."""
    layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), leaky()]
    for channels, stride in ((width, 2), (2 * width, 2), (4 * width, 1)):
        layers += [nn.Conv2d(channels, 2 * channels, 4, stride, 1), nn.InstanceNorm2d(2 * channels), leaky()]
    return nn.Sequential(*layers, nn.Conv2d(8 * width, 1, 4, 1, 1))


def cyclegan(videos: tuple[Tensor, Tensor], width: int, blocks: int, compiled: bool = False) -> Step:
    """A step of all players of CycleGAN on uint8 videos [B,T,H,W,3] of two domains, without a history. Adam."""
    generators, critics = (
        [make() for _ in range(2)] for make in (lambda: resnet(width, blocks), lambda: patches(width))
    )
    for player in (*generators, *critics):
        player.to(videos[0].device, memory_format=torch.channels_last)
    optimizers = [
        torch.optim.Adam([p for player in players for p in player.parameters()], 2e-4, (0.5, 0.999), fused=True)
        for players in (generators, critics)
    ]
    parameters = [[p for player in players for p in player.parameters()] for players in (generators, critics)]
    average = [p.detach().clone() for p in parameters[0]]
    to_a, to_b = (torch.compile(each) if compiled else each for each in generators)
    judges = [torch.compile(each) if compiled else each for each in critics]

    def step() -> Tensor:
        a, b = (normalize(video.flatten(0, 1)) for video in videos)
        for critic in critics:
            critic.requires_grad_(False)
        optimizers[0].zero_grad()
        fakes = to_a(b), to_b(a)
        adversarial = sum((judge(fake) - 1).square().mean() for judge, fake in zip(judges, fakes, strict=True))
        cycle = (to_a(fakes[1]) - a).abs().mean() + (to_b(fakes[0]) - b).abs().mean()
        identity = (to_a(a) - a).abs().mean() + (to_b(b) - b).abs().mean()
        g_loss = adversarial + 10 * cycle + 5 * identity
        g_loss.backward()
        g_norm = norm_of(parameters[0])
        optimizers[0].step()
        for critic in critics:
            critic.requires_grad_(True)
        optimizers[1].zero_grad()
        d_loss = sum(
            ((judge(real) - 1).square().mean() + judge(fake.detach()).square().mean()) / 2
            for judge, real, fake in zip(judges, (a, b), fakes, strict=True)
        )
        d_loss.backward()
        d_norm = norm_of(parameters[1])
        optimizers[1].step()
        torch._foreach_lerp_(average, parameters[0], 0.01)
        return torch.stack([d_loss.detach(), g_loss.detach(), d_norm, g_norm])

    return step


PEERS: dict[str, Callable[..., Step]] = {"gan3d:dcgan": dcgan, "vae:frame": frame_vae}
