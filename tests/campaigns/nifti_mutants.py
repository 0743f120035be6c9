"""Ways to damage a NIfTI file: each takes its bytes and a stream of randomness, and returns other bytes."""

import gzip
import struct
from collections.abc import Callable

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]
INTEGERS = (-32768, -2, -1, 0, 1, 2, 7, 8, 255, 4096, 32767)
FLOATS = (np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-45, 1e-20, 1e10, 1e30, 3.4e38, -3.4e38)
DATATYPES = (-1, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 511, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 32767)
GZIP = b"\x1f\x8b"
# Offsets in the header (nifti1.h).
DIM, DATATYPE, BITPIX, PIXDIM, VOX_OFFSET, SLOPE, CODES, QUATERNION, SROW = 40, 70, 72, 76, 108, 112, 252, 256, 280


def of_header(change: Callable[[bytearray, np.random.Generator], None]) -> Mutation:
    """Return a mutation that changes the content of a file, compressed or not."""

    def mutate(content: bytes, stream: np.random.Generator) -> bytes:
        is_packed = content.startswith(GZIP)
        plain = bytearray(gzip.decompress(content) if is_packed else content)
        change(plain, stream)
        return gzip.compress(bytes(plain), 1) if is_packed else bytes(plain)

    return mutate


def truncate(content: bytes, stream: np.random.Generator) -> bytes:
    return content[: int(stream.integers(0, len(content)))]


def truncate_early(content: bytes, stream: np.random.Generator) -> bytes:
    return content[: int(stream.integers(0, 360))]


def truncate_content(plain: bytearray, stream: np.random.Generator) -> None:
    del plain[int(stream.integers(0, len(plain))) :]


def flip_file(content: bytes, stream: np.random.Generator) -> bytes:
    return flip_bits(content, stream, 0, len(content))


def flip_bits(content: bytes, stream: np.random.Generator, start: int, stop: int) -> bytes:
    changed = bytearray(content)
    for place in stream.integers(start, max(stop, start + 1), int(2 ** stream.uniform(0, 6))):
        changed[place] ^= 1 << int(stream.integers(8))
    return bytes(changed)


def flip_header(plain: bytearray, stream: np.random.Generator) -> None:
    plain[:] = flip_bits(bytes(plain), stream, 0, 352)


def flip_voxels(plain: bytearray, stream: np.random.Generator) -> None:
    plain[:] = flip_bits(bytes(plain), stream, 352, len(plain))


def set_dim(plain: bytearray, stream: np.random.Generator) -> None:
    for _ in range(int(stream.integers(1, 4))):
        struct.pack_into("<h", plain, DIM + 2 * int(stream.integers(8)), int(stream.choice(INTEGERS)))


def claim_terabytes(plain: bytearray, stream: np.random.Generator) -> None:
    n_axes = int(stream.integers(3, 8))
    sizes = [int(2 ** stream.uniform(9, 15)) - 1 for _ in range(n_axes)] + [1] * (7 - n_axes)
    struct.pack_into("<8h", plain, DIM, n_axes, *sizes)


def set_axes(plain: bytearray, stream: np.random.Generator) -> None:
    """Give a fourth and a fifth axis, or take axes away."""
    shape = struct.unpack_from("<8h", plain, DIM)[1:4]
    more = [int(n) for n in stream.integers(0, 4, 4)]
    struct.pack_into("<8h", plain, DIM, int(stream.integers(0, 8)), *shape, *more)


def swap_dims(plain: bytearray, stream: np.random.Generator) -> None:
    shape = np.array(struct.unpack_from("<3h", plain, DIM + 2))
    struct.pack_into("<3h", plain, DIM + 2, *(int(n) for n in stream.permutation(shape)))


def set_datatype(plain: bytearray, stream: np.random.Generator) -> None:
    struct.pack_into("<h", plain, DATATYPE, int(stream.choice(DATATYPES)))
    if stream.random() < 0.5:
        struct.pack_into("<h", plain, BITPIX, int(stream.choice([-8, 0, 1, 8, 16, 32, 64, 128, 32767])))


def set_offset(plain: bytearray, stream: np.random.Generator) -> None:
    value = stream.choice([*FLOATS, 0, 16, 348, 352.5, 353, 368, 1e6, 1e9, 2**31, 2**33])
    struct.pack_into("<f", plain, VOX_OFFSET, float(value))


def set_scaling(plain: bytearray, stream: np.random.Generator) -> None:
    struct.pack_into("<2f", plain, SLOPE, *(float(v) for v in stream.choice([*FLOATS, 1.0, 2.0], 2)))


def set_affine(plain: bytearray, stream: np.random.Generator) -> None:
    sform = bool(stream.integers(2))
    struct.pack_into("<2h", plain, CODES, int(not sform), int(sform))
    start, n = (SROW, 12) if sform else (QUATERNION, 6)
    for _ in range(int(stream.integers(1, 4))):
        struct.pack_into("<f", plain, start + 4 * int(stream.integers(n)), float(stream.choice(FLOATS)))


def scale_affine(plain: bytearray, stream: np.random.Generator) -> None:
    """Make voxels absurdly small, large, thin or skewed."""
    rows = np.array(struct.unpack_from("<12f", plain, SROW), np.float64).reshape(3, 4)
    with np.errstate(over="ignore"):
        if stream.random() < 0.5:
            rows[:, :3] *= 10.0 ** stream.uniform(-12, 12)
        rows[:, :3] *= 10.0 ** stream.uniform(-4, 4, 3)
        rows[:, :3] += stream.choice([0, 1, 6]) * stream.normal(size=(3, 3))
    struct.pack_into("<12f", plain, SROW, *rows.ravel())


def set_pixdim(plain: bytearray, stream: np.random.Generator) -> None:
    if stream.random() < 0.5:
        struct.pack_into("<2h", plain, CODES, 1, 0)
    for _ in range(int(stream.integers(1, 4))):
        struct.pack_into("<f", plain, PIXDIM + 4 * int(stream.integers(8)), float(stream.choice(FLOATS)))


def set_codes(plain: bytearray, stream: np.random.Generator) -> None:
    struct.pack_into("<2h", plain, CODES, *(int(v) for v in stream.choice(INTEGERS, 2)))


def set_header_size(plain: bytearray, stream: np.random.Generator) -> None:
    struct.pack_into("<i", plain, 0, int(stream.choice([-1, 0, 347, 349, 352, 540, 2**31 - 1, 1543569408])))


def set_magic(plain: bytearray, stream: np.random.Generator) -> None:
    plain[344:348] = [b"ni1\0", b"n+2\0", b"\0\0\0\0", b"n+1 ", b"N+1\0"][int(stream.integers(5))]


def add_extension(plain: bytearray, stream: np.random.Generator) -> None:
    size = int(stream.choice([-16, 0, 1, 8, 15, 16, 1024, 2**24, 2**31 - 16]))
    plain[348:352] = b"\1\0\0\0"
    plain[352:352] = struct.pack("<2i", size, int(stream.choice([0, 2, 4, 6]))) + b"Quillfea"
    struct.pack_into("<f", plain, VOX_OFFSET, float(stream.choice([352, 360, 368, max(352 + size, 0)])))


def swap_bytes(plain: bytearray, stream: np.random.Generator) -> None:
    """Read part of the header as if it were of the other endianness."""
    start, width, n = [(0, 4, 1), (DIM, 2, 8), (PIXDIM, 4, 8), (SROW, 4, 12)][int(stream.integers(4))]
    for place in range(start, start + width * n, width):
        plain[place : place + width] = plain[place : place + width][::-1]


def set_voxels(plain: bytearray, stream: np.random.Generator) -> None:
    """Fill voxels with one byte (255 makes not-a-number of floats), or noise."""
    start = int(stream.integers(352, len(plain)))
    stop = int(stream.integers(start, len(plain)))
    noise = bytes(stream.integers(0, 256, stop - start, dtype=np.uint8))
    plain[start:stop] = (
        noise if stream.random() < 0.3 else bytes([int(stream.choice([0, 1, 127, 255]))]) * (stop - start)
    )


def one_value(plain: bytearray, stream: np.random.Generator) -> None:
    plain[352:] = bytes([int(stream.choice([0, 1, 2, 4]))]) * (len(plain) - 352)


def bomb(content: bytes, stream: np.random.Generator) -> bytes:
    """Append gibibytes of packed zeros; the header may claim them as voxels, as an offset or as an extension."""
    plain = bytearray(gzip.decompress(content) if content.startswith(GZIP) else content)
    kind = int(stream.integers(4))
    if kind == 1:
        struct.pack_into("<8h", plain, DIM, 3, *(int(n) for n in stream.integers(500, 1500, 3)), 1, 1, 1, 1)
    elif kind == 2:
        struct.pack_into("<f", plain, VOX_OFFSET, 2.0 ** stream.uniform(26, 32))
    elif kind == 3:
        plain[348:352] = b"\1\0\0\0"
        plain[352:352] = struct.pack("<2i", 2**31 - 16, 6) + b"Quillfea"
        struct.pack_into("<f", plain, VOX_OFFSET, 2.0**31)
    zeros = gzip.compress(bytes(2**24), 1)
    return gzip.compress(bytes(plain), 1) + zeros * int(stream.choice([1, 64, 256]))


def no_nifti(content: bytes, stream: np.random.Generator) -> bytes:
    noise = bytes(stream.integers(0, 256, 4000, dtype=np.uint8))
    return [b"", GZIP, noise, GZIP + noise, b"Vosk Quillfeather ZQ77315\n" * 40][int(stream.integers(5))]


MUTATIONS: dict[str, Mutation] = {
    "truncate": truncate,
    "truncate-early": truncate_early,
    "flip-file": flip_file,
    "bomb": bomb,
    "no-nifti": no_nifti,
    **{
        change.__name__.replace("_", "-"): of_header(change)
        for change in (
            *(truncate_content, flip_header, flip_voxels, set_dim, claim_terabytes, set_axes, swap_dims, set_datatype),
            *(set_offset, set_scaling, set_affine, scale_affine, set_pixdim, set_codes, set_header_size, set_magic),
            *(add_extension, swap_bytes, set_voxels, one_value),
        )
    },
}
