"""Minimax criteria of diffusion fine-tuning: predictions near all real samples of a class, unlike earlier predictions.

Gu et al., "Efficient Dataset Distillation via Minimax Diffusion", CVPR 2024 (arXiv 2311.15529); with super-resolution
Cho et al., IEEE SPL 2025 (arXiv 2509.14777).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_TINY = 1e-12  # a length below counts as this: a vector of zeros is similar to none


class ClassMemory(nn.Module):
    """The last vectors of each class, first in, first out; as buffers, so that a checkpoint restores them exactly.

    Args:
        classes: number of classes.
        width: length of a vector.
        size: vectors kept per class; 64 in both papers.

    Attributes:
        vectors: float32 (classes, size, width); number n of a class (from 0) lies in slot n % size.
        pushed: int64 (classes,), how many vectors each class has been given so far.

    Raises:
        ValueError: when one of the three is below 1.
    """

    vectors: Tensor
    pushed: Tensor

    def __init__(self, classes: int, width: int, size: int = 64) -> None:
        super().__init__()
        for name, value in (("classes", classes), ("width", width), ("size", size)):
            if value < 1:
                raise ValueError(f"{name} of a class memory is {value}; it must be 1 or more")
        self.register_buffer("vectors", torch.zeros(classes, size, width))
        self.register_buffer("pushed", torch.zeros(classes, dtype=torch.int64))

    @property
    def held(self) -> Tensor:
        """How many vectors each class holds, int64 (classes,)."""
        return self.pushed.clamp(max=self.vectors.shape[1])

    def of(self, label: int) -> Tensor:
        """A copy of what a class holds: (m, width), oldest first, m = 0 to size."""
        pushed, size = int(self.pushed[label]), self.vectors.shape[1]
        slots = torch.arange(max(0, pushed - size), pushed, device=self.vectors.device) % size
        return self.vectors[label, slots]

    @torch.no_grad()
    def push(self, vectors: Tensor, labels: Tensor) -> None:
        """Stores vectors in their order; each pushes out the oldest of its class once that has `size`.

        Args:
            vectors: (B, width), floating point. Of a class that has more than `size` the last are kept.
            labels: int64 (B,), 0 to classes - 1.

        Raises:
            ValueError: for other shapes, or a label out of range.
        """
        self._check(vectors, labels)
        classes, size, _ = self.vectors.shape
        members = F.one_hot(labels, classes)
        totals = members.sum(0)
        place = members.cumsum(0).gather(1, labels[:, None])[:, 0] - 1  # among those of its class in this batch
        kept = place >= totals[labels] - size  # else two would be written to one slot, in no defined order
        slots = (self.pushed[labels] + place) % size
        self.vectors[labels[kept], slots[kept]] = vectors[kept].to(self.vectors.dtype)
        self.pushed += totals

    def nearest(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Cosine similarity of each vector to the most similar one of its class; differentiable in `vectors`.

        Computed in float32, also under autocast; 0 where the class holds nothing, and for a vector of zeros.

        Args:
            vectors: (B, width), floating point.
            labels: int64 (B,), 0 to classes - 1.

        Returns:
            (B,), float32.

        Raises:
            ValueError: as :meth:`push`.
        """
        self._check(vectors, labels)
        slots = self._cosines(vectors, labels, empty=-math.inf).argmax(1)
        return _cosine(vectors, self.vectors[labels, slots])

    def farthest(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Cosine similarity of each vector to the least similar one of its class; all else as :meth:`nearest`."""
        self._check(vectors, labels)
        slots = self._cosines(vectors, labels, empty=math.inf).argmin(1)
        return _cosine(vectors, self.vectors[labels, slots])

    @torch.no_grad()
    def _cosines(self, vectors: Tensor, labels: Tensor, empty: float) -> Tensor:
        """Similarity to every slot of a vector's class, up to the vector's own length: (B, size), to choose by.

        Without gradient: that of the chosen one is all there is, and a graph would have to copy the memory, which
        `push` overwrites before backward.
        """
        classes, size, width = self.vectors.shape
        memory = self.vectors.float()
        with torch.autocast(vectors.device.type, enabled=False):
            products = (vectors.float() @ memory.view(-1, width).T).view(-1, classes, size)
        own = products[torch.arange(len(labels), device=labels.device), labels]
        lengths = torch.linalg.vector_norm(memory, dim=2)[labels]
        filled = torch.arange(size, device=labels.device) < self.held[labels][:, None]
        return (own / lengths.clamp(min=_TINY)).masked_fill(~filled, empty)

    def _check(self, vectors: Tensor, labels: Tensor) -> None:
        classes, _, width = self.vectors.shape
        if vectors.ndim != 2 or vectors.shape[1] != width:
            raise ValueError(
                f"vectors are {tuple(vectors.shape)}; this class memory holds vectors of {width} numbers: "
                f"flatten them to (B, {width})"
            )
        if labels.shape != vectors.shape[:1] or labels.dtype != torch.int64:
            raise ValueError(
                f"labels are {labels.dtype} {tuple(labels.shape)}; expected torch.int64 ({len(vectors)},), "
                "one for each vector"
            )
        wrong = labels[(labels < 0) | (labels >= classes)]
        if len(wrong):
            raise ValueError(f"label {int(wrong[0])} is not one of the {classes} classes 0 to {classes - 1}")


def _cosine(vectors: Tensor, others: Tensor) -> Tensor:
    with torch.autocast(vectors.device.type, enabled=False):
        return F.cosine_similarity(vectors.float(), others.float(), dim=1)


class MinimaxLosses(NamedTuple):
    """Two scalars: how far the farthest real sample is, [0, 2], and how similar the nearest prediction is, [-1, 1]."""

    representativeness: Tensor
    diversity: Tensor


class Minimax(nn.Module):
    """Representativeness and diversity of predicted latents against per-class memories (arXiv 2311.15529).

    For a predicted clean latent z of class c, with the last real latents R[c] and the last predictions P[c] of c:
    representativeness = 1 - min over m in R[c] of cos(z, m), diversity = max over m in P[c] of cos(z, m). Both are
    averaged over the samples of a class, then over the classes of the batch that have a memory; they are zero as long
    as none has. The authors' code lets only the worst sample of a class count, and divides by all classes of the
    batch; means depend less on the batch size.

    In training mode a batch enters the memories after its losses are computed, in order of its running numbers.
    Samples that are not finite are left out: such a step is skipped, and must not spoil those after it.

    With several processes, which must have equally many samples, all work as one that has them all: each sees every
    process's samples, so that memories stay equal on all of them, and counts classes over all. The losses of a process
    are its own samples' part of those of the whole batch, times the number of processes: their mean over processes,
    which is what DDP takes of gradients and `sync_dist` of logged values, is that of one process.

    Args:
        classes: number of classes.
        width: numbers in a flattened latent.
        size: latents kept per class.

    Attributes:
        real: memory of real latents.
        predicted: memory of predicted latents.

    Raises:
        ValueError: when classes, width or size is below 1.
    """

    def __init__(self, classes: int, width: int, size: int = 64) -> None:
        super().__init__()
        self.real = ClassMemory(classes, width, size)
        self.predicted = ClassMemory(classes, width, size)

    def forward(self, predicted: Tensor, real: Tensor, labels: Tensor, numbers: Tensor) -> MinimaxLosses:
        """Losses of a batch, which enters the memories in training mode. Computed in float32, also under autocast.

        Args:
            predicted: (B, width), flattened clean latents that the model predicts; the losses' gradient is theirs.
            real: (B, width), flattened latents of the real patches.
            labels: int64 (B,), 0 to classes - 1.
            numbers: int64 (B,), running numbers of the samples in training.

        Returns:
            Two float32 scalars.

        Raises:
            ValueError: when shapes do not match, a vector has another width, or a label is out of range.
        """
        if real.shape != predicted.shape or numbers.shape != labels.shape:
            raise ValueError(
                f"a minimax batch has latents predicted {tuple(predicted.shape)} and real {tuple(real.shape)}, labels "
                f"{tuple(labels.shape)} and numbers {tuple(numbers.shape)}; expected (B, width) twice and (B,) twice"
            )
        farthest = self.real.farthest(predicted, labels)
        nearest = self.predicted.nearest(predicted, labels)
        everyones = _of_all_processes(labels)
        weights = self._class_weights(everyones)[labels] * (len(everyones) / len(labels))
        if self.training:
            self._remember(predicted.detach(), real.detach(), everyones, numbers)
        return MinimaxLosses((weights * (1 - farthest)).sum(), (weights * nearest).sum())

    def _class_weights(self, labels: Tensor) -> Tensor:
        """What one sample of each class counts, (classes,): 1 / (samples of the class * classes that count)."""
        classes = len(self.real.pushed)
        samples = F.one_hot(labels, classes).sum(0)
        counts = (samples > 0) & (self.real.pushed > 0)
        return counts / (samples * counts.sum()).clamp(min=1)

    def _remember(self, predicted: Tensor, real: Tensor, everyones: Tensor, numbers: Tensor) -> None:
        order = _of_all_processes(numbers).argsort(stable=True)
        predicted, real = (_of_all_processes(latents.float())[order] for latents in (predicted, real))
        finite = (predicted.isfinite() & real.isfinite()).all(1)
        labels = everyones[order][finite]
        self.predicted.push(predicted[finite], labels)
        self.real.push(real[finite], labels)


def _of_all_processes(rows: Tensor) -> Tensor:
    """Concatenates the rows (B, ...) of all processes by rank; without torch.distributed, those given."""
    if not (dist.is_available() and dist.is_initialized()):
        return rows
    everyones = rows.new_empty(dist.get_world_size() * len(rows), *rows.shape[1:])
    dist.all_gather_into_tensor(everyones, rows.contiguous())
    return everyones
