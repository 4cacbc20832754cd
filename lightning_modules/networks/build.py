"""Any SR network from its name and options, checked before it is built."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.networks.padding import SidePadding

OWN_NETWORKS = {"EDSR": "lightning_modules.networks.edsr.EDSR"}
SCALE_ARGUMENTS = (
    "scale", "upscale", "up_scale", "upscale_factor", "upscaling_factor", "upsampling", "scale_factor", "sf",
)  # fmt: skip
PROBE_SIDE = 16  # LR pixels; the smallest patch that the shipped configurations train on
MULTIPLES = (2, 4, 8, 16)  # which U-shaped networks want sides to be, by their depth; a probe has passed all of them


@dataclass(frozen=True)
class NetworkSpec:
    """Which network, and its options.

    Not called class_path and init_args: jsonargparse takes any mapping with those keys for a class to instantiate.

    Attributes:
        architecture: a network of ours by its short name ("EDSR"), or the import path of any torch.nn.Module, such as
            "spandrel.architectures.SwinIR.SwinIR".
        options: keyword arguments of its constructor. The scale may be left out: the data decide it.
    """

    architecture: str
    options: dict[str, Any] = field(default_factory=dict)


def check_spec(spec: NetworkSpec) -> None:
    """Check architecture and options against the constructor's signature, without building the network.

    Raises:
        ValueError: when the class cannot be found, is no network, or an option is unknown, missing or of another type;
            one line with the nearest valid name.
    """
    cls = _resolve(spec.architecture)
    _check_names(cls, spec.options)
    _check_types(cls, spec.options)


def build_network(spec: NetworkSpec, scale: int) -> nn.Module:
    """Build the network for a scale, and make sure that it works at that scale.

    Args:
        spec: architecture and options; checked as by `check_spec`.
        scale: of the data; given to the constructor under the name it uses for it.

    Returns:
        The network in training mode, on the CPU. It maps (B, 3, H, W) to (B, 3, scale * H, scale * W), in [0, 1], and
        leaves its input unchanged. One that only takes sides of certain multiples (up to 16) pads and crops others.

    Raises:
        ValueError: as `check_spec`; when the options name another scale; or when the network does not turn a small
            RGB image into one `scale` times as large.
    """
    check_spec(spec)
    cls = _resolve(spec.architecture)
    options = _with_scale(cls, spec.options, scale)
    try:
        network = cls(**options)
    except Exception as error:
        raise ValueError(f"{spec.architecture} cannot be built with {options}: {error}") from error
    _probe(network, spec.architecture, scale)
    _accept_any_size(network, scale)
    return network


def _resolve(architecture: str) -> type[nn.Module]:
    """The class that a short name or an import path stands for."""
    module_name, _, name = OWN_NETWORKS.get(architecture, architecture).rpartition(".")
    if not module_name:
        raise ValueError(
            f"unknown network {architecture!r}{_closest(architecture, OWN_NETWORKS)}; ours are "
            f"{', '.join(OWN_NETWORKS)}, others need their import path, e.g. spandrel.architectures.SwinIR.SwinIR"
        )
    module = _import(module_name, architecture)
    cls = getattr(module, name, None)
    if cls is None:
        networks = [key for key, value in vars(module).items() if _is_network(value)]
        raise ValueError(f"network {architecture!r}: {module_name} has no {name!r}{_closest(name, networks)}")
    if not _is_network(cls):
        raise ValueError(f"network {architecture!r} is no torch.nn.Module class but {cls!r}")
    return cls


def _is_network(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _import(module_name: str, architecture: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "spandrel_extra_arches":
            advice = 'pip install "srdistill[extra-archs]"'
        else:
            advice = "correct the import path, or install the library"
        raise ValueError(f"network {architecture!r}: there is no module {error.name!r} here; {advice}") from error


def _closest(name: str, names: Iterable[str]) -> str:
    """Text that proposes the nearest of `names`, or nothing."""
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _parameters(cls: type[nn.Module]) -> dict[str, inspect.Parameter]:
    return {name: p for name, p in inspect.signature(cls.__init__).parameters.items() if name != "self"}


def _check_names(cls: type[nn.Module], options: Mapping[str, Any]) -> None:
    parameters = _parameters(cls)
    named = {n: p for n, p in parameters.items() if p.kind not in {p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY}}
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for key in [] if open_ended else options:
        if key not in named:
            known = ", ".join(named)
            raise ValueError(f"{cls.__name__} has no option {key!r}{_closest(key, named)}; it takes {known}")
    required = [name for name, p in named.items() if p.default is p.empty and name not in options]
    missing = [name for name in required if name != scale_argument(cls)]
    if missing:
        raise ValueError(f"{cls.__name__} needs the option{'s'[: len(missing) > 1]} {', '.join(missing)}")


def _check_types(cls: type[nn.Module], options: Mapping[str, Any]) -> None:
    """Annotated options are left to jsonargparse; in others a text for a number, or the reverse, is caught."""
    from jsonargparse import ArgumentError, ArgumentParser

    parameters = _parameters(cls)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(cls, skip=set(parameters) - set(options), fail_untyped=False)
    try:
        parser.parse_object(dict(options), defaults=False)
    except ArgumentError as error:
        raise ValueError(f"{cls.__name__}: an option has the wrong type: {' '.join(str(error).split())}") from error
    for key, value in options.items():
        default = parameters[key].default if key in parameters else None
        if _kind(value) and _kind(default) and _kind(value) != _kind(default):
            raise ValueError(
                f"{cls.__name__}: {key}={value!r} should be a {_kind(default)}, like its default {default!r}"
            )


def _kind(value: Any) -> str | None:
    """What a plain value is; None for everything that has no one counterpart in YAML."""
    if isinstance(value, str):
        return "text"
    return "number" if isinstance(value, int | float) else None


def scale_argument(cls: type[nn.Module]) -> str | None:
    """Name under which a network's constructor takes the scale; None when it takes none (restoration networks)."""
    return next((name for name in SCALE_ARGUMENTS if name in _parameters(cls)), None)


def takes_scale(spec: NetworkSpec) -> bool:
    """Whether the network has an option for the scale; one that has none restores, at scale 1.

    Raises:
        ValueError: when the class cannot be found or is no network.
    """
    return scale_argument(_resolve(spec.architecture)) is not None


def _with_scale(cls: type[nn.Module], options: Mapping[str, Any], scale: int) -> dict[str, Any]:
    name = scale_argument(cls)
    if name is None:
        return dict(options)
    given = options.get(name, scale)
    if given != scale:
        raise ValueError(
            f"the network's option {name}={given!r} contradicts the data, which have scale {scale}; leave it out"
        )
    return {**options, name: scale}


def _probe(network: nn.Module, architecture: str, scale: int) -> None:
    """One small image through the network, because a wrong upsampler or channel count shows only there."""
    image = torch.full((1, 3, PROBE_SIDE, PROBE_SIDE), 0.5)
    expected = (1, 3, PROBE_SIDE * scale, PROBE_SIDE * scale)
    given = image.clone()
    network.eval()
    try:
        with torch.no_grad():
            shape = tuple(network(given).shape)
    except Exception as error:
        raise ValueError(f"{architecture} fails on an image of shape {tuple(image.shape)}: {error}") from error
    if shape != expected:
        raise ValueError(
            f"{architecture} turns an image of shape {tuple(image.shape)} into {shape}, but scale {scale} needs "
            f"{expected}; {_advice(shape, scale)}"
        )
    network.train()
    if not torch.equal(given, image):  # spandrel's RCAN multiplies the batch in place
        network.register_forward_pre_hook(_copy_input)


def _advice(shape: tuple[int, ...], scale: int) -> str:
    if scale > 1 and shape[2:] == (PROBE_SIDE, PROBE_SIDE):
        return "give it an `upsampler` where it has that option; a restoration network is for data.scale 1"
    return "check its options"


def _accept_any_size(network: nn.Module, scale: int) -> None:
    """Finds out which multiple sides have to be, since no network says; most take any."""
    if _takes(network, PROBE_SIDE + 1, scale):
        return
    multiple = next((one for one in MULTIPLES if _takes(network, (PROBE_SIDE // one + 1) * one, scale)), None)
    if multiple is not None:
        SidePadding(multiple, scale).attach(network)


@torch.no_grad()
def _takes(network: nn.Module, side: int, scale: int) -> bool:
    network.eval()
    try:
        shape = network(torch.full((1, 3, side, side), 0.5)).shape
    except Exception:  # whatever a network raises where a size does not suit it
        return False
    finally:
        network.train()
    return tuple(shape[2:]) == (side * scale, side * scale)


def _copy_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(tensor.clone() for tensor in inputs)
