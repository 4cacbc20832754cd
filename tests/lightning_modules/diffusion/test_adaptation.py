"""LoRA and DiffFit: the start equals the base, formulas, parameter counts, and who gets a gradient."""

from __future__ import annotations

import copy

import pytest
import torch

from lightning_modules.diffusion.adaptation import Adaptation, DiffFit, LoRA, trainable_parameters
from lightning_modules.diffusion.conditioning import condition_on_features, set_classes

WIDTH, LAYERS, CLASSES = 16, 2, 3
TABLES = LAYERS * (CLASSES + 1) * WIDTH


@pytest.fixture
def dit(tiny_dit):
    """A DiT of 3 classes."""
    return tiny_dit(num_embeds_ada_norm=CLASSES)


def predict(dit):
    noisy = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return dit(noisy, torch.tensor([10, 200, 500, 900]), torch.tensor([0, 1, 2, CLASSES])).sample


def train_a_step(dit):
    optimizer = torch.optim.SGD(trainable_parameters(dit).values(), lr=0.5)
    predict(dit).pow(2).mean().backward()
    optimizer.step()


def count(dit):
    return sum(parameter.numel() for parameter in trainable_parameters(dit).values())


@pytest.mark.parametrize("adaptation", [LoRA(rank=4), LoRA(rank=2, target_modules=["norm1.linear"]), DiffFit()])
@pytest.mark.parametrize("out_channels", [4, 8], ids=["plain", "learned variance"])
def test_the_start_is_the_base_exactly_and_training_moves_only_what_is_trainable(tiny_dit, adaptation, out_channels):
    dit = tiny_dit(num_embeds_ada_norm=CLASSES, out_channels=out_channels)
    base, weights = predict(dit), dit.state_dict()
    weights = {name: tensor.clone() for name, tensor in weights.items()}
    adaptation.apply(dit)
    assert base.shape[1] == out_channels
    assert torch.equal(predict(dit), base)

    train_a_step(dit)
    assert not torch.equal(predict(dit), base)
    frozen = {n.replace(".base_layer", ""): p for n, p in dit.named_parameters() if not p.requires_grad}
    assert frozen
    assert all(torch.equal(parameter, weights[name]) for name, parameter in frozen.items())
    assert all(parameter.grad is None for parameter in frozen.values())
    assert all(parameter.grad is not None for parameter in trainable_parameters(dit).values())


def test_lora_trains_its_factors_and_the_class_tables_only(dit):
    LoRA(rank=4).apply(dit)
    layers = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2")
    factors = {
        f"transformer_blocks.{i}.{layer}.lora_{factor}.default.weight"
        for i in range(LAYERS)
        for layer in layers
        for factor in "AB"
    }
    tables = {f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight" for i in range(LAYERS)}
    assert trainable_parameters(dit).keys() == factors | tables
    train_a_step(dit)
    moved = {name for name, parameter in trainable_parameters(dit).items() if parameter.grad.abs().sum() > 0}
    assert moved == {name for name in factors if "lora_B" in name} | tables  # A waits for B, which starts at zero


def test_lora_factors_are_named_as_peft_names_them(dit):
    from peft import get_peft_model_state_dict

    LoRA(rank=4).apply(dit)
    ours = {name.replace(".default", "") for name in trainable_parameters(dit) if "class_embedder" not in name}
    assert get_peft_model_state_dict(dit).keys() == ours


@pytest.mark.parametrize(("rank", "alpha", "scale"), [(4, None, 1.0), (4, 8.0, 2.0), (4, 1.0, 0.25)])
def test_lora_equals_the_base_with_its_update_added_by_hand(dit, rank, alpha, scale):
    """Equation 3 of arXiv 2106.09685, with plain weights W + alpha / rank * B A in an unadapted copy."""
    by_hand = copy.deepcopy(dit)
    LoRA(rank=rank, alpha=alpha).apply(dit)
    factors = {name: parameter for name, parameter in dit.named_parameters() if "lora_" in name}
    with torch.no_grad():
        for parameter in factors.values():
            parameter.normal_(std=0.3)
        for name in {name.partition(".lora_")[0] for name in factors}:
            b, a = (factors[f"{name}.lora_{factor}.default.weight"] for factor in "BA")
            by_hand.get_submodule(name).weight += scale * b @ a
    torch.testing.assert_close(predict(dit), predict(by_hand), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rank", [1, 4])
def test_lora_parameters_by_formula(dit, rank):
    LoRA(rank=rank).apply(dit)
    attention, feed_forward = 4 * rank * 2 * WIDTH, 2 * rank * (WIDTH + 4 * WIDTH)
    assert count(dit) == LAYERS * (attention + feed_forward) + TABLES


def test_difffit_trains_biases_scales_and_the_class_tables_only(dit):
    biases = {name for name, _ in dit.named_parameters() if name.rpartition(".")[2] == "bias"}
    DiffFit().apply(dit)
    scales = {f"transformer_blocks.{i}.{branch}.output_scale" for i in range(LAYERS) for branch in ("attn1", "ff")}
    tables = {f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight" for i in range(LAYERS)}
    assert trainable_parameters(dit).keys() == biases | scales | tables
    train_a_step(dit)
    still = {name for name, p in trainable_parameters(dit).items() if p.grad.abs().max() < 1e-7}
    # softmax does not see a constant added to all keys
    assert still == {f"transformer_blocks.{i}.attn1.to_k.bias" for i in range(LAYERS)}


def test_difffit_trains_norms_that_have_weights(tiny_dit):
    plain, affine = tiny_dit(), tiny_dit(norm_elementwise_affine=True)
    more = {n for n, _ in affine.named_parameters()} - {n for n, _ in plain.named_parameters()}
    DiffFit().apply(affine)
    assert more
    assert more <= trainable_parameters(affine).keys()


def test_difffit_scales_multiply_the_outputs_of_attention_and_feed_forward(dit):
    """gamma f(x) equals f with its last linear layer's weight and bias multiplied by gamma, in an unadapted copy."""
    by_hand = copy.deepcopy(dit)
    DiffFit().apply(dit)
    with torch.no_grad():
        for mine, theirs in zip(dit.transformer_blocks, by_hand.transformer_blocks, strict=True):
            for branch, last in ((mine.attn1, theirs.attn1.to_out[0]), (mine.ff, theirs.ff.net[2])):
                branch.output_scale.uniform_(0.5, 2)
                last.weight *= branch.output_scale[:, None]
                last.bias *= branch.output_scale
    torch.testing.assert_close(predict(dit), predict(by_hand), atol=1e-5, rtol=1e-4)


def test_difffit_goes_on_working_with_another_attention_processor_and_in_a_copy(dit):
    from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0

    DiffFit().apply(dit)
    attention = dit.transformer_blocks[0].attn1
    torch.nn.init.constant_(attention.output_scale, 3)
    expected = predict(dit)
    assert torch.equal(predict(copy.deepcopy(dit)), expected)
    assert isinstance(attention.get_processor(), AttnProcessor2_0)
    attention.set_processor(AttnProcessor())
    torch.testing.assert_close(predict(dit), expected, atol=1e-5, rtol=1e-4)


def test_difffit_on_dit_xl_2_is_as_small_as_published(tiny_dit):
    """Published: 0.83 M, 0.12 %. Not equal: diffusers has timestep and class embedders in every block, DiT one each."""
    xl = {"num_attention_heads": 16, "attention_head_dim": 72, "num_layers": 28, "sample_size": 64, "out_channels": 8}
    with torch.device("meta"):  # shapes without memory
        dit = tiny_dit(num_embeds_ada_norm=1000, **xl)
        set_classes(dit, 7)
    DiffFit().apply(dit)
    width, layers = 1152, 28
    block = 3 * width + width + 4 * width + width + 6 * width + 2 * width  # q k v, out, MLP, adaLN, timestep embedder
    tail = width + 2 * width + 2 * 2 * 8  # patch embedding, final modulation, final projection
    table = layers * 8 * width
    assert count(dit) == layers * (block + 2 * width) + tail + table == 874_400
    assert 0.1e-2 < count(dit) / sum(p.numel() for p in dit.parameters()) < 0.15e-2


@pytest.mark.parametrize("adaptation", [LoRA(rank=4), DiffFit()])
def test_what_trains_is_float32_above_half_precision_weights(dit, adaptation):
    dit.to(torch.bfloat16)
    adaptation.apply(dit)
    assert {parameter.dtype for parameter in trainable_parameters(dit).values()} == {torch.float32}
    assert {p.dtype for p in dit.parameters() if not p.requires_grad} == {torch.bfloat16}
    with torch.autocast("cpu", torch.bfloat16):
        predict(dit).float().pow(2).mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in trainable_parameters(dit).values())


@pytest.mark.parametrize("adaptation", [LoRA(rank=4), DiffFit()])
def test_feature_embeddings_are_trained_in_full(dit, adaptation):
    condition_on_features(dit, 5)
    adaptation.apply(dit)
    names = {
        f"transformer_blocks.0.norm1.emb.class_embedder.{n}" for n in ("projection.weight", "projection.bias", "null")
    }
    assert names <= trainable_parameters(dit).keys()
    assert not any("class_embedder.projection.lora" in name for name in trainable_parameters(dit))


def test_unknown_target_modules_are_named_with_those_there_are(dit):
    with pytest.raises(ValueError, match="cannot find to_z, qkv") as error:
        LoRA(target_modules=["to_q", "to_z", "qkv"]).apply(dit)
    assert "\n" not in str(error.value)
    listed = str(error.value).partition("may name: ")[2].split(", ")
    assert {"attn1.to_q", "attn1.to_out.0", "ff.net.0.proj", "norm1.linear", "proj_out_2"} <= set(listed)
    LoRA(rank=1, target_modules=listed).apply(dit)  # each name of the list is accepted


def test_the_class_embedder_is_no_target(dit):
    condition_on_features(dit, 5)
    with pytest.raises(ValueError, match="cannot find projection"):
        LoRA(target_modules=["projection"]).apply(dit)


@pytest.mark.parametrize(
    "wrong", [{"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}, {"dropout": -0.1}, {"target_modules": []}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="LoRA got rank"):
        LoRA(**wrong)


def test_identity_is_plain_values():
    assert LoRA(rank=2, target_modules=["to_q"]).identity() == {
        "class": "LoRA",
        "rank": 2,
        "alpha": 2.0,
        "dropout": 0.0,
        "target_modules": ["to_q"],
    }
    assert DiffFit().identity() == {"class": "DiffFit"}


def test_the_command_line_offers_the_adaptations_and_their_settings():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--adaptation", type=Adaptation)
    arguments = ["--adaptation=LoRA", "--adaptation.rank=2", "--adaptation.target_modules=[to_q]"]
    built = parser.instantiate_classes(parser.parse_args(arguments)).adaptation
    assert built.identity()["target_modules"] == ["to_q"]
    assert isinstance(parser.instantiate_classes(parser.parse_args(["--adaptation=DiffFit"])).adaptation, DiffFit)
