"""safetensors and npy: the texts of the header, and bytes that no number needs.

References
----------
Hugging Face, "Safetensors: file format", https://github.com/huggingface/safetensors#format. NumPy, "The .npy format",
numpy.lib.format.
"""

import io
import json
import math
from collections.abc import Iterator

import numpy as np

from pipeline.deid_check.findings import Hit
from pipeline.deid_check.json_files import judge_json
from pipeline.deid_check.streams import PIECE_BYTES, Stream, first_filled_byte
from pipeline.errors import Unjudgeable

MAX_HEADER_BYTES = 16 << 20
NPY_MAGIC = b"\x93NUMPY"


def is_safetensors(head: bytes) -> bool:
    """Tell whether a file's first 9 bytes or more are those of safetensors."""
    return head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def scan_safetensors(stream: Stream) -> Iterator[Hit]:
    """Yield what header and gaps carry; the tensors themselves are numbers."""
    n_bytes = int.from_bytes(stream.read(8), "little")
    header = stream.read(n_bytes)
    try:
        content = json.loads(header)
        tensors = [value for key, value in content.items() if key != "__metadata__"]
        end = max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, IndexError) as error:
        raise Unjudgeable(f"safetensors with a broken header ({type(error).__name__})") from error
    yield from judge_json(header.decode("utf-8", "replace"))
    stream.skip(end)
    yield from _scan_rest(stream)


def scan_npy(stream: Stream) -> Iterator[Hit]:
    """Yield what stands behind an array of numbers.

    Raises
    ------
    Unjudgeable
        If it is an array of texts or objects, or its header is broken.
    """
    head = io.BytesIO(stream.peek(PIECE_BYTES))
    version = np.lib.format.read_magic(head)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(head)
    if dtype.kind not in "biufc":
        raise Unjudgeable("array of texts or objects")
    stream.skip(head.tell() + math.prod(shape) * dtype.itemsize)
    yield from _scan_rest(stream)


def _scan_rest(stream: Stream) -> Iterator[Hit]:
    place = first_filled_byte(stream)
    if place is not None:
        yield Hit(f"offset {place}", "bytes behind the numbers")
