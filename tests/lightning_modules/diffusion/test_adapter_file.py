"""Adapters on disk: nothing is lost on the way, and what does not belong together is refused."""

from __future__ import annotations

import json

import pytest
import torch

from lightning_modules.diffusion.adaptation import DiffFit, LoRA, trainable_parameters
from lightning_modules.diffusion.adapter_file import load_adapter, read_record, save_adapter, trainable_state
from lightning_modules.diffusion.conditioning import condition_on_features, set_classes

RECORD = {
    "base": {"name": "tiny", "fingerprint": "abc"},
    "adaptation": {"class": "LoRA", "rank": 4, "target_modules": ["to_q"]},
    "classes": 3,
    "latent_shape": (4, 8, 8),
    "prediction_type": "epsilon",
}


@pytest.fixture
def adapted(tiny_dit):
    """Makes a DiT of 10 classes, changed to 3 or to features, then adapted; seeded."""

    def make(adaptation, features=None, **changes):
        dit = tiny_dit(**changes)
        if features:
            condition_on_features(dit, features)
        else:
            set_classes(dit, 3)
        adaptation.apply(dit)
        return dit

    return make


@pytest.fixture
def trained(adapted):
    """Makes the same with trainable parameters that differ from their start."""

    def make(*args, **kwargs):
        dit = adapted(*args, **kwargs)
        with torch.no_grad():
            for parameter in trainable_parameters(dit).values():
                parameter.add_(torch.randn(parameter.shape), alpha=0.1)
        return dit

    return make


def predict(dit, features=None):
    noisy = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    condition = torch.eye(3, features) if features else torch.tensor([0, 2, 3])
    return dit(noisy, torch.tensor([10, 500, 900]), condition).sample


@pytest.mark.parametrize("adaptation", [LoRA(rank=4), DiffFit()])
@pytest.mark.parametrize("features", [None, 5], ids=["classes", "features"])
@pytest.mark.parametrize("out_channels", [4, 8], ids=["plain", "learned variance"])
def test_saved_and_loaded_predict_the_same(adapted, trained, adaptation, features, out_channels, tmp_path):
    before = trained(adaptation, features=features, out_channels=out_channels)
    save_adapter(tmp_path, trainable_state(before), RECORD)
    after = adapted(adaptation, features=features, out_channels=out_channels)
    assert not torch.equal(predict(after, features), predict(before, features))
    load_adapter(tmp_path, after, RECORD)
    assert torch.equal(predict(after, features), predict(before, features))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter.json", "adapter.safetensors"]


def test_peft_reads_the_low_rank_factors(adapted, trained, tmp_path):
    """The same prediction through peft's own loader, on a model that peft has adapted."""
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    before = trained(LoRA(rank=4, alpha=8, target_modules=["to_q"]))
    save_adapter(tmp_path, trainable_state(before), RECORD)
    saved = load_file(tmp_path / "adapter.safetensors")
    after = adapted(DiffFit())  # for its model: the scale vectors are 1
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=8, target_modules=["to_q"]), after)
    factors = {name.replace(".default", ""): tensor for name, tensor in saved.items() if "lora_" in name}
    assert not set_peft_model_state_dict(after, factors).unexpected_keys
    after.load_state_dict({name: tensor for name, tensor in saved.items() if "lora_" not in name}, strict=False)
    torch.testing.assert_close(predict(after), predict(before))


def test_parameters_keep_their_place_in_memory_so_that_optimisers_and_averages_follow(trained, tmp_path):
    dit = trained(LoRA(rank=4))
    save_adapter(tmp_path, trainable_state(dit), RECORD)
    places = {name: parameter.data_ptr() for name, parameter in trainable_parameters(dit).items()}
    load_adapter(tmp_path, dit, RECORD)
    assert {name: parameter.data_ptr() for name, parameter in trainable_parameters(dit).items()} == places
    assert all(parameter.requires_grad for parameter in trainable_parameters(dit).values())


def test_the_state_is_a_copy(adapted):
    dit = adapted(LoRA(rank=4))
    state = trainable_state(dit)
    before = {name: tensor.clone() for name, tensor in state.items()}
    with torch.no_grad():
        for parameter in trainable_parameters(dit).values():
            parameter.zero_()
    assert all(torch.equal(state[name], before[name]) and not state[name].requires_grad for name in before)


def test_the_file_can_be_given_for_the_folder(trained, tmp_path):
    dit = trained(LoRA(rank=4))
    save_adapter(tmp_path / "deep" / "adapter", trainable_state(dit), RECORD)
    load_adapter(tmp_path / "deep" / "adapter" / "adapter.safetensors", dit, RECORD)
    assert read_record(tmp_path / "deep" / "adapter") == json.loads(json.dumps(RECORD))


def test_a_write_that_fails_leaves_the_last_adapter_whole(trained, tmp_path, monkeypatch):
    dit = trained(LoRA(rank=4))
    save_adapter(tmp_path, trainable_state(dit), RECORD)
    before = (tmp_path / "adapter.safetensors").read_bytes()

    def torn(state, path):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", torn)
    with pytest.raises(OSError, match="disk full"):
        save_adapter(tmp_path, trainable_state(dit), RECORD)
    assert (tmp_path / "adapter.safetensors").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 2


def test_each_difference_of_the_records_is_named(trained, tmp_path):
    dit = trained(LoRA(rank=4))
    save_adapter(tmp_path, trainable_state(dit), {**RECORD, "base": {"name": "tiny", "fingerprint": "xyz"}, "old": 1})
    with pytest.raises(ValueError, match="does not belong") as error:
        load_adapter(tmp_path, dit, {**RECORD, "classes": 7, "conditioning": "features"})
    assert "\n" not in str(error.value)
    assert str(error.value).partition("this model: ")[2].split("; ")[:4] == [
        "base.fingerprint is xyz there and abc here",
        "classes is 3 there and 7 here",
        "conditioning is nothing there and features here",
        "old is 1 there and nothing here",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop(next(iter(state))), r"missing from what was saved"),
        (lambda state: state.update({"made.up": torch.zeros(1)}), r"made\.up: not a trainable parameter"),
        (
            lambda state: state.update({next(iter(state)): torch.zeros(2, 3)}),
            r"saved with shape \(2, 3\), this model \(\d+, \d+\)",
        ),
    ],
    ids=["missing", "extra", "shape"],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(adapted, trained, change, message, tmp_path):
    state = trainable_state(trained(LoRA(rank=4)))
    change(state)
    save_adapter(tmp_path, state, RECORD)
    dit = adapted(LoRA(rank=4))
    before = trainable_state(dit)
    with pytest.raises(ValueError, match=message):
        load_adapter(tmp_path, dit, RECORD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in trainable_state(dit).items())


def test_an_adapter_of_another_kind_names_a_few_differences_only(adapted, tmp_path):
    save_adapter(tmp_path, trainable_state(adapted(LoRA(rank=4))), RECORD)
    with pytest.raises(ValueError, match=r"and \d+ more") as error:
        load_adapter(tmp_path, adapted(DiffFit()), RECORD)
    assert str(error.value).count("; ") == 6


def test_missing_and_damaged_files_are_explained(adapted, tmp_path):
    dit = adapted(LoRA(rank=4))
    with pytest.raises(FileNotFoundError, match="there is no adapter"):
        load_adapter(tmp_path, dit, RECORD)
    save_adapter(tmp_path, trainable_state(dit), RECORD)
    (tmp_path / "adapter.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="is damaged"):
        load_adapter(tmp_path, dit, RECORD)
    for text in ("{", "[1]"):
        (tmp_path / "adapter.json").write_text(text)
        with pytest.raises(ValueError, match="copy the adapter again"):
            load_adapter(tmp_path, dit, RECORD)
    (tmp_path / "adapter.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"adapter\.json"):
        load_adapter(tmp_path, dit, RECORD)
