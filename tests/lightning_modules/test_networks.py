"""Networks: EDSR against the published naming and sizes, every shipped YAML, validation, weights."""

from __future__ import annotations

import copy
import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from lightning_modules.networks import EDSR, NetworkSpec, build_network, check_spec, export_weights, load_weights
from lightning_modules.networks.build import scale_argument

CONFIGS = Path(__file__).parents[2] / "configs" / "sr" / "network"
# The published options with the depth cut down: every code path, seconds in place of minutes.
SHALLOW = {
    "edsr": {"n_feats": 16, "n_resblocks": 2},
    "edsr_baseline": {"n_feats": 16, "n_resblocks": 2},
    "edsr_tiny": {},
    "rcan": {"n_resgroups": 1, "n_resblocks": 2, "n_feats": 16},
    "rcan_small": {"n_resgroups": 1, "n_resblocks": 2},
    "swinir_light": {"depths": [2], "num_heads": [2], "embed_dim": 12},
    "swinir_nano": {"depths": [2], "num_heads": [2], "embed_dim": 12},
    "srformer_light": {"depths": [2], "num_heads": [2], "embed_dim": 12},
    "rrdb": {"num_blocks": 1, "num_filters": 16},
    "span": {"feature_channels": 16},
    "compact": {"num_conv": 2, "num_feat": 16},
    "hat": {"depths": [2], "num_heads": [2], "embed_dim": 12, "compress_ratio": 3, "squeeze_factor": 4},
    "dat": {"depth": [2], "num_heads": [2], "embed_dim": 24},
    "nafnet_tiny": {},
    "nafnet": {"width": 4, "middle_blk_num": 1, "enc_blk_nums": [1, 1, 1, 1], "dec_blk_nums": [1, 1, 1, 1]},
    "restormer": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1},
}
RESTORING = ["nafnet_tiny", "nafnet", "restormer"]
UPSCALING = [name for name in SHALLOW if name not in RESTORING]
SPANDREL = [name for name in SHALLOW if not name.startswith("edsr")]
# Parameters at x4 as published, in thousands; those of rcan_small, edsr_tiny, swinir_nano and nafnet_tiny are ours to
# state. Restormer: 26.11 M for colour denoising; NAFNet: 29.16 M in the weights for SIDD of width 32.
# SPAN is counted while training.
PUBLISHED = {
    "edsr_baseline": 1_518, "edsr": 43_090, "rcan": 15_592, "swinir_light": 930, "srformer_light": 873, "rrdb": 16_698,
    "compact": 621, "hat": 20_773, "dat": 573, "edsr_tiny": 98, "rcan_small": 338, "span": 2_237,
    "swinir_nano": 48, "nafnet_tiny": 291, "nafnet": 29_160, "restormer": 26_112,
}  # fmt: skip


def shipped(name: str, shallow: bool = True) -> NetworkSpec:
    network = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"]["init_args"]["network"]
    overrides = SHALLOW[name] if shallow else {}
    return NetworkSpec(network["architecture"], {**network["options"], **overrides})


def official_edsr_shapes(scale: int, blocks: int, feats: int) -> dict[str, tuple[int, ...]]:
    """State dict of EDSR-PyTorch's `EDSR`, written out from its `edsr.py` and `common.py`."""
    stages = {1: [], 2: [2], 3: [3], 4: [2, 2]}[scale]
    convs = {"sub_mean": (3, 3, 1), "add_mean": (3, 3, 1), "head.0": (3, feats, 3), f"body.{blocks}": (feats, feats, 3)}
    convs |= {f"body.{i}.body.{j}": (feats, feats, 3) for i in range(blocks) for j in (0, 2)}
    convs |= {f"tail.0.{2 * i}": (feats, feats * r * r, 3) for i, r in enumerate(stages)} | {"tail.1": (feats, 3, 3)}
    weights = {f"{name}.weight": (cout, cin, k, k) for name, (cin, cout, k) in convs.items()}
    return weights | {f"{name}.bias": (cout,) for name, (_, cout, _) in convs.items()}


@pytest.mark.parametrize(("scale", "blocks", "feats"), [(4, 16, 64), (2, 16, 64), (3, 2, 8), (1, 2, 8)])
def test_edsr_keys_and_shapes_are_the_official_ones(scale, blocks, feats):
    state = EDSR(scale=scale, n_resblocks=blocks, n_feats=feats).state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == official_edsr_shapes(scale, blocks, feats)


def test_edsr_baseline_has_the_published_number_of_parameters():
    """1,518 K at x4 in the tables of CARN and later papers; summed here layer by layer."""
    convs = [(3, 64), *[(64, 64)] * 33, *[(64, 256)] * 2, (64, 3)]
    parameters = sum(9 * cin * cout + cout for cin, cout in convs)
    assert parameters == 1_517_571
    assert sum(p.numel() for p in EDSR(scale=4).parameters()) == parameters


def test_edsr_keeps_float32_colours_under_autocast():
    """bfloat16 has 8 bits: the skip and the mean must not pass through it. Untrained, the output is bicubic."""
    x = torch.rand(1, 3, 8, 8)
    network = EDSR(scale=2, n_feats=8, n_resblocks=1, bicubic_skip=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = network(x)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, network(x), atol=1e-6, rtol=0)


def test_edsr_forward_is_the_formula_of_the_paper():
    torch.manual_seed(0)
    net = EDSR(scale=2, n_feats=8, n_resblocks=1, res_scale=0.1)
    x = torch.rand(1, 3, 5, 6)
    mean = 255 * torch.tensor([0.4488, 0.4371, 0.4040]).view(1, 3, 1, 1)
    head = net.head[0](255 * x - mean)
    block = head + 0.1 * net.body[0].body[2](F.relu(net.body[0].body[0](head)))
    up = F.pixel_shuffle(net.tail[0][0](net.body[1](block) + head), 2)
    torch.testing.assert_close(net(x), (net.tail[1](up) + mean) / 255)


def test_untrained_edsr_with_bicubic_skip_is_bicubic():
    """Against PIL's bicubic in floating point, whose kernel is Keys' with a = -0.5 too."""
    x = torch.rand(1, 3, 12, 10, generator=torch.Generator().manual_seed(0))
    found = EDSR(scale=4, n_feats=8, n_resblocks=1, direct_shuffle=True, bicubic_skip=True)(x)
    images = [Image.fromarray(channel.numpy()).resize((40, 48), Image.Resampling.BICUBIC) for channel in x[0]]
    expected = torch.stack([torch.from_numpy(np.array(image)) for image in images])[None]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_edsr_with_bicubic_skip_learns():
    torch.manual_seed(0)
    net = EDSR(scale=2, n_feats=8, n_resblocks=1, direct_shuffle=True, bicubic_skip=True)
    hr = torch.rand(4, 3, 16, 16)
    lr = F.avg_pool2d(hr, 2)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(F.l1_loss(net(lr), hr))
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < 0.95 * losses[0]


def test_untrained_edsr_with_bicubic_skip_at_scale_1_is_the_identity():
    x = torch.rand(1, 3, 12, 10)
    found = EDSR(scale=1, n_feats=8, n_resblocks=1, direct_shuffle=True, bicubic_skip=True)(x)
    torch.testing.assert_close(found, x, atol=1e-6, rtol=0)


def test_edsr_rejects_weights_of_another_colour_range():
    with pytest.raises(ValueError, match="rgb_range to 255"):
        EDSR(scale=2, n_feats=4, n_resblocks=1, rgb_range=1.0).load_state_dict(
            EDSR(scale=2, n_feats=4, n_resblocks=1).state_dict()
        )


def test_every_network_yaml_is_tested():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(SHALLOW)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size(name):
    """Counted on the meta device, so that no weight is drawn."""
    from lightning_modules.networks.build import _resolve, _with_scale

    spec = shipped(name, shallow=False)
    check_spec(spec)
    cls = _resolve(spec.architecture)
    with torch.device("meta" if name in {"edsr", "edsr_baseline", "rrdb"} else "cpu"):
        network = cls(**_with_scale(cls, spec.options, 4))
    assert round(sum(p.numel() for p in network.parameters()) / 1000) == pytest.approx(PUBLISHED[name], abs=1)


@pytest.mark.parametrize(("name", "scale"), [*product(UPSCALING, [2, 3, 4]), *product(SHALLOW, [1])])
def test_shipped_network_takes_odd_sizes_and_has_gradients(name, scale):
    torch.manual_seed(0)
    network = build_network(shipped(name), scale)
    lr = torch.rand(2, 3, 17, 23)  # two images: DAT normalises over the batch while training
    before = lr.clone()
    output = network(lr)
    assert output.shape == (2, 3, 17 * scale, 23 * scale)
    assert torch.equal(lr, before), "the network changed the batch"
    output.square().mean().backward()
    with_gradient = [p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters()]
    assert sum(with_gradient) > 0.5 * len(with_gradient)


@pytest.mark.parametrize("name", SHALLOW)
def test_shipped_network_draws_nothing_in_training(name):
    """Dropout or stochastic depth would make a resumed run differ."""
    network = build_network(shipped(name), 1 if name in RESTORING else 2)
    lr = torch.rand(2, 3, 17, 23)
    state = torch.get_rng_state()
    network(lr)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", SPANDREL)
def test_exported_weights_load_in_spandrel_with_the_same_output(name, tmp_path):
    import spandrel

    if name in ("srformer_light", "restormer"):
        import spandrel_extra_arches

        spandrel_extra_arches.install(ignore_duplicates=True)
    torch.manual_seed(0)
    scale = 1 if name in RESTORING else 4
    network = build_network(shipped(name), scale).eval()
    path = tmp_path / "weights.safetensors"
    export_weights(network, path, {"scale": str(scale)})
    descriptor = spandrel.ModelLoader().load_from_file(path)
    assert descriptor.scale == scale
    lr = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(descriptor.model.eval()(lr.clone()), network(lr), atol=1e-5, rtol=0)


# --- sides of certain multiples ---


class Halves(nn.Module):
    """Takes even sides only, and shows what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        halved = F.pixel_unshuffle(x, 2)
        return F.pixel_shuffle(halved, 2) * self.weight


def test_padding_is_there_where_it_is_needed():
    """Mirrored to even sides and cropped again, the identity stays one; for multiples nothing happens."""
    network = build_network(NetworkSpec(f"{__name__}.Halves"), 1)
    given = []
    network.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))  # after those of the builder
    for x in (torch.rand(1, 3, 5, 7), torch.rand(1, 3, 6, 8), torch.rand(1, 3, 1, 1)):
        assert torch.equal(network(x), x)
    assert torch.equal(given[0], F.pad(given[0][..., :5, :7], (0, 1, 0, 1), "reflect"))
    assert [tuple(x.shape[2:]) for x in given] == [(6, 8), (6, 8), (2, 2)]
    assert list(network.state_dict()) == ["weight"]
    again = copy.deepcopy(network)
    assert again(torch.rand(1, 3, 3, 9)).shape == (1, 3, 3, 9)


def test_padded_network_is_the_networks_own_answer_on_multiples():
    spec = shipped("restormer")
    torch.manual_seed(0)
    built = build_network(spec, 1).eval()
    torch.manual_seed(0)
    from spandrel_extra_arches.architectures.Restormer import Restormer

    plain = Restormer(**spec.options).eval()
    x = torch.rand(1, 3, 21, 30)
    with torch.no_grad():
        expected = plain(F.pad(x, (0, 2, 0, 3), "reflect"))[..., :21, :30]
        torch.testing.assert_close(built(x), expected, atol=1e-6, rtol=0)


def test_a_restoration_network_is_for_scale_1():
    with pytest.raises(ValueError, match=r"scale 4 needs \(1, 3, 64, 64\); give it .* network is for data.scale 1"):
        build_network(shipped("nafnet_tiny"), 4)


# --- validation ---


class Takes(nn.Module):
    """A user's own network: annotated, with an option that has no default, and no scale."""

    def __init__(self, width: int, slope: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return self.conv(x)


SWINIR = "spandrel.architectures.SwinIR.SwinIR"


@pytest.mark.parametrize(
    ("architecture", "options", "message"),
    [
        ("EDSR", {"n_feat": 8}, r"EDSR has no option 'n_feat' \(did you mean 'n_feats'\?\)"),
        (SWINIR, {"window": 8}, r"SwinIR has no option 'window' \(did you mean 'window_size'\?\)"),
        ("EDSR", {"n_feats": "many"}, "EDSR: an option has the wrong type: .*n_feats.*int.*many"),
        (SWINIR, {"window_size": "large"}, "SwinIR: window_size='large' should be a number, like its default 7"),
        (f"{__name__}.Takes", {}, "Takes needs the option width"),
        ("ESDR", {}, r"unknown network 'ESDR' \(did you mean 'EDSR'\?\)"),
        ("spandrel.architectures.SwinIR.SwinIRR", {}, r"no 'SwinIRR' \(did you mean 'SwinIR'\?\)"),
        ("collections.OrderedDict", {}, "no torch.nn.Module class"),
        ("no_such_library.Net", {}, "no module 'no_such_library' here"),
    ],
)
def test_bad_spec_is_refused_in_one_line(architecture, options, message):
    with pytest.raises(ValueError, match=message) as caught:
        check_spec(NetworkSpec(architecture, options))
    assert "\n" not in str(caught.value)


def test_missing_extra_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "spandrel_extra_arches", None)
    for name in [m for m in __import__("sys").modules if m.startswith("spandrel_extra_arches.")]:
        monkeypatch.delitem(__import__("sys").modules, name)
    with pytest.raises(ValueError, match=r'pip install "srdistill\[extra-archs\]"'):
        check_spec(NetworkSpec("spandrel_extra_arches.architectures.SRFormer.SRFormer"))


def test_scale_is_filled_in_under_the_constructors_own_name():
    from spandrel.architectures.OmniSR import OmniSR
    from spandrel.architectures.PLKSR import PLKSR
    from spandrel.architectures.SwiftSRGAN import SwiftSRGAN
    from spandrel.architectures.SwinIR import SwinIR

    names = [scale_argument(cls) for cls in (EDSR, SwinIR, OmniSR, PLKSR, SwiftSRGAN, Takes)]
    assert names == ["scale", "upscale", "up_scale", "upscaling_factor", "upscale_factor", None]


def test_scale_other_than_the_datas_is_refused():
    with pytest.raises(ValueError, match="upscale=2 contradicts the data, which have scale 4"):
        build_network(NetworkSpec(SWINIR, {**shipped("swinir_light").options, "upscale": 2}), 4)
    assert build_network(NetworkSpec("EDSR", {"scale": 2, "n_feats": 4, "n_resblocks": 1}), 2).scale == 2


def test_network_that_does_not_upscale_is_refused():
    assert build_network(NetworkSpec(f"{__name__}.Takes", {"width": 1}), 1).training
    with pytest.raises(ValueError, match=r"into \(1, 3, 16, 16\), but scale 2 needs \(1, 3, 32, 32\)"):
        build_network(NetworkSpec(f"{__name__}.Takes", {"width": 1}), 2)
    with pytest.raises(ValueError, match="EDSR has no scale 5"):
        build_network(NetworkSpec("EDSR", {"n_feats": 4, "n_resblocks": 1}), 5)


def test_spec_is_parsed_from_yaml_and_command_line():
    """The dataclass as LightningCLI sees it: an option of the network can be changed on the command line."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=NetworkSpec)
    spec = json.dumps({"architecture": "EDSR", "options": {"n_feats": 8}})
    parsed = parser.parse_args(["--network", spec, "--network.options.n_resblocks=2"])
    assert parser.instantiate(parsed).network == NetworkSpec("EDSR", {"n_feats": 8, "n_resblocks": 2})


# --- weights ---


def small_edsr(seed: int = 0) -> EDSR:
    torch.manual_seed(seed)
    return EDSR(scale=2, n_feats=4, n_resblocks=1)


WRAPPINGS = {
    "bare": lambda s: s,
    "basicsr": lambda s: {"params_ema": s, "params": {}},
    "ddp": lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    "compiled": lambda s: {"params": {f"_orig_mod.{k}": v for k, v in s.items()}},
    "lightning": lambda s: {
        "epoch": 3,
        "state_dict": {f"network._orig_mod.{k}": v for k, v in s.items()} | {"loss.weight": torch.ones(1)},
    },
}


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_weights_load_from_common_wrappings(wrapping, tmp_path):
    source, target = small_edsr(0), small_edsr(1)
    path = tmp_path / "weights.pth"
    torch.save(WRAPPINGS[wrapping](source.state_dict()), path)
    load_weights(target, path)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_exported_weights_are_bare_complete_and_come_back(tmp_path):
    source, target = small_edsr(0).to(memory_format=torch.channels_last), small_edsr(1)
    path = tmp_path / "new" / "weights.safetensors"
    export_weights(source, path, {"scale": "2"})
    assert load_file(path).keys() == source.state_dict().keys()
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"scale": "2"}
    assert [p.name for p in path.parent.iterdir()] == ["weights.safetensors"]
    load_weights(target, path)
    assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))


def test_export_leaves_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "weights.safetensors"
    export_weights(small_edsr(), path)
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"metadata|str"):
        export_weights(small_edsr(1), path, {"scale": 2})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def test_tied_weights_are_exported(tmp_path):
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    network[1].weight = network[0].weight
    export_weights(network, tmp_path / "w.safetensors")
    assert len(load_file(tmp_path / "w.safetensors")) == 4


def test_weights_that_do_not_fit_are_counted_and_named(tmp_path):
    state = small_edsr().state_dict()
    del state["head.0.weight"]
    state["tail.1.bias"] = torch.zeros(5)
    state["extra"] = torch.zeros(1)
    save_file(state, tmp_path / "w.safetensors")
    message = r"1 missing \(head.0.weight\); 1 unexpected \(extra\); 1 of another shape \(tail.1.bias \(5,\) instead of"
    with pytest.raises(ValueError, match=message):
        load_weights(small_edsr(), tmp_path / "w.safetensors")


def test_weight_files_are_never_unpickled(tmp_path):
    torch.save({"state_dict": {}, "callback": Path("x")}, tmp_path / "unsafe.ckpt")
    with pytest.raises(ValueError, match="cannot be read as a file of tensors and plain values"):
        load_weights(small_edsr(), tmp_path / "unsafe.ckpt")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"broken\.safetensors cannot be read"):
        load_weights(small_edsr(), tmp_path / "broken.safetensors")
    with pytest.raises(FileNotFoundError, match="no weight file"):
        load_weights(small_edsr(), tmp_path / "none.ckpt")


def test_weights_under_another_implementations_names_are_converted(tmp_path):
    """BasicSR's RRDBNet (Real-ESRGAN) and spandrel's differ in names; spandrel knows both."""
    network = build_network(shipped("rrdb"), 4)
    names = {"model.0": "conv_first", "model.1.sub.1": "conv_body"}
    names |= {"model.3": "conv_up1", "model.6": "conv_up2", "model.8": "conv_hr", "model.10": "conv_last"}
    for rdb in (1, 2, 3):
        names |= {f"model.1.sub.0.RDB{rdb}.conv{c}.0": f"body.0.rdb{rdb}.conv{c}" for c in range(1, 6)}
    state = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in network.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    other = build_network(shipped("rrdb"), 4)
    load_weights(other, tmp_path / "w.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), other.parameters(), strict=True))
