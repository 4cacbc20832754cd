"""WeightsExport: a file that other tools read."""

from __future__ import annotations

import json

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from lightning_modules import SuperResolution
from main import main

COMPACT = "{architecture: spandrel.architectures.Compact.Compact, options: {num_feat: 8, num_conv: 2}}"


def test_spandrel_loads_its_own_architectures(tiny):
    from spandrel import ModelLoader

    cli = main(["fit", *tiny, "--trainer.limit_val_batches", "0", "--model.init_args.network", COMPACT])
    path = cli.run_dir / "weights.safetensors"
    descriptor = ModelLoader().load_from_file(str(path))
    assert (descriptor.architecture.id, descriptor.scale) == ("Compact", 4)
    image = torch.rand(1, 3, 12, 10)
    model = SuperResolution.load_from_checkpoint(cli.run_dir / "checkpoints/last.ckpt", weights_only=True).eval()
    torch.testing.assert_close(descriptor.model(image), model(image))


def test_header_rebuilds_the_network(runs):
    path = runs.fit.run_dir / "weights.safetensors"
    with safe_open(path, "pt") as file:
        header = {key: json.loads(value) for key, value in file.metadata().items()}
    assert header["scale"] == 4
    model = SuperResolution(**header)
    model.configure_model()
    model.network.load_state_dict(load_file(path))
