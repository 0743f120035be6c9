"""What all attacks of one audit have in common."""

from dataclasses import dataclass

from pipeline.labels import LabelScheme


@dataclass(frozen=True)
class Setting:
    """What is known of every scan, and what attackers may spend.

    Parameters
    ----------
    scheme : LabelScheme
    modalities : tuple of str
    spacing_mm : float
    n_style_draws : int
        Styles that an attack on the generator may try.
    seed : int
        Root of the attacks' streams.
    """

    scheme: LabelScheme
    modalities: tuple[str, ...]
    spacing_mm: float
    n_style_draws: int
    seed: int
