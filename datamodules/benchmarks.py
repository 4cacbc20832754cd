"""Named test sets: folders of HR images, with or without paired LR, each evaluated and reported on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
from torch.utils.data import DataLoader

from datamodules.degradation import Chain, Degradation
from datamodules.degraded import chain_to, degraded_sets
from datamodules.evaluation import EvaluationSet, PairedFile, PairedFiles, evaluation_loader
from datamodules.image_files import find_images
from datamodules.pair import PairBatch
from datamodules.paths import EMBEDDED_TEST, data_folder, embedded_photographs, find_folder

EMBEDDED_SET = "Embedded"


@dataclass
class Benchmarks:
    """Which test sets, and where they lie.

    A set is a folder ROOT/NAME that holds `HR/` (or `HRx2/`, `HRx4/` where HR differs by scale), or HR images directly,
    and optionally `LRbicx4/` and the like; without one, LR is made from HR by exact bicubic.

    Attributes:
        sets: folder names; "Embedded" is two photographs that installed wheels carry.
        root: folder of the sets, as it is or in the default; null is $SRDISTILL_DATA, else `data`.
        lr_files: read LR files where a set has them (otherwise, and with data.degradation, LR is always made from HR).
        download: fetch missing public sets from their official addresses.
    """

    sets: list[str] = field(default_factory=lambda: [EMBEDDED_SET])
    root: str | None = None
    lr_files: bool = True
    download: bool = False

    @property
    def folder(self) -> Path:
        """The root as a path; it need not exist yet."""
        if self.root is None:
            return data_folder()
        return find_folder(self.root) or Path(self.root).expanduser()

    def prepare(self) -> None:
        """Fetches the sets that are missing, when `download` asks for it."""
        from datamodules.download import fetch

        for name in self.sets:
            if self.download and name != EMBEDDED_SET and not (self.folder / name).is_dir():
                fetch(name, self.folder)

    def open(self, scale: int, degradation: Chain | None = None) -> list[EvaluationSet]:
        """The sets at a scale.

        Args:
            scale: integer factor between HR and LR.
            degradation: makes LR of HR, in place of exact bicubic and of any LR files; see `degraded_sets`.

        Raises:
            FileNotFoundError: when a set's folder or a paired file is missing.
        """
        lr_files = self.lr_files and degradation is None
        sets = [self._open_one(name, scale, lr_files) for name in self.sets]
        return sets if degradation is None else [one for images in sets for one in degraded_sets(images, degradation)]

    def _open_one(self, name: str, scale: int, lr_files: bool) -> EvaluationSet:
        if name == EMBEDDED_SET:
            files = [PairedFile(path.name, path, None) for path in embedded_photographs(EMBEDDED_TEST)]
            return PairedFiles(name, files, scale)
        folder = self.folder / name
        name = folder.name
        if not folder.is_dir():
            raise FileNotFoundError(
                f"test set {name}: no folder {folder}; put its images into {folder / 'HR'}, or name the folder that "
                "holds the sets as data.benchmarks.root or SRDISTILL_DATA, or fetch public sets with "
                "data.benchmarks.download: true"
            )
        hr_folder, hr = _hr_images(name, folder, scale)
        lr_folder = folder / f"LRbicx{scale}"
        if lr_files and lr_folder.is_dir():
            return PairedFiles(name, pair_files(name, hr_folder, hr, lr_folder, scale), scale)
        return PairedFiles(name, [PairedFile(path.relative_to(hr_folder).as_posix(), path, None) for path in hr], scale)


def _hr_images(name: str, folder: Path, scale: int) -> tuple[Path, list[Path]]:
    """The folder that holds a set's HR, and the images."""
    for hr_folder in (folder / f"HRx{scale}", folder / "HR"):
        if hr_folder.is_dir():
            return hr_folder, find_images(hr_folder).images
    # Not those of sub-folders, which may be LR, or HR for other scales.
    images = [path for path in find_images(folder).images if path.parent == folder]
    if not images:
        raise FileNotFoundError(f"test set {name}: {folder} holds no HR, no HRx{scale} and no images of its own")
    return folder, images


def pair_files(name: str, hr_folder: Path, hr: list[Path], lr_folder: Path, scale: int) -> list[PairedFile]:
    """Finds the LR file of each HR file: the same path but for the suffix, with or without `x{scale}` before it.

    Raises:
        FileNotFoundError: when HR and LR files do not pair one to one.
    """
    lr = {_stem(path, lr_folder): path for path in find_images(lr_folder).images}
    stems = {path: _stem(path, hr_folder) for path in hr}
    pairs = {path: lr.get(stem) or lr.get(f"{stem}x{scale}") for path, stem in stems.items()}
    missing = [stem for path, stem in stems.items() if pairs[path] is None]
    used = set(pairs.values())
    extra = [stem for stem, path in lr.items() if path not in used]
    if missing or extra or len(set(stems.values())) < len(hr):
        raise FileNotFoundError(
            f"test set {name}: {len(hr)} HR images in {hr_folder} but {len(lr)} LR images in {lr_folder}; "
            f"without LR: {', '.join(missing[:3]) or 'none'}; without HR: {', '.join(extra[:3]) or 'none'}; "
            f"expected STEM.png (or STEMx{scale}.png) for each HR STEM.png; or set data.benchmarks.lr_files: false"
        )
    return [PairedFile(path.relative_to(hr_folder).as_posix(), path, pairs[path]) for path in hr]


def _stem(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


class BenchmarkImages(L.LightningDataModule):
    """Test sets alone, for `test` and `validate` of a trained network; each is a dataloader and a metric prefix.

    Args:
        scale: integer factor between HR and LR; 1 with a degradation only.
        benchmarks: the sets and where they lie.
        num_workers: processes that read images.
        degradation: makes LR of HR, as in `SRDataModule`; none is exact bicubic.

    Raises:
        ValueError: when the degradation does not reduce by the scale.
    """

    def __init__(
        self,
        scale: int = 4,
        benchmarks: Benchmarks = Benchmarks(),  # noqa: B008
        num_workers: int = 0,
        degradation: Sequence[Degradation] = (),
    ) -> None:
        super().__init__()
        self.scale = scale
        self.benchmarks = benchmarks
        self.num_workers = num_workers
        self.degradation = chain_to(scale, degradation)

    def prepare_data(self) -> None:
        """Fetches missing sets where asked to."""
        self.benchmarks.prepare()

    def test_dataloader(self) -> list[DataLoader[PairBatch]]:
        """One loader per set."""
        sets = self.benchmarks.open(self.scale, self.degradation)
        return [evaluation_loader(images, self.num_workers) for images in sets]

    def val_dataloader(self) -> list[DataLoader[PairBatch]]:
        """The same sets, for the `validate` command."""
        return self.test_dataloader()
