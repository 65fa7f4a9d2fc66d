"""A transformer over the tokens of a VQ-VAE: new clips of a class.

Command: jaxvid train --config transformer, after its tokenizer, vqvae:prior
Device: two CPU cores.
Time and memory: about 9 min, from 53 clips/s on idle cores, after the tokenizer's 3; 2.1 GB.
Score: 1.20 bits a token of 64 held-out clips, where codes independent of each other have 7.34. A classifier
    (classifier:32, stopped at half of its steps) finds the asked class in 60 % of 240 samples with
    --guidance 2 (the motion in 93 %), in 47 % without; in 76 % of the tokenizer's reconstructions, and in all of 240
    held-out clips.
Samples: steady grounds; what moves, grows and shrinks does so as asked. Outlines are ragged, so that shapes are told
    apart only sometimes, and there are stray specks.

Synthetic clips of moving shapes, 8 frames of 32x32 at every second moment, as 4x8x8 tokens.
Tried, each in 3000 steps of 8: a rate of 2e-3, 1.23 bits. Before logits were products with the embeddings: 1.26 bits
with 2e-3, 1.24 with 4e-3, 1.30 with 1e-3; six layers and a weight decay of 0.1 made no difference after 1500 steps.
What follows was measured with a rate of 2e-3.
`:frames`: going on from up to four first frames. 0.71 bits a token after four; the squared error of the frames that
follow is 0.0091 of 64 held-out clips, at temperature 0.5 0.0079, at 0 0.0071, where repeating the last given frame
leaves 0.0095, and the tokenizer 0.0022 (absolute: 0.032, 0.028, 0.026, 0.022 and 0.019). Places, sizes and colors go
on; shapes dissolve.
`:text`: by caption; 1.17 bits. `:actions`: from a still image and the object's motion; 1.14 bits. Colors and motion are
as asked. Both were run on an H200, before logits were products with the embeddings.
`:tiny`: seconds, for tests.
`:ucf101`: by class at VideoGPT's scale (Yan et al., 2021: width 576, 8 layers), 16x128x128 clips of UCF-101 as 4x32x32
tokens, for accelerators, after vqvae.py:ucf101. Nobody has run it to its end yet: no score, time or memory.
"""

from ml_collections import ConfigDict

from jaxvid import config as config_lib
from jaxvid import pretrained
from jaxvid.names import choice

CONDITIONS = {
    "class": ("label",),
    "text": ("text",),
    "frames": ("first_frames",),
    "actions": ("first_frames", "action"),
}

VARIANTS = (*CONDITIONS, "tiny", "ucf101")


def get_config(variant: str = "") -> ConfigDict:
    """The default, or one of the variants above."""
    choice("the variant of transformer", variant or "class", VARIANTS)
    config = config_lib.base()
    config.method = "autoregressive"
    config.tokenizer = pretrained.reference("runs/vqvae_prior")
    config.model = ConfigDict()
    config.model.network = "transformer"
    config.model.width = 128
    config.model.layers = 4
    config.model.heads = 4
    config.model.unguided = 0.1  # share of the training examples whose label or text is left out, for guidance
    config.model.dtype = "float32"  # of computing, or "bfloat16"; parameters and logits stay float32
    config.condition = config_lib.condition(CONDITIONS.get(variant, ("label",)), features=128)
    config.condition.first_frames = 1 if variant == "actions" else 4  # at most, where they are a condition
    config.sample = ConfigDict({"temperature": 1.0, "top_k": 0, "top_p": 1.0, "guidance": 1.0})
    config.optim = config_lib.optimizer(4e-3, name="adamw", schedule="warmup_cosine_decay_schedule")
    config.optim.arguments = ConfigDict({"b2": 0.99, "weight_decay": 0.01})
    config.data.update(frames=8, resolution=32, stride=2)
    config.train.update(steps=3000, batch_size=8, save_every=500)
    config.eval.update(every=500)
    if variant == "tiny":
        config_lib.tiny(config)
        config.tokenizer.path = "runs/vqvae_tiny"
        config.model.update(width=32, layers=2, heads=2)
        config.condition.features = 16
    if variant == "ucf101":
        config.tokenizer.path = "runs/vqvae_ucf101"
        config.data.update(name="tfds", dataset="ucf101", frames=16, resolution=128, stride=1)
        config.model.update(width=576, layers=8, dtype="bfloat16")
        config.condition.features = 576
        config.optim.update(learning_rate=3e-4, ema_decay=0.9999)
        config.train.update(steps=200_000, batch_size=32, workers=8, log_every=100, save_every=2000)
        config.eval.update(every=5000, examples=1024, videos=8)
    return config
