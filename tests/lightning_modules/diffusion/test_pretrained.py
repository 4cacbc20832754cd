"""Pretrained models: nothing is lost on the way to disk and back, diffusers reads them, and damage is told of."""

from __future__ import annotations

import json
import pickle
import shutil
import time

import pytest
import torch

from datamodules.randomness import generators
from lightning_modules.diffusion.codec import AutoencoderSpec
from lightning_modules.diffusion.pretrained import fingerprint, load_autoencoder, load_pretrained, save_pretrained
from lightning_modules.diffusion.sampling import Sampler, sample
from lightning_modules.diffusion_prior import DenoiserSpec

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
LABELS = torch.tensor([1, 7])


def autoencoder(kind, seed=0):
    """Of two stages, in latents of another scale than the default."""
    torch.manual_seed(seed)
    codec = AutoencoderSpec(kind, channels=8, stages=2).build(16).eval()
    codec.model.register_to_config(scaling_factor=0.5)
    return codec


@pytest.fixture
def build(tiny_diffusion):
    """Makes a diffusion model in pixels, or in latents of a kind of autoencoder."""

    def make(kind="pixel", **changes):
        return tiny_diffusion(None if kind == "pixel" else autoencoder(kind), prediction="v_prediction", **changes)

    return make


@pytest.fixture
def saved(build, tmp_path):
    """A folder with a model in latents."""
    save_pretrained(build("tiny"), tmp_path / "model")
    return tmp_path / "model"


def images(diffusion, labels=LABELS):
    latents = sample(diffusion, Sampler(steps=3), labels, generators(0, "sample", range(len(labels))))
    return diffusion.codec.decode(latents).clamp(0, 1)


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_weights(path, change):
    from safetensors.torch import load_file, save_file

    state = load_file(path)
    change(state)
    save_file(state, path)


@pytest.mark.parametrize("kind", ["pixel", "tiny", "kl"])
def test_saved_and_loaded_sample_the_same(build, kind, tmp_path):
    before = build(kind, out_channels=6 if kind == "pixel" else 8)
    save_pretrained(before, tmp_path / "model")
    after = load_pretrained(str(tmp_path / "model"))
    same(images(after), images(before))
    assert after.state_dict().keys() == before.state_dict().keys()
    assert all(torch.equal(tensor, before.state_dict()[name]) for name, tensor in after.state_dict().items())
    assert before.process.config.items() <= after.process.config.items()
    assert type(after.codec) is type(before.codec)
    assert not after.denoiser.training
    parts = {"transformer", "scheduler"} | ({"vae", "model_index.json"} if kind != "pixel" else set())
    assert {path.name for path in (tmp_path / "model").iterdir()} == parts


@pytest.mark.parametrize("kind", ["tiny", "kl"])
def test_diffusers_own_pipeline_reads_the_folder_and_makes_the_same_images(build, kind, tmp_path):
    """Of a denoiser as DiffusionPrior builds it; DiTPipeline takes number 1000 for the null class."""
    from diffusers import DiTPipeline

    diffusion = build(kind)
    torch.manual_seed(0)
    diffusion.denoiser = DenoiserSpec(layers=1, heads=2, head_width=8).build(channels=4, size=8, classes=1000).eval()
    save_pretrained(diffusion, tmp_path / "model")
    pipeline = DiTPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    seeds = generators(0, "sample", range(2))
    expected = pipeline(LABELS.tolist(), generator=seeds, num_inference_steps=3, output_type="pt").images
    same(images(load_pretrained(str(tmp_path / "model"))), expected)


def test_a_folder_that_diffusers_wrote_is_read(tiny_dit, tmp_path):
    """With the settings of the published DiT-XL/2: its class has another name now, its schedule is linear."""
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline

    torch.manual_seed(0)
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=8, sample_size=8)
    dit = tiny_dit(num_embeds_ada_norm=1000, out_channels=8)
    scheduler = DDIMScheduler(beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False)
    DiTPipeline(dit, vae, scheduler).save_pretrained(tmp_path)
    published = {"_class_name": "Transformer2DModel", "num_vector_embeds": None, "only_cross_attention": False}
    edit_json(tmp_path / "transformer" / CONFIG, **published)
    edit_weights(tmp_path / "transformer" / WEIGHTS, lambda state: state.update({"pos_embed.pos_embed": torch.ones(1)}))
    loaded = load_pretrained(str(tmp_path))
    assert all(torch.equal(loaded.denoiser.state_dict()[name], tensor) for name, tensor in dit.state_dict().items())
    assert loaded.codec.model.config.scaling_factor == 0.18215
    assert loaded.process.prediction_type == "epsilon"


def test_half_precision_files_become_float32(build, tmp_path):
    diffusion = build("tiny")
    diffusion.denoiser.to(torch.bfloat16)
    save_pretrained(diffusion, tmp_path / "model")
    assert {weight.dtype for weight in load_pretrained(str(tmp_path / "model")).parameters()} == {torch.float32}


def test_the_folder_of_a_run_and_of_the_home_will_do(build, saved, tmp_path, monkeypatch):
    save_pretrained(build("tiny"), tmp_path / "run" / "pipeline")
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (str(tmp_path / "run"), "~/model", "~/run"):
        same(images(load_pretrained(source)), images(build("tiny")))
        assert fingerprint(source) == fingerprint(str(saved))


def test_another_autoencoder_can_be_given(build, saved, tmp_path):
    other = autoencoder("tiny", seed=1)
    other.model.save_pretrained(tmp_path / "alone")
    diffusion = build("tiny")
    diffusion.codec = other
    save_pretrained(diffusion, tmp_path / "run" / "pipeline")
    for source in ("alone", "run", "run/pipeline", "run/pipeline/vae"):
        where = str(tmp_path / source)
        same(images(load_pretrained(str(saved), where)), images(diffusion))
        assert fingerprint(str(saved), where) == fingerprint(str(tmp_path / "run"))
        loaded = load_autoencoder(where).state_dict()
        assert all(torch.equal(loaded[name], tensor) for name, tensor in other.state_dict().items())
    assert not torch.allclose(images(load_pretrained(str(saved))), images(diffusion), atol=0.01)
    assert fingerprint(str(saved)) != fingerprint(str(tmp_path / "run"))


def test_fingerprints_follow_the_files_and_not_their_place(saved, tmp_path):
    original = fingerprint(str(saved))
    shutil.copytree(saved, tmp_path / "elsewhere")
    assert fingerprint(str(tmp_path / "elsewhere")) == original
    changes = [
        lambda: edit_weights(saved / "transformer" / WEIGHTS, lambda state: state["proj_out_1.bias"].add_(1e-6)),
        lambda: edit_weights(saved / "vae" / WEIGHTS, lambda state: next(iter(state.values())).add_(1e-6)),
        lambda: edit_json(saved / "vae" / CONFIG, scaling_factor=0.6),
        lambda: edit_json(saved / "scheduler" / "scheduler_config.json", prediction_type="epsilon"),
    ]
    seen = {original}
    for change in changes:
        change()
        seen.add(fingerprint(str(saved)))
    assert len(seen) == len(changes) + 1


@pytest.mark.parametrize("kind", ["pixel", "tiny"])
def test_a_save_that_fails_leaves_nothing(build, kind, tmp_path, monkeypatch):
    from diffusers import DDIMScheduler

    def torn(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(DDIMScheduler, "save_pretrained", torn)
    with pytest.raises(OSError, match="disk full"):
        save_pretrained(build(kind), tmp_path / "model")
    assert not list(tmp_path.iterdir())


def remove(path):
    def change(folder):
        shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()

    return change


def rewrite(path, content):
    return lambda folder: (folder / path).write_bytes(content)


def configure(path, **changes):
    return lambda folder: edit_json(folder / path, **changes)


def weigh(path, change):
    return lambda folder: edit_weights(folder / path / WEIGHTS, change)


SCHEDULER = "scheduler/scheduler_config.json"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (remove("transformer"), FileNotFoundError, r"model holds no transformer/config\.json .* give a folder"),
        (remove("scheduler"), FileNotFoundError, r"there is no .*scheduler_config\.json; give a folder"),
        (remove(f"vae/{CONFIG}"), FileNotFoundError, r"there is no .*vae/config\.json; give a folder"),
        (remove(f"transformer/{WEIGHTS}"), ValueError, r"transformer: cannot be loaded .*no file named"),
        (rewrite(f"transformer/{WEIGHTS}", b"junk"), ValueError, r"transformer: cannot be loaded as weights"),
        (rewrite(f"transformer/{CONFIG}", b"{"), ValueError, r"transformer/config\.json is damaged"),
        (rewrite(f"vae/{CONFIG}", b"\xff\xfe"), ValueError, r"vae/config\.json is damaged"),
        (rewrite(SCHEDULER, b"[1]"), ValueError, r"scheduler_config\.json is damaged"),
        (
            weigh("transformer", lambda state: state.pop("proj_out_1.weight")),
            ValueError,
            r"transformer has no tensor proj_out_1\.weight \(1 such\)",
        ),
        (
            weigh("transformer", lambda state: state.update(extra=torch.ones(1))),
            ValueError,
            r"transformer has an unknown tensor extra \(1 such\)",
        ),
        (
            weigh("transformer", lambda state: state["proj_out_1.weight"].fill_(float("nan"))),
            ValueError,
            r"transformer: the weights proj_out_1\.weight are not finite",
        ),
        (
            weigh("vae", lambda state: state["decoder.layers.0.bias"].fill_(float("inf"))),
            ValueError,
            r"vae: the weights decoder\.layers\.0\.bias are not finite",
        ),
        (
            configure(f"transformer/{CONFIG}", _class_name="UNet2DModel"),
            ValueError,
            r"is of a UNet2DModel; expected DiTTransformer2DModel",
        ),
        (configure(f"vae/{CONFIG}", _class_name="VQModel"), ValueError, r"is of a VQModel; expected AutoencoderKL"),
        (
            configure(f"transformer/{CONFIG}", num_attention_heads=3),
            ValueError,
            r"transformer: cannot be loaded as weights of this model \(Cannot load because .* expected shape",
        ),
        (configure(SCHEDULER, prediction_type="flow_prediction"), ValueError, r"prediction_type is 'flow_prediction'"),
        (configure(SCHEDULER, beta_schedule="straight"), ValueError, r"straight"),
        (
            rewrite(SCHEDULER, b'{"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000}'),
            ValueError,
            r"the scheduler FlowMatchEulerDiscreteScheduler has no beta_schedule",
        ),
    ],
)
def test_whatever_is_wrong_is_told_in_one_line(saved, change, error, message):
    change(saved)
    with pytest.raises(error, match=message) as caught:
        load_pretrained(str(saved))
    assert "\n" not in str(caught.value)


def test_an_autoencoder_of_other_latents_is_refused(saved, tmp_path):
    AutoencoderSpec("tiny", channels=8, stages=2, latent_channels=3).build(16).model.save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=r"works on 4 channels .* latents have 3; give model\.autoencoder"):
        load_pretrained(str(saved), str(tmp_path / "other"))
    shutil.rmtree(saved / "vae")
    with pytest.raises(ValueError, match=r"works on 4 channels .* latents have 3"):
        load_pretrained(str(saved))  # pixels


class Code:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("modern", [True, False], ids=["torch.save", "pickle"])
def test_weights_that_hold_code_are_not_unpickled(saved, tmp_path, modern):
    (saved / "transformer" / WEIGHTS).unlink()
    file, code = (
        saved / "transformer" / "diffusion_pytorch_model.bin",
        {"proj_out_1.weight": Code(str(tmp_path / "ran"))},
    )
    if modern:
        torch.save(code, file)
    else:
        file.write_bytes(pickle.dumps(code))
    with pytest.raises(ValueError, match=r"transformer: holds more than tensors.*not unpickled for safety"):
        load_pretrained(str(saved))
    assert not (tmp_path / "ran").exists()


def test_bin_files_of_tensors_are_read(saved):
    """As the hub has them beside older models."""
    from safetensors.torch import load_file

    expected = images(load_pretrained(str(saved)))
    file = saved / "transformer" / WEIGHTS
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    assert torch.equal(images(load_pretrained(str(saved))), expected)


@pytest.mark.parametrize("source", ["/no/such", "/none", "./no/such", "~/none", "none", "a/b/c"])
def test_a_folder_that_is_not_there_is_no_matter_for_the_hub(source, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=rf"model\.pretrained {source}: no such folder; give a folder"):
        load_pretrained(source)


def test_an_empty_folder_says_that_a_run_writes_it_at_its_end(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no transformer/config\.json \(a run writes it when fit has"):
        load_pretrained(str(tmp_path))


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """HF_HUB_OFFLINE=1 with an empty cache, whose folder it is."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.mark.parametrize("load", [load_pretrained, fingerprint])
def test_the_hub_without_network_is_one_line_at_once(offline, load):
    start = time.monotonic()
    with pytest.raises(
        FileNotFoundError, match=r"cannot get facebook/DiT-XL-2-512 .*; for model\.pretrained give"
    ) as e:
        load("facebook/DiT-XL-2-512")
    assert time.monotonic() - start < 5
    assert "\n" not in str(e.value)
    assert "prior.yaml" in str(e.value)


def test_an_autoencoder_of_the_hub_without_network_is_one_line_too(offline, saved):
    with pytest.raises(
        FileNotFoundError, match=r"cannot get stabilityai/sd-vae .*; give model\.autoencoder as a folder"
    ):
        load_pretrained(str(saved), "stabilityai/sd-vae")


def test_what_the_hub_gave_before_is_read_without_network(offline, saved):
    snapshot = offline / "models--owner--model" / "snapshots" / "0123"
    shutil.copytree(saved, snapshot)
    (offline / "models--owner--model" / "refs").mkdir()
    (offline / "models--owner--model" / "refs" / "main").write_text("0123")
    assert torch.equal(images(load_pretrained("owner/model")), images(load_pretrained(str(saved))))
    assert fingerprint("owner/model") == fingerprint(str(saved))
