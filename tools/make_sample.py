"""Make the embedded sample from the full data sets: `python tools/make_sample.py $ODDMENT_DATA`.

Random images, seeded, drawn from all of each set; the sample's files are equal to the byte whenever this is run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from oddment.data.idx import pack_idx, parse_idx

PARTS = {
    "mnist-train": ("mnist/train", 4000),
    "mnist-test": ("mnist/t10k", 1000),
    "fashion-test": ("fashion-mnist/t10k", 1000),
}


def main(source: Path) -> None:
    """Write all parts."""
    target = Path(__file__).parent.parent / "src/oddment/data/files"
    for name, (prefix, count) in PARTS.items():
        images = parse_idx((source / f"{prefix}-images-idx3-ubyte.gz").read_bytes())
        labels = parse_idx((source / f"{prefix}-labels-idx1-ubyte.gz").read_bytes())
        chosen = np.random.default_rng(0).permutation(len(images))[:count]
        (target / f"{name}-images-idx3.gz").write_bytes(pack_idx(images[chosen]))
        (target / f"{name}-labels-idx1.gz").write_bytes(pack_idx(labels[chosen]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
