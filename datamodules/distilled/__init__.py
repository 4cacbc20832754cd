"""The distilled-dataset folder: a Hugging Face imagefolder with a record of how it was made; write, read, verify.

    images/000000.png ...     HR
    lr_x4/000000.png ...      LR, only where it is not the bicubic reduction of HR alone
    latents.safetensors       in place of images: what a generator makes HR of, a row for each line of metadata.jsonl
    metadata.jsonl            a line per image: file_name, lr_file_name, pseudo_label, score, source or seed ...
    provenance.json           schema, method, configuration, seed, budget, cost, sha256 of every file above
    README.md                 dataset card

`datasets` makes its rows from metadata.jsonl and an image column of every key that ends in `file_name`, so that LR is
the column `lr` of the same rows. LR files that no line named would be rows of their own to versions of `datasets` that
go by files. A set of latents is no imagefolder: `decoding.images_of` makes one of it.
"""

from datamodules.distilled.contents import SCHEMA, DistilledPatch, DistilledSet, Pixels
from datamodules.distilled.reading import read_distilled
from datamodules.distilled.writing import encode_png, refuse_existing, write_distilled

__all__ = [
    "SCHEMA",
    "DistilledPatch",
    "DistilledSet",
    "Pixels",
    "encode_png",
    "read_distilled",
    "refuse_existing",
    "write_distilled",
]
