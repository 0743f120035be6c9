"""Checkpoints: tensors as safetensors, the rest as JSON; nothing is pickled.

Random streams are derived from the step, so a checkpoint holds networks, optimisers and the step, and that is all.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PATTERN = "step-*.json"


def save_checkpoint(
    folder: Path, step: int, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Write a checkpoint and drop older ones.

    Parameters
    ----------
    folder : Path
        Made if needed.
    step : int
        Steps done.
    networks, optimizers : mapping of str to module or optimiser
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Tensor] = {}
    for name, network in networks.items():
        tensors |= {f"network.{name}.{key}": value for key, value in network.state_dict().items()}
    for name, optimizer in optimizers.items():
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{name}.{index}.{key}": value for key, value in state.items()}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tensors.items()}
    target = folder / f"step-{step:08d}.safetensors"
    temporary = folder / "writing.tmp"
    save_file(tensors, temporary)
    temporary.replace(target)
    # The JSON comes last: a checkpoint counts when it is there.
    temporary.write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")
    temporary.replace(target.with_suffix(".json"))
    for old in folder.glob("step-*"):
        if old.stem != target.stem:
            old.unlink()


def load_checkpoint(
    folder: Path, networks: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> int:
    """Load the latest checkpoint in place.

    Returns
    -------
    int
        Steps done; 0 if there is no checkpoint.
    """
    # One whose tensors are gone, by a kill amid its removal, is none.
    marks = [mark for mark in sorted(folder.glob(PATTERN)) if mark.with_suffix(".safetensors").is_file()]
    if not marks:
        return 0
    # What a kill left of older ones would stay for ever.
    for old in folder.glob("step-*"):
        if old.stem != marks[-1].stem:
            old.unlink()
    tensors = load_file(marks[-1].with_suffix(".safetensors"))
    for name, network in networks.items():
        prefix = f"network.{name}."
        network.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
    for name, optimizer in optimizers.items():
        content = optimizer.state_dict()
        prefix = f"optimizer.{name}."
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith(prefix):
                index, _, field = key.removeprefix(prefix).partition(".")
                state.setdefault(int(index), {})[field] = value
        optimizer.load_state_dict({**content, "state": state})
    step: int = json.loads(marks[-1].read_text(encoding="utf-8"))["step"]
    return step
