"""Conditioning of a diffusion transformer: class tables of another size, features in place of classes, the null row."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lightning_modules.diffusion.conditioning import (
    FeatureEmbedding,
    class_embedders,
    classes_of,
    condition_on_features,
    has_null,
    null_condition,
    set_classes,
    switch_off_dropout,
)


@pytest.fixture
def dit(tiny_dit):
    """A DiT of 10 classes; its rows are drawn, so that no two are alike."""
    return tiny_dit()


def tables(dit):
    return [dit.state_dict()[f"transformer_blocks.{i}.norm1.emb.class_embedder.embedding_table.weight"] for i in (0, 1)]


def drop_null_rows(dit):
    for embedder in class_embedders(dit):
        embedder.embedding_table = torch.nn.Embedding.from_pretrained(embedder.embedding_table.weight[:10])


def predict(dit, condition, seed=1):
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(len(condition), 4, 8, 8, generator=generator)
    return dit(noisy, torch.full((len(condition),), 500), condition).sample


def test_new_rows_are_the_mean_and_the_null_row_survives_bit_for_bit(dit):
    old = [table.clone() for table in tables(dit)]
    set_classes(dit, 3)
    for before, after in zip(old, tables(dit), strict=True):
        mean = sum(before[i].double() for i in range(10)) / 10  # written out: the null row must not count
        assert after.shape == (4, 16)
        torch.testing.assert_close(after[:3].double(), mean.expand(3, 16), atol=1e-7, rtol=1e-6)
        assert torch.equal(after[3], before[10])
    assert classes_of(dit) == 3
    assert has_null(dit)
    assert dit.config.num_embeds_ada_norm == 3
    assert all(embedder.embedding_table.weight.requires_grad for embedder in class_embedders(dit))


def test_the_unconditional_prediction_is_untouched_by_new_classes(dit):
    before = predict(dit, torch.full((2,), 10))
    set_classes(dit, 3)
    assert torch.equal(predict(dit, torch.full((2,), 3)), before)


def test_the_model_of_new_classes_is_saved_and_read_by_diffusers(dit, tmp_path):
    set_classes(dit, 3)
    dit.save_pretrained(tmp_path)
    again = type(dit).from_pretrained(tmp_path)
    assert torch.equal(predict(again.eval(), torch.tensor([0, 3])), predict(dit, torch.tensor([0, 3])))


def test_the_same_number_of_classes_leaves_the_tables_alone(dit):
    before = [table.clone() for table in tables(dit)]
    set_classes(dit, 10)
    assert all(torch.equal(a, b) for a, b in zip(before, tables(dit), strict=True))


def test_a_model_without_null_class_gets_none(dit):
    drop_null_rows(dit)
    assert not has_null(dit)
    set_classes(dit, 3)
    assert not has_null(dit)
    assert tables(dit)[0].shape == (3, 16)
    with pytest.raises(ValueError, match="no null class"):
        null_condition(dit, torch.tensor([0, 1]))


def test_half_precision_tables_keep_their_type(dit):
    set_classes(dit.to(torch.bfloat16), 3)
    assert tables(dit)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("classes", [0, -1])
def test_no_classes_are_refused(dit, classes):
    with pytest.raises(ValueError, match=f"classes is {classes}"):
        set_classes(dit, classes)


def test_without_the_models_own_dropout_training_mode_predicts_as_evaluation_does(dit):
    labels = torch.arange(10).repeat(8)
    expected = predict(dit.eval(), labels)
    torch.manual_seed(0)
    assert not torch.equal(predict(dit.train(), labels), expected)  # 160 draws at 0.1: some are dropped
    switch_off_dropout(dit)
    state = torch.get_rng_state()
    assert torch.equal(predict(dit, labels), expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert has_null(dit)


def test_features_start_from_the_mean_class(dit, tiny_dit):
    features = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    condition_on_features(dit, 5)
    found = predict(dit, features)
    assert isinstance(class_embedders(dit)[0], FeatureEmbedding)
    assert classes_of(dit) == 0

    other = tiny_dit()
    set_classes(other, 1)
    torch.testing.assert_close(found, predict(other, torch.zeros(3, dtype=torch.long)))


def test_zero_features_are_the_old_null_class_exactly_even_after_training(dit):
    before = predict(dit, torch.full((2,), 10))
    condition_on_features(dit, 5)
    for embedder in class_embedders(dit):
        torch.nn.init.normal_(embedder.projection.weight)
    assert torch.equal(null_condition(dit, torch.randn(2, 5)), torch.zeros(2, 5))
    assert torch.equal(predict(dit, null_condition(dit, torch.randn(2, 5))), before)


def test_feature_embedding_is_base_plus_projected_direction():
    torch.manual_seed(0)
    base, null = torch.randn(16), torch.randn(16)
    embedding = FeatureEmbedding(5, base, null)
    torch.nn.init.normal_(embedding.projection.weight)
    features = torch.randn(3, 5) * 40
    by_hand = [base + embedding.projection.weight @ (x / x.pow(2).sum().sqrt()) for x in features]
    torch.testing.assert_close(embedding(features), torch.stack(by_hand))
    assert sum(p.numel() for p in embedding.parameters()) == 5 * 16 + 2 * 16


def test_gradients_reach_projection_base_and_null_and_are_finite():
    embedding = FeatureEmbedding(5, torch.zeros(16), torch.ones(16))
    features = torch.tensor([[3.0, 0, 0, 0, 4.0], [0.0] * 5])
    embedding(features).sum().backward()
    expected = F.normalize(features[:1], dim=1).expand(16, 5)  # d sum / d W: the one direction, in each row
    torch.testing.assert_close(embedding.projection.weight.grad, expected)
    assert torch.equal(embedding.projection.bias.grad, torch.ones(16))  # of the row that is not null
    assert torch.equal(embedding.null.grad, torch.ones(16))


def test_features_of_a_model_without_null_class(dit):
    drop_null_rows(dit)
    condition_on_features(dit, 5)
    assert not has_null(dit)
    assert torch.isfinite(predict(dit, torch.zeros(2, 5))).all()
    with pytest.raises(ValueError, match="no null class"):
        null_condition(dit, torch.zeros(2, 5))


def test_labels_of_the_null_class_have_the_shape_of_the_labels(dit):
    assert torch.equal(null_condition(dit, torch.tensor([1, 4])), torch.tensor([10, 10]))


def test_a_model_conditioned_on_features_takes_neither_classes_nor_features_again(dit):
    condition_on_features(dit, 5)
    with pytest.raises(ValueError, match="no class table"):
        set_classes(dit, 3)
    with pytest.raises(ValueError, match="already"):
        condition_on_features(dit, 5)


def test_features_of_no_width_are_refused(dit):
    with pytest.raises(ValueError, match="0 values"):
        condition_on_features(dit, 0)
