"""Named test sets: folders of HR images, with or without paired LR, each evaluated and reported on its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import lightning as L
from torch.utils.data import DataLoader

from datamodules.evaluation import EvaluationSet, PairedFile, PairedFiles, evaluation_loader
from datamodules.image_files import find_images
from datamodules.pair import PairBatch
from datamodules.paths import EMBEDDED_TEST, data_folder, embedded_photographs, resolve_folder

EMBEDDED_SET = "Embedded"


@dataclass
class Benchmarks:
    """Which test sets, and where they lie.

    A set is a folder ROOT/NAME that holds `HR/` (or `HRx2/`, `HRx4/` where HR differs by scale) and optionally
    `LRbicx4/` and the like; a folder of images alone is taken as HR, and its LR is made by exact bicubic.

    Attributes:
        sets: folder names; "Embedded" is two photographs that installed wheels carry.
        root: folder of the sets; null is $SRDISTILL_DATA, else `data`.
        lr_files: read LR files where a set has them (otherwise LR is always made from HR).
        download: fetch missing public sets from their official addresses.
    """

    sets: list[str] = field(default_factory=lambda: [EMBEDDED_SET])
    root: str | None = None
    lr_files: bool = True
    download: bool = False

    @property
    def folder(self) -> Path:
        """The root as a path; it need not exist yet."""
        return Path(self.root).expanduser() if self.root else data_folder()

    def prepare(self) -> None:
        """Fetches the sets that are missing, when `download` asks for it."""
        from datamodules.download import fetch

        for name in self.sets:
            if self.download and name != EMBEDDED_SET and not (self.folder / name).is_dir():
                fetch(name, self.folder)

    def open(self, scale: int) -> list[EvaluationSet]:
        """The sets at a scale.

        Raises:
            FileNotFoundError: when a set's folder or a paired file is missing.
        """
        return [self._open_one(name, scale) for name in self.sets]

    def _open_one(self, name: str, scale: int) -> EvaluationSet:
        if name == EMBEDDED_SET:
            files = [PairedFile(path.name, path, None) for path in embedded_photographs(EMBEDDED_TEST)]
            return PairedFiles(name, files, scale)
        folder = resolve_folder(str(self.folder / name), f"test set {name}")
        hr_folder = next((folder / sub for sub in (f"HRx{scale}", "HR") if (folder / sub).is_dir()), folder)
        lr_folder = folder / f"LRbicx{scale}"
        hr = find_images(hr_folder).images
        if self.lr_files and hr_folder != folder and lr_folder.is_dir():
            return PairedFiles(name, pair_files(name, hr_folder, hr, lr_folder, scale), scale)
        return PairedFiles(name, [PairedFile(path.name, path, None) for path in hr], scale)


def pair_files(name: str, hr_folder: Path, hr: list[Path], lr_folder: Path, scale: int) -> list[PairedFile]:
    """Finds the LR file of each HR file: the same stem, with or without `x{scale}` behind it.

    Raises:
        FileNotFoundError: when HR and LR files do not pair one to one.
    """
    lr = {path.stem.removesuffix(f"x{scale}"): path for path in find_images(lr_folder).images}
    missing = [path.name for path in hr if path.stem not in lr]
    if missing or len(lr) != len(hr):
        extra = sorted(set(lr) - {path.stem for path in hr})
        raise FileNotFoundError(
            f"test set {name}: {len(hr)} HR images in {hr_folder} but {len(lr)} LR images in {lr_folder}; "
            f"without LR: {', '.join(missing[:3]) or 'none'}; without HR: {', '.join(extra[:3]) or 'none'}; "
            f"expected STEM.png for each HR STEM.png (or STEMx{scale}.png); or set lr_files to false"
        )
    return [PairedFile(path.name, path, lr[path.stem]) for path in hr]


class BenchmarkImages(L.LightningDataModule):
    """Test sets alone, for `test` and `validate` of a trained network; each is a dataloader and a metric prefix.

    Args:
        scale: integer factor between HR and LR.
        benchmarks: the sets and where they lie.
        num_workers: processes that read images.
    """

    def __init__(self, scale: int = 4, benchmarks: Benchmarks = Benchmarks(), num_workers: int = 0) -> None:  # noqa: B008
        super().__init__()
        self.scale = scale
        self.benchmarks = benchmarks
        self.num_workers = num_workers

    def prepare_data(self) -> None:
        """Fetches missing sets where asked to."""
        self.benchmarks.prepare()

    def test_dataloader(self) -> list[DataLoader[PairBatch]]:
        """One loader per set."""
        return [evaluation_loader(images, self.num_workers) for images in self.benchmarks.open(self.scale)]

    def val_dataloader(self) -> list[DataLoader[PairBatch]]:
        """The same sets, for the `validate` command."""
        return self.test_dataloader()
