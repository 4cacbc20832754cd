"""Memories and minimax criteria against deques and loops in float64; two processes against one."""

from __future__ import annotations

import os
from collections import deque
from datetime import timedelta

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_modules.losses import ClassMemory, Minimax

CLASSES, WIDTH, SIZE = 3, 6, 4


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labelled(seed: int, count: int, classes: int = CLASSES) -> Tensor:
    return torch.randint(classes, (count,), generator=torch.Generator().manual_seed(seed))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


class Reference:
    """The formulas, sample by sample: a deque per class, float64."""

    def __init__(self) -> None:
        self.real = [deque(maxlen=SIZE) for _ in range(CLASSES)]
        self.predicted = [deque(maxlen=SIZE) for _ in range(CLASSES)]

    def losses(self, predicted: Tensor, real: Tensor, labels: Tensor) -> tuple[float, float]:
        z, y = predicted.detach().double().numpy(), labels.tolist()
        representativeness, diversity = [], []
        for c in sorted({c for c in y if self.real[c]}):
            mine = [z[i] for i in range(len(y)) if y[i] == c]
            representativeness.append(np.mean([1 - min(cosine(v, m) for m in self.real[c]) for v in mine]))
            diversity.append(np.mean([max(cosine(v, m) for m in self.predicted[c]) for v in mine]))
        for c, vector, other in zip(y, z, real.double().numpy(), strict=True):
            self.predicted[c].append(vector)
            self.real[c].append(other)
        if not representativeness:
            return 0.0, 0.0
        return float(np.mean(representativeness)), float(np.mean(diversity))


def held(memory: ClassMemory) -> list[list[list[float]]]:
    return [memory.of(c).tolist() for c in range(CLASSES)]


@pytest.mark.parametrize("batch", [1, 3, 20])
def test_memory_is_a_queue_per_class(batch):
    """A batch of 20 has more than SIZE of a class."""
    memory = ClassMemory(CLASSES, WIDTH, SIZE)
    queues = [deque(maxlen=SIZE) for _ in range(CLASSES)]
    for step in range(7):
        vectors, labels = drawn(step, batch, WIDTH), labelled(step, batch)
        memory.push(vectors, labels)
        for vector, label in zip(vectors.tolist(), labels.tolist(), strict=True):
            queues[label].append(vector)
        assert held(memory) == [list(queue) for queue in queues]
        assert memory.held.tolist() == [len(queue) for queue in queues]


def test_losses_are_the_formulas():
    minimax, reference = Minimax(CLASSES, WIDTH, SIZE), Reference()
    for step in range(8):
        predicted, real, labels = drawn(step, 5, WIDTH), drawn(100 + step, 5, WIDTH), labelled(step, 5)
        found = minimax(predicted, real, labels, torch.arange(5 * step, 5 * step + 5))
        assert [loss.item() for loss in found] == pytest.approx(reference.losses(predicted, real, labels), abs=1e-6)
        assert found.representativeness.shape == found.diversity.shape == ()
    assert held(minimax.predicted) == [[vector.tolist() for vector in queue] for queue in reference.predicted]
    assert held(minimax.real) == [[vector.tolist() for vector in queue] for queue in reference.real]


def filled() -> Minimax:
    minimax = Minimax(CLASSES, WIDTH, SIZE)
    minimax(drawn(0, 7, WIDTH), drawn(1, 7, WIDTH), labelled(0, 7), torch.arange(7))
    return minimax


@pytest.mark.parametrize("which", [0, 1])
def test_gradient_is_that_of_finite_differences(which):
    """Although the batch overwrites the memory before backward runs."""
    predicted, labels, numbers = drawn(2, 5, WIDTH).requires_grad_(), labelled(3, 5), torch.arange(5)
    filled()(predicted, drawn(3, 5, WIDTH), labels, numbers)[which].backward()
    expected = np.zeros((5, WIDTH))
    for i, j in np.ndindex(*expected.shape):
        ends = []
        for shift in (1e-5, -1e-5):
            reference = Reference()
            reference.losses(drawn(0, 7, WIDTH), drawn(1, 7, WIDTH), labelled(0, 7))
            moved = predicted.detach().double()
            moved[i, j] += shift
            ends.append(reference.losses(moved, drawn(3, 5, WIDTH), labels)[which])
        expected[i, j] = (ends[0] - ends[1]) / 2e-5
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(predicted.grad.numpy(), expected, atol=1e-5)


def test_no_memory_no_loss_and_no_gradient():
    predicted = drawn(0, 4, WIDTH).requires_grad_()
    losses = Minimax(CLASSES, WIDTH, SIZE)(predicted, drawn(1, 4, WIDTH), labelled(0, 4), torch.arange(4))
    assert [loss.item() for loss in losses] == [0, 0]
    sum(losses).backward()
    assert predicted.grad.tolist() == torch.zeros(4, WIDTH).tolist()


def test_known_values():
    """Cosines 1 and -1 in the plane; the class without a memory does not count."""
    minimax = Minimax(2, 2, SIZE)
    east, west = torch.tensor([[2.0, 0.0]]), torch.tensor([[-3.0, 0.0]])
    minimax(east, west, torch.tensor([0]), torch.tensor([0]))
    both = minimax(torch.cat((east, east)), torch.cat((east, east)), torch.tensor([0, 1]), torch.tensor([1, 2]))
    assert [loss.item() for loss in both] == [2, 1]


def test_order_of_memories_is_that_of_running_numbers():
    shuffled = torch.tensor([3, 0, 4, 1, 2])
    first, second = Minimax(1, WIDTH, SIZE), Minimax(1, WIDTH, SIZE)
    vectors, labels, numbers = drawn(0, 5, WIDTH), torch.zeros(5, dtype=torch.int64), torch.arange(5)
    first(vectors, -vectors, labels, numbers)
    second(vectors[shuffled], -vectors[shuffled], labels, numbers[shuffled])
    assert second.predicted.of(0).tolist() == first.predicted.of(0).tolist() == vectors[1:].tolist()
    assert second.real.of(0).tolist() == (-vectors[1:]).tolist()


def test_state_dict_resumes_bit_for_bit():
    original, resumed = filled(), Minimax(CLASSES, WIDTH, SIZE)
    resumed.load_state_dict(original.state_dict())
    for step in range(3):
        batch = (drawn(10 + step, 5, WIDTH), drawn(20 + step, 5, WIDTH), labelled(step, 5), torch.arange(5))
        assert torch.stack(original(*batch)).tolist() == torch.stack(resumed(*batch)).tolist()
    assert held(resumed.predicted) == held(original.predicted)
    assert held(resumed.real) == held(original.real)


def test_only_training_fills_the_memories():
    minimax = filled()
    before = held(minimax.real), held(minimax.predicted)
    batch = (drawn(2, 5, WIDTH), drawn(3, 5, WIDTH), labelled(3, 5), torch.arange(5))
    evaluated = minimax.eval()(*batch)
    assert (held(minimax.real), held(minimax.predicted)) == before
    assert torch.equal(torch.stack(minimax.train()(*batch)), torch.stack(evaluated))
    assert held(minimax.real) != before[0]


def test_memories_leave_out_what_is_not_finite():
    minimax, clean = filled(), filled()
    predicted, real = drawn(2, 3, WIDTH), drawn(3, 3, WIDTH)
    predicted[0, 1], real[2, 0] = torch.nan, torch.inf
    losses = minimax(predicted, real, torch.tensor([0, 1, 2]), torch.arange(3))
    assert losses.representativeness.isnan()
    clean(predicted[1:2], real[1:2], torch.tensor([1]), torch.tensor([1]))
    assert held(minimax.predicted) == held(clean.predicted)
    assert held(minimax.real) == held(clean.real)


def test_float32_under_autocast():
    batch = (drawn(2, 5, WIDTH), drawn(3, 5, WIDTH), labelled(3, 5), torch.arange(5))
    with torch.autocast("cpu", torch.bfloat16):
        found = filled()(*batch)
    assert torch.stack(found).tolist() == torch.stack(filled()(*batch)).tolist()
    assert found.diversity.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": torch.tensor([0, 3])}, "label 3 is not one of the 3 classes 0 to 2"),
        ({"labels": torch.tensor([0, -1])}, "label -1 is not one"),
        ({"labels": torch.tensor([0.0, 1.0])}, "torch.float32"),
        ({"predicted": torch.zeros(2, 5), "real": torch.zeros(2, 5)}, r"\(2, 5\).*6 numbers"),
        ({"predicted": torch.zeros(2, 2, 3), "real": torch.zeros(2, 2, 3)}, "flatten"),
        ({"real": torch.zeros(2, 5)}, r"real \(2, 5\)"),
        ({"numbers": torch.arange(3)}, r"numbers \(3,\)"),
    ],
)
def test_bad_batches_are_named_and_leave_the_memories_alone(change, message):
    good = {"predicted": torch.zeros(2, WIDTH), "real": torch.zeros(2, WIDTH)}
    good |= {"labels": torch.tensor([0, 1]), "numbers": torch.arange(2)}
    minimax = Minimax(CLASSES, WIDTH, SIZE)
    with pytest.raises(ValueError, match=message) as error:
        minimax(**good | change)
    assert "\n" not in str(error.value)
    assert minimax.real.pushed.sum() == minimax.predicted.pushed.sum() == 0


@pytest.mark.parametrize("option", ["classes", "width", "size"])
def test_bad_options_are_named(option):
    with pytest.raises(ValueError, match=f"{option} of a class memory is 0"):
        Minimax(**{"classes": 2, "width": 3, "size": 4, option: 0})


class Predictor(nn.Module):
    """A model with the losses inside, as in training; the weighted sum is what it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(WIDTH, WIDTH)
        self.minimax = Minimax(CLASSES, WIDTH, SIZE)
        with torch.no_grad():
            self.linear.weight.copy_(drawn(1, WIDTH, WIDTH))
            self.linear.bias.zero_()

    def forward(self, real: Tensor, labels: Tensor, numbers: Tensor) -> Tensor:
        losses = self.minimax(self.linear(real), real, labels, numbers)
        return losses.representativeness + 3 * losses.diversity


def steps(model: nn.Module, rank: int, processes: int) -> dict[str, Tensor]:
    """Five steps of eight samples with steep class counts, dealt out by turns as one with numbers; what came of it."""
    record = {}
    for step in range(5):
        real, labels = drawn(step, 8, WIDTH), torch.tensor([0, 0, 1, 0, 0, 2, 0, 0]).roll(step)
        mine = torch.arange(8)[rank::processes]
        model.zero_grad()
        loss = model(real[mine], labels[mine], mine + 8 * step)
        loss.backward()
        record |= {f"loss {step}": loss.detach(), f"gradient {step}": next(model.parameters()).grad.clone()}
        with torch.no_grad():
            for weight in model.parameters():
                weight.sub_(0.1 * weight.grad)
    return record


def _steps_of_one_of_two(rank: int, folder) -> None:
    torch.set_num_threads(1)
    init = f"file://{folder / 'rendezvous'}"
    torch.distributed.init_process_group("gloo", init, timedelta(seconds=60), world_size=2, rank=rank)
    model = Predictor()
    record = steps(DistributedDataParallel(model), rank, 2)
    torch.save(record | model.minimax.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")
def test_two_processes_do_what_one_does(tmp_path):
    torch.multiprocessing.start_processes(_steps_of_one_of_two, (tmp_path,), nprocs=2, start_method="fork")
    model = Predictor()
    alone = steps(model, 0, 1) | model.minimax.state_dict()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for name, value in alone.items():
        if name.startswith("loss"):
            torch.testing.assert_close((first[name] + second[name]) / 2, value, rtol=0, atol=1e-5)
        else:
            torch.testing.assert_close(first[name], value, rtol=0, atol=1e-5)
            assert torch.equal(first[name], second[name])
    assert alone["gradient 4"].abs().max() > 0.01
    assert first["loss 4"] != second["loss 4"]
