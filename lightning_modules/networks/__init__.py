"""SR networks: ours, those of spandrel, and the user's own, built, checked, loaded and exported in one way."""

from lightning_modules.networks.build import NetworkSpec, build_network, check_spec
from lightning_modules.networks.edsr import EDSR
from lightning_modules.networks.weights import export_weights, load_weights

__all__ = ["EDSR", "NetworkSpec", "build_network", "check_spec", "export_weights", "load_weights"]
