"""The game under differential privacy: the discriminator learns by DP-SGD, the generator from it and from nobody else.

The unit is the patient. At each step of the discriminator every patient is drawn with the same probability (Poisson),
and one who is drawn contributes one slice or patch, whose gradient is clipped before noise is added. The number of
generated samples beside them is fixed, and nothing is drawn by a sample's place in the batch, so that a patient's
scans, there or not, change one clipped gradient and nothing else. The number of patients is public: the promise
compares cohorts in which the scans of one patient are, or are blank. The generator sees label maps of nobody and the
discriminator's answer: what it learns is post-processing.

Two things must be secret: the noise, and who is drawn. Slices, augmentations and generated samples need not be, so that
32 bits of a seed are enough for them, but none may depend on who else is drawn: each patient has streams of his own.

Noise and the choice of patients come from a key that is made on the spot and stays among the checkpoints: whoever knew
it could subtract the noise, so a seed in a config would be no privacy. PyTorch's generator is not used for them, since
it keeps 32 bits of a seed. Arithmetic is that of floating point, and two of its gaps are not guarded against: the noise
is not quite normal (Mironov 2012), and the size of a batch may change the rounding of each gradient in it (on a CPU it
did not where measured; on a GPU the algorithm is chosen by it).

References
----------
Abadi et al. 2016, "Deep learning with differential privacy", doi:10.1145/2976749.2978318. Bie, Kamath, Zhang 2023,
"Private GANs, revisited", arXiv:2302.02936 (many steps of the discriminator for one of the generator). Gopi, Lee,
Wutschitz 2021, "Numerical composition of differential privacy", arXiv:2106.02848 (PRV accountant). Yousefpour et al.
2021, "Opacus", arXiv:2109.12298.
"""

import hashlib
import secrets
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from opacus import GradSampleModule
from opacus.accountants import PRVAccountant
from opacus.accountants.utils import get_noise_multiplier
from opacus.optimizers import DPOptimizer
from torch import Tensor

from pipeline.cohort import Case
from pipeline.config import PrivacySection
from pipeline.errors import ConfigError
from pipeline.seeds import numpy_stream, torch_stream
from pipeline.train.augmentation import DiffAugment
from pipeline.train.data import Batch, OpenCase, Sampler
from pipeline.train.discriminator import WEIGHTS
from pipeline.train.losses import Judgement, generator_hinge
from pipeline.train.plan import TrainingPlan
from pipeline.train.players import Players, draw_inputs

KEY_FILE = "noise.key"
KEY_BITS = 256


@dataclass(frozen=True)
class Guarantee:
    """What a training promises, and how.

    Parameters
    ----------
    epsilon, delta : float
        The scans of one patient, there or blank, change the odds of any generator by at most exp(epsilon), but for
        delta.
    noise_multiplier : float
        Standard deviation of the noise over the clipping norm.
    sample_rate : float
        Probability of each patient at a step.
    n_steps : int
        Of the discriminator.
    clip_norm : float
    n_patients : int
    """

    epsilon: float
    delta: float
    noise_multiplier: float
    sample_rate: float
    n_steps: int
    clip_norm: float
    n_patients: int

    def to_json(self) -> dict[str, float | int | str]:
        """Return the guarantee for a report or a card."""
        return {
            **asdict(self),
            "unit": "patient",
            "neighbours": "the scans of one patient, or blank ones; the number of patients is public",
            "accountant": "PRV",
        }


@lru_cache(maxsize=8)
def promise(config: PrivacySection, n_patients: int, n_generator_steps: int) -> Guarantee:
    """Return what a training promises, with the least noise that keeps the promise.

    Parameters
    ----------
    config : PrivacySection
    n_patients : int
    n_generator_steps : int

    Raises
    ------
    ConfigError
        If fewer patients are there than a step draws, or no noise keeps the promise.
    """
    if n_patients <= config.patients_per_step:
        raise ConfigError(
            f"train.privacy.patients_per_step: expected fewer than there are members, got {config.patients_per_step} "
            f"of {n_patients}; draw fewer, or train on more persons"
        )
    delta = config.delta if config.delta is not None else float(n_patients**-1.5)
    rate = config.patients_per_step / n_patients
    n_steps = n_generator_steps * config.discriminator_steps
    try:
        with warnings.catch_warnings():
            # The accountant frames its own domain by a coarser one, and warns where that is coarse.
            warnings.simplefilter("ignore")
            noise = get_noise_multiplier(
                target_epsilon=config.epsilon, target_delta=delta, sample_rate=rate, steps=n_steps, accountant="prv"
            )
            accountant = PRVAccountant()
            accountant.history = [(noise, rate, n_steps)]
            epsilon = float(accountant.get_epsilon(delta=delta))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(
            f"train.privacy.epsilon: no noise keeps {config.epsilon:g} over {n_steps} steps; expected a larger one, or "
            "fewer steps"
        ) from error
    return Guarantee(epsilon, delta, float(noise), rate, n_steps, config.clip_norm, n_patients)


def promise_of(plan: TrainingPlan) -> Guarantee:
    """Return what a training with `train.privacy` promises; see :func:`promise`."""
    if plan.config.privacy is None:
        raise ValueError("expected a plan with train.privacy")
    n_patients = plan.n_members if plan.n_accounted is None else plan.n_accounted
    return promise(plan.config.privacy, n_patients, plan.config.steps)


def secret_stream(key: int, *names: str | int) -> np.random.Generator:
    """Return the stream of a purpose under a key, which keeps all its bits."""
    text = "\x1f".join([str(key), *map(str, names)])
    root = int.from_bytes(hashlib.sha256(text.encode()).digest(), "big")
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(root, pool_size=KEY_BITS // 32)))


class KeyedOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types.
    """Opacus' optimiser with noise from a stream that is set before each step."""

    stream: np.random.Generator

    def add_noise(self) -> None:
        """Add noise to the sums of clipped gradients."""
        for parameter in self.params:
            drawn = self.stream.standard_normal(parameter.shape)
            noise = torch.from_numpy(self.noise_multiplier * self.max_grad_norm * drawn)
            summed = parameter.summed_grad
            parameter.grad = (summed + noise.to(summed).view_as(summed)).view_as(parameter)


def read_noise_key(folder: Path) -> int:
    """Return the key of noise and of the choice of patients, made on first use; only the owner may read its file."""
    path = folder / KEY_FILE
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / "writing.tmp"
        temporary.unlink(missing_ok=True)
        temporary.touch(mode=0o600)
        temporary.write_text(f"{secrets.randbits(KEY_BITS):x}\n", encoding="ascii")
        temporary.replace(path)
    return int(path.read_text(encoding="ascii"), 16)


def forget_noise_key(folder: Path) -> None:
    """Remove the key of a finished training."""
    (folder / KEY_FILE).unlink(missing_ok=True)


def draw_patients(n: int, rate: float, stream: np.random.Generator) -> NDArray[np.int64]:
    """Return the indices of the patients of a step: each is drawn with the same probability, apart from the others."""
    return np.flatnonzero(stream.random(n) < rate)


def hinge_by_sample(judged: Judgement, is_real: Tensor) -> Tensor:
    """Return each sample's hinge loss: the mean over its patches and over discriminators; (N,)."""
    sign = torch.where(is_real, -1.0, 1.0)
    terms = []
    for discriminator in judged:
        logits = discriminator[-1]
        terms.append(F.relu(1.0 + sign.reshape(-1, *[1] * (logits.ndim - 1)) * logits).flatten(1).mean(dim=1))
    return torch.stack(terms).mean(dim=0)


class PrivateGame(Players):
    """See the module's docstring.

    Parameters
    ----------
    plan : TrainingPlan
        With ``config.privacy`` and label maps of nobody.
    key : int
        See :func:`read_noise_key`.
    """

    def __init__(self, plan: TrainingPlan, key: int) -> None:
        # Opacus has no gradients of single samples through spectral norm.
        super().__init__(plan, spectral=False)
        privacy = plan.config.privacy
        if privacy is None or not plan.public:
            raise ValueError("expected a plan with train.privacy and label maps of nobody")
        self._privacy, self._key = privacy, key
        self._guarantee = promise_of(plan)
        self._scans = group_by_person(plan.cases)
        self._real = Sampler([OpenCase.open(case, plan.modalities) for case in plan.cases], plan.scheme, plan.config)
        self._labels = Sampler(plan.public, plan.scheme, plan.config)
        self.discriminator.to(self.fabric.device)
        self._judge = GradSampleModule(self.discriminator, loss_reduction="sum")
        self._private_optimizer = KeyedOptimizer(
            self.discriminator_optimizer,
            noise_multiplier=self._guarantee.noise_multiplier,
            max_grad_norm=privacy.clip_norm,
            # Sums of clipped gradients are divided by what is drawn on average: a fixed number.
            expected_batch_size=2 * privacy.patients_per_step,
            loss_reduction="mean",
        )

    def play(self, step: int) -> dict[str, float]:
        """Do some steps of the discriminator, then one of the generator."""
        n_turns = self._privacy.discriminator_steps
        losses = [self._play_discriminator(step * n_turns + turn) for turn in range(n_turns)]
        loss_adversarial = self._play_generator(step)
        self.average(step)
        return {"loss/discriminator": sum(losses) / n_turns, "loss/adversarial": loss_adversarial}

    def _play_discriminator(self, turn: int) -> float:
        """Do one step on the patients drawn, if any, and on as many generated samples as are drawn on average."""
        plan, device = self.plan, self.fabric.device
        n_generated = self._privacy.patients_per_step
        with torch.no_grad():
            scan, classes = self._generate(n_generated, "turn", turn)
        coins = secret_stream(self._key, "patients", turn)
        drawn = [int(person) for person in draw_patients(len(self._scans), self._guarantee.sample_rate, coins)]
        n_real = len(drawn)
        if n_real:
            # Each patient's slice is chosen by a stream of his own, whoever else is drawn.
            own = [secret_stream(self._key, "slice", turn, person) for person in drawn]
            cases = [int(one.choice(self._scans[person])) for one, person in zip(own, drawn, strict=True)]
            condition, real = self.to_device(self._real.draw_from(cases, own))
            scan = torch.cat([real, scan])
            classes = torch.cat([self.generator.centre_classes(condition), classes])
        # So is its augmentation, and that of the generated samples, who stand behind as many patients as are drawn.
        draws = [(1, torch_stream(self._key, "augment", turn, person)) for person in drawn]
        draws.append((n_generated, torch_stream(plan.seed, "augment", "turn", turn)))
        augment = DiffAugment(plan.config.augmentation, tuple(scan.shape[2:]), draws, device)
        scan, classes = augment(scan, classes)
        is_real = torch.arange(len(scan), device=device) < n_real
        self._private_optimizer.zero_grad(set_to_none=True)
        # On a GPU in full precision, and by no algorithm that was chosen for the size of the batch by its speed.
        exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with exact, warnings.catch_warnings():
            loss = hinge_by_sample(self._judge(scan, classes), is_real).sum()
            # A discriminator's input asks for no gradient: nothing to warn of.
            warnings.filterwarnings("ignore", "Full backward hook is firing")
            torch.autograd.backward(loss)
        self._private_optimizer.stream = secret_stream(self._key, "noise", turn)
        self._private_optimizer.step()
        return float(loss.detach()) / len(scan)

    def _play_generator(self, step: int) -> float:
        """Do one step on label maps of nobody; gradients of single samples are not needed."""
        self._judge.disable_hooks()
        self.discriminator.requires_grad_(False)
        scan, classes = self._generate(self.plan.config.batch_size, "step", step)
        stream = torch_stream(self.plan.seed, "augment", step)
        augment = DiffAugment(
            self.plan.config.augmentation, tuple(scan.shape[2:]), [(len(scan), stream)], self.fabric.device
        )
        even = torch.ones_like(classes[:, :1])
        loss = generator_hinge(self.discriminator(*augment(scan, classes)), WEIGHTS, even)
        self.generator_step.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        self.generator_step.step()
        self.discriminator.requires_grad_(True)
        self._judge.enable_hooks()
        return float(loss.detach())

    def _generate(self, n: int, kind: str, number: int) -> tuple[Tensor, Tensor]:
        """Draw n scans on label maps of nobody; return them and their classes."""
        stream = numpy_stream(self.plan.seed, "batch", kind, number)
        batch: Batch = self._labels.draw(n, stream)
        condition, _ = self.to_device(batch)
        torch_noise = torch_stream(self.plan.seed, "noise", kind, number)
        style, noise = draw_inputs(self.generator, n, tuple(condition.shape[2:]), torch_noise, self.fabric.device)
        return self.generate(condition, style, noise), self.generator.centre_classes(condition)


def group_by_person(cases: Sequence[Case]) -> list[list[int]]:
    """Return the indices of each person's cases."""
    groups: dict[str, list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault(case.person, []).append(index)
    return list(groups.values())
