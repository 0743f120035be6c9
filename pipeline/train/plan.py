"""What one training needs to know."""

from dataclasses import dataclass

from pipeline.cohort import Case
from pipeline.config import ComputeSection, TrainSection
from pipeline.labels import LabelScheme
from pipeline.train.data import OpenCase
from pipeline.train.generator import GeneratorConfig


@dataclass(frozen=True)
class TrainingPlan:
    """What one training needs to know.

    Parameters
    ----------
    cases : tuple of Case
        Members: the only patients whose scans the networks see.
    scheme : LabelScheme
    modalities : tuple of str
    config : TrainSection
    compute : ComputeSection
    seed : int
        Root of the training's streams.
    description : str
        Shown with the progress.
    public : tuple of OpenCase
        Label maps of nobody, without scans: all that a generator is shown under differential privacy; else none.
    n_accounted : int, optional
        Members that the accounting of differential privacy is made for, where their true number is itself a secret, as
        where coins choose them.
    """

    cases: tuple[Case, ...]
    scheme: LabelScheme
    modalities: tuple[str, ...]
    config: TrainSection
    compute: ComputeSection
    seed: int
    description: str = "train"
    public: tuple[OpenCase, ...] = ()
    n_accounted: int | None = None

    @property
    def n_members(self) -> int:
        """Number of persons among the cases."""
        return len({case.person for case in self.cases})

    @property
    def generator_config(self) -> GeneratorConfig:
        """Shape of the generator."""
        return GeneratorConfig(
            dimensions=self.config.dimensions,
            n_classes=self.scheme.n_condition_classes,
            n_modalities=len(self.modalities),
            channels=self.config.channels,
            levels=self.config.levels,
            style_size=self.config.style_size,
            context_slices=self.config.context_slices,
        )
