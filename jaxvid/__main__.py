"""The commands of jaxvid; each says with --help what it takes.

python -m jaxvid.main              train: --config configs/vqvae.py
python -m jaxvid.tokenize          cache the tokens of a trained tokenizer, for priors: --workdir DIR --output DIR
python -m jaxvid.sample            make videos with a trained run: --workdir runs/acgan
python -m jaxvid.translate         translate videos of any size and length: --workdir DIR --input PATH --output DIR
python -m jaxvid.evaluate          score videos, or a run: --real PATH --fake PATH, or --workdir DIR
python -m jaxvid.export            give a run away, as a folder or on the Hugging Face hub: --workdir DIR --output DIR
python -m jaxvid.data              check a folder of videos, or convert it: PATH
python -m jaxvid.metrics.weights   fetch the weights that FVD, FID and their kin need: URL
"""

import sys

if __name__ == "__main__":
    print(__doc__)
    sys.exit(0 if set(sys.argv[1:]) <= {"-h", "--help"} else 2)
