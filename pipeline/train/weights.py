"""The generator on disk: weights as safetensors, its shape as the file's metadata."""

import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pipeline.errors import DataError
from pipeline.layout import WEIGHTS_FILE
from pipeline.train.generator import Generator, GeneratorConfig


def save_generator(generator: Generator, folder: Path) -> Path:
    """Write ``generator.safetensors``; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in generator.state_dict().items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"config": generator.config.model_dump_json()})
    return folder / WEIGHTS_FILE


def load_generator(folder: Path) -> Generator:
    """Read a generator, ready to sample from: on the CPU, no gradients.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise DataError(f"{path.name} not found; expected a trained generator; run the stage train")
    try:
        with safe_open(path, framework="pt") as file:
            config = GeneratorConfig.model_validate(json.loads(file.metadata()["config"]))
        generator = Generator(config)
        generator.load_state_dict(load_file(path))
    except Exception as error:  # safetensors and torch raise types of their own on damaged files
        raise DataError(f"{path.name} is damaged ({type(error).__name__}); run the stage train again") from error
    return generator.eval().requires_grad_(False)
