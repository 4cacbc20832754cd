"""Parameter-efficient fine-tuning of a pretrained diffusion transformer: LoRA and DiffFit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_modules.diffusion.conditioning import class_embedders

if TYPE_CHECKING:
    from diffusers import DiTTransformer2DModel

BLOCK_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2")
"""The linear layers of a block's attention and feed-forward, as diffusers names them."""


class Adaptation(ABC):
    """Chooses what is trained of a pretrained denoiser. The class embedders are always trained in full."""

    def apply(self, denoiser: DiTTransformer2DModel) -> None:
        """Freezes the model and makes the adaptation's parameters and the class embedders trainable, in place.

        What is trainable becomes float32, whatever the frozen weights are. The output does not change. Apply it once,
        after the conditioning has been set.

        Raises:
            ValueError: when the model lacks what the adaptation changes.
        """
        denoiser.requires_grad_(False)
        self._adapt(denoiser)
        for embedder in class_embedders(denoiser):
            embedder.requires_grad_(True)
        for parameter in trainable_parameters(denoiser).values():
            parameter.data = parameter.data.float()

    def identity(self) -> dict[str, Any]:
        """Class name and settings, for the record of a run."""
        return {"class": type(self).__name__, **{key: value for key, value in vars(self).items() if key[0] != "_"}}

    @abstractmethod
    def _adapt(self, denoiser: DiTTransformer2DModel) -> None:
        """Adds parameters to the frozen model, or makes its own trainable."""


class LoRA(Adaptation):
    """Low-rank updates `W + alpha / rank * B A` of linear layers (Hu et al., ICLR 2022, arXiv 2106.09685).

    B starts at zero; A is drawn from torch's global generator.

    Args:
        rank: rank of the updates.
        alpha: scale of the updates times the rank; None: equal to the rank, so that the scale is 1.
        dropout: share of a layer's inputs dropped on the way into the update, drawn from torch's global generator.
        target_modules: names, or ends of names, of the layers to update.

    Raises:
        ValueError: when a value is out of range.
    """

    def __init__(
        self,
        rank: int = 16,
        alpha: float | None = None,
        dropout: float = 0.0,
        target_modules: list[str] = list(BLOCK_PROJECTIONS),  # noqa: B006  # never changed; shown by --help
    ) -> None:
        self.rank, self.alpha = rank, float(rank if alpha is None else alpha)
        self.dropout, self.target_modules = dropout, list(target_modules)
        if rank < 1 or self.alpha <= 0 or not 0 <= dropout < 1 or not target_modules:
            raise ValueError(
                f"LoRA got rank {rank}, alpha {alpha}, dropout {dropout}, {len(target_modules)} target modules; "
                "expected rank >= 1, alpha > 0, 0 <= dropout < 1 and at least one target module"
            )

    def _adapt(self, denoiser: DiTTransformer2DModel) -> None:
        from peft import LoraConfig, inject_adapter_in_model

        self._check_targets(denoiser)
        config = LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self.target_modules
        )
        inject_adapter_in_model(config, denoiser)

    def _check_targets(self, denoiser: DiTTransformer2DModel) -> None:
        """A name without a match is refused: peft skips it in silence as long as another one matches."""
        names = [f".{name}" for name, module in denoiser.named_modules() if isinstance(module, nn.Linear)]
        names = [name for name in names if ".class_embedder." not in name]  # trained in full already
        unknown = [target for target in self.target_modules if not any(n.endswith(f".{target}") for n in names)]
        if unknown:
            within = sorted({name.split(".", 3)[-1] if "_blocks." in name else name[1:] for name in names})
            raise ValueError(
                f"LoRA cannot find {', '.join(unknown)} in the model; target_modules may name: {', '.join(within)}"
            )


class DiffFit(Adaptation):
    """Trains biases, norms and scale vectors only (Xie et al., ICCV 2023, arXiv 2304.06648).

    The scale vectors (gamma in the paper) start at 1 and multiply the outputs of each block's attention and
    feed-forward. Norms count where they have weights; those of DiT have none.
    """

    def _adapt(self, denoiser: DiTTransformer2DModel) -> None:
        for module in denoiser.modules():
            if isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)):
                module.requires_grad_(True)
        for name, parameter in denoiser.named_parameters():
            if name.endswith(".bias"):
                parameter.requires_grad_(True)
        for block in denoiser.transformer_blocks:
            for branch in (block.attn1, block.ff):
                _scale_output(branch, denoiser.inner_dim)


def trainable_parameters(denoiser: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require a gradient, by the names of `named_parameters`."""
    return {name: parameter for name, parameter in denoiser.named_parameters() if parameter.requires_grad}


def _scale_output(branch: nn.Module, width: int) -> None:
    """A hook, not a wrapper: the branch keeps its class, its attention processor and its parameters' names."""
    device = next(branch.parameters()).device
    branch.register_parameter("output_scale", nn.Parameter(torch.ones(width, device=device)))
    branch.register_forward_hook(_scaled)


def _scaled(branch: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return output * branch.output_scale  # type: ignore[operator]
