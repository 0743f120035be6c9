"""Ways to damage a DICOM file: each takes its bytes and a stream of randomness, and returns other bytes."""

import io
import struct
from collections.abc import Callable

import numpy as np
import pydicom
from campaigns.nifti_mutants import Mutation, flip_bits, truncate
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset

EXTREME = (0, 1, 2, 3, 7, 255, 4096, 32767, 65535)
NUMBERS = ("nan", "inf", "-inf", "0", "-1", "1e30", "-1e30", "1e7", "1e-30", "12345", "Vosk", "", "1\\2\\3", "0x10")
SHAPE_TAGS = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
PLACE_TAGS = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness")
SCALE_TAGS = ("SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept", "SeriesNumber", "InstanceNumber", "EchoTime")
TEXT_TAGS = ("PatientID", "SeriesDescription", "StudyInstanceUID", "SeriesInstanceUID", "SpecificCharacterSet")
SYNTAXES = (
    "1.2",
    "1.2.1.99",
    "1.2.2",
    "1.2.4.50",
    "1.2.4.57",
    "1.2.4.70",
    "1.2.4.80",
    "1.2.4.90",
    "1.2.5",
    "1.2.4.201",
)
VRS = ("AE", "AS", "AT", "CS", "DA", "DS", "FD", "FL", "IS", "LO", "OB", "OW", "PN", "SQ", "UI", "UL", "UN", "US", "ZZ")
LENGTHS = (0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)
UNDEFINED = 0xFFFFFFFF
MAX_NESTING = 4000
CHARACTER_SET = 0x00080005


def of_dataset(change: Callable[[FileDataset, np.random.Generator], None]) -> Mutation:
    """Return a mutation that changes the elements of a file."""

    def mutate(content: bytes, stream: np.random.Generator) -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(content))
        change(dataset, stream)
        out = io.BytesIO()
        try:
            dataset.save_as(out, enforce_file_format=False)
        except (ValueError, TypeError):
            # A character set that pydicom cannot write with; that it can read with anything, flip-header tries.
            out = io.BytesIO()
            dataset.pop("SpecificCharacterSet", None)
            dataset.save_as(out, enforce_file_format=False)
        return out.getvalue()

    return mutate


def pixels_start(content: bytes) -> int:
    found = content.find(b"\xe0\x7f\x10\x00")
    return found if found > 0 else len(content)


def flip_header(content: bytes, stream: np.random.Generator) -> bytes:
    return flip_bits(content, stream, 128, pixels_start(content))


def flip_pixels(content: bytes, stream: np.random.Generator) -> bytes:
    return flip_bits(content, stream, min(pixels_start(content), len(content) - 1), len(content))


def truncate_header(content: bytes, stream: np.random.Generator) -> bytes:
    return content[: int(stream.integers(0, pixels_start(content)))]


def splice(content: bytes, stream: np.random.Generator) -> bytes:
    """Take bytes out, put others in, or repeat some."""
    start = int(stream.integers(128, pixels_start(content)))
    stop = min(start + int(2 ** stream.uniform(0, 10)), len(content))
    middle = [b"", bytes(stop - start), content[start:stop] * 2, content[start:stop][::-1]][int(stream.integers(4))]
    return content[:start] + middle + content[stop:]


def set_shape(dataset: FileDataset, stream: np.random.Generator) -> None:
    for tag in stream.choice(SHAPE_TAGS, int(stream.integers(1, 4)), replace=False):
        setattr(dataset, str(tag), int(stream.choice(EXTREME)))
    if stream.random() < 0.4:
        dataset.NumberOfFrames = str(stream.choice([0, 1, 2, 65535, 2**31 - 1, -1]))


def claim_terabytes(dataset: FileDataset, stream: np.random.Generator) -> None:
    dataset.Rows, dataset.Columns = (int(n) for n in stream.integers(30000, 65536, 2))
    if stream.random() < 0.7:
        dataset.NumberOfFrames = str(int(2 ** stream.uniform(8, 31)))
    if stream.random() < 0.3:
        dataset.BitsAllocated = dataset.BitsStored = int(stream.choice([32, 64, 65528]))


def put(dataset: Dataset, tag: str, values: list[str]) -> None:
    """Set an element to text, whatever the standard asks of it."""
    dataset[tag] = DataElement(pydicom.datadict.tag_for_keyword(tag), "LO", values if len(values) > 1 else values[0])
    dataset[tag].VR = "DS"


def set_place(dataset: FileDataset, stream: np.random.Generator) -> None:
    tag = str(stream.choice(PLACE_TAGS))
    values = [str(v) for v in np.atleast_1d(dataset.get(tag, ["1", "1", "1"]))]
    for _ in range(int(stream.integers(1, 3))):
        values[int(stream.integers(len(values)))] = str(stream.choice(NUMBERS))
    put(dataset, tag, values[: int(stream.integers(1, len(values) + 1))] if stream.random() < 0.2 else values)


def set_number(dataset: FileDataset, stream: np.random.Generator) -> None:
    for tag in stream.choice(SCALE_TAGS, 2, replace=False):
        put(dataset, str(tag), [str(stream.choice(NUMBERS))])


def set_text(dataset: FileDataset, stream: np.random.Generator) -> None:
    tag = str(stream.choice(TEXT_TAGS))
    texts = [
        "",
        " ",
        "\\".join("Vosk" * 3),
        "Quillfeather" * 20000,
        "../../etc",
        "\0\0",
        "$(Vosk)",
        "%s%n",
        "T1 AX " * 500,
    ]
    put(dataset, tag, [texts[int(stream.integers(len(texts)))]])
    dataset[tag].VR = "LO" if stream.random() < 0.5 else "UT"


def drop(dataset: FileDataset, stream: np.random.Generator) -> None:
    for tag in stream.choice([int(t) for t in dataset.keys()], int(stream.integers(1, 5)), replace=False):  # noqa: SIM118
        del dataset[int(tag)]


def drop_important(dataset: FileDataset, stream: np.random.Generator) -> None:
    names = (*SHAPE_TAGS, *PLACE_TAGS, *TEXT_TAGS, "PixelData", "Modality", "SOPInstanceUID", "NumberOfFrames")
    present = [name for name in (*names, "SegmentSequence", "ROIContourSequence") if name in dataset]
    del dataset[str(stream.choice(present))]


def swap(dataset: FileDataset, stream: np.random.Generator) -> None:
    """Swap the values of two elements, VR and all; not the character set, with which pydicom writes the others."""
    tags = [int(tag) for tag in dataset.keys() if tag != CHARACTER_SET]  # noqa: SIM118
    one, other = (int(tag) for tag in stream.choice(tags, 2, replace=False))
    swap_elements(dataset, one, other)


def swap_identity(dataset: FileDataset, stream: np.random.Generator) -> None:
    """Put what names a person where something else is expected."""
    person = str(stream.choice(["PatientID", "PatientName", "ReferringPhysicianName", "StudyID", "PatientComments"]))
    others = ["Modality", "SeriesDescription", "ImageType", "StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID"]
    other = str(
        stream.choice([*others, "BurnedInAnnotation", "SeriesNumber", "EchoTime", "ContrastBolusAgent", "Rows"])
    )
    if other not in dataset:
        put(dataset, other, ["1"])
    tags = [pydicom.datadict.tag_for_keyword(name) for name in (person, other)]
    swap_elements(dataset, int(tags[0] or 0), int(tags[1] or 0))


def swap_elements(dataset: Dataset, one: int, other: int) -> None:
    first, second = dataset[one], dataset[other]
    dataset[one] = DataElement(one, second.VR, second.value)
    dataset[other] = DataElement(other, first.VR, first.value)


def change_vr(content: bytes, stream: np.random.Generator) -> bytes:
    place = place_of_element(content, stream)
    return content[: place + 4] + str(stream.choice(VRS)).encode() + content[place + 6 :]


def change_length(content: bytes, stream: np.random.Generator) -> bytes:
    """Give an element another length: none, too much, gibibytes, undefined."""
    place = place_of_element(content, stream)
    length = int(stream.choice(LENGTHS))
    if content[place + 4 : place + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT"):
        return content[: place + 8] + struct.pack("<I", length) + content[place + 12 :]
    return content[: place + 6] + struct.pack("<H", length & 0xFFFF) + content[place + 8 :]


def place_of_element(content: bytes, stream: np.random.Generator) -> int:
    """Return where a random element of the highest level starts in an explicit-VR file."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    places = []
    for element in dataset:
        head = struct.pack("<HH", element.tag.group, element.tag.element) + str(element.VR)[:2].encode()
        place = content.find(head)
        if place > 0:
            places.append(place)
    return int(stream.choice(places))


def nest(content: bytes, stream: np.random.Generator) -> bytes:
    """Put in sequences within sequences, closed or not."""
    depth = int(2 ** stream.uniform(3, np.log2(MAX_NESTING)))
    tag = [(0x0008, 0x1140), (0x0040, 0x0275), (0x5200, 0x9229), (0x3006, 0x0039)][int(stream.integers(4))]
    opening = struct.pack("<HH", *tag) + b"SQ\0\0" + struct.pack("<I", UNDEFINED)
    opening += struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    place = place_of_element(content, stream)
    return content[:place] + opening * depth + closing * depth * int(stream.integers(2)) + content[place:]


def leave_open(content: bytes, stream: np.random.Generator) -> bytes:
    """Open a sequence of undefined length, or with an item of an absurd one, before an element."""
    place = place_of_element(content, stream)
    length = int(stream.choice([0, UNDEFINED, 0xFFFFFFFE, 2**31, 100]))
    opening = struct.pack("<HH", 0x0008, 0x1140) + b"SQ\0\0" + struct.pack("<I", UNDEFINED)
    return content[:place] + opening + struct.pack("<HHI", 0xFFFE, 0xE000, length) + content[place:]


def rename_syntax(content: bytes, stream: np.random.Generator) -> bytes:
    """Write another transfer syntax's UID over the right one."""
    right = b"1.2.840.10008.1.2.1\0"
    wrong = (b"1.2.840.10008." + str(stream.choice(SYNTAXES)).encode())[:64]
    wrong += b"\0" * (len(wrong) % 2)
    place = content.find(b"\x02\x00\x10\x00UI")
    head = content[: place + 6] + struct.pack("<H", len(wrong)) + wrong
    return head + content[place + 8 + len(right) :]


def resize_pixels(dataset: FileDataset, stream: np.random.Generator) -> None:
    pixels = dataset.get("PixelData", b"\0" * 100)
    size = int(stream.choice([0, 1, 2, len(pixels) // 2, len(pixels) - 2, len(pixels) + 2, 2 * len(pixels), 1000001]))
    dataset.PixelData = (pixels * 3 + bytes(1000001))[:size]
    dataset["PixelData"].VR = "OW"


def repeat_place(dataset: FileDataset, stream: np.random.Generator) -> None:
    """Move a slice onto, between or far from the others."""
    if "ImagePositionPatient" not in dataset:
        dataset.ImagePositionPatient = [0, 0, 0]
    x, y, z = dataset.ImagePositionPatient
    step = float(stream.choice([6.0, -6.0, 12.0, 3.0, 0.5, 1000.0, 1e6]))
    dataset.ImagePositionPatient = [f"{float(v):.10g}" for v in (x, y, float(z) + step)]
    if stream.random() < 0.3:
        dataset.InstanceNumber = int(stream.integers(0, 20))


def damage_frames(dataset: FileDataset, stream: np.random.Generator) -> None:
    """Spoil what a segmentation says of its frames; of another file, the place."""
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        repeat_place(dataset, stream)
        return
    frame = frames[int(stream.integers(len(frames)))]
    kind = int(stream.integers(7))
    if kind == 0:
        frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber = int(stream.choice(EXTREME))
    elif kind == 1:
        values = [str(v) for v in frame.PlanePositionSequence[0].ImagePositionPatient]
        values[int(stream.integers(3))] = str(stream.choice([*NUMBERS, "1e4", "6000", "3.0"]))
        put(frame.PlanePositionSequence[0], "ImagePositionPatient", values)
    elif kind == 2:
        del frames[int(stream.integers(len(frames)))]
    elif kind == 3:
        frames.append(frame)
    elif kind == 4:
        dataset.SegmentSequence[0].SegmentNumber = int(stream.choice(EXTREME))
    elif kind == 5:
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        put(measures, str(stream.choice(["PixelSpacing", "SliceThickness"])), [str(stream.choice(NUMBERS)), "6"])
    else:
        frame.FrameContentSequence[0].DimensionIndexValues = [int(v) for v in stream.choice([0, 1, 9, 2**31], 2)]


def damage_contours(dataset: FileDataset, stream: np.random.Generator) -> None:
    """Spoil the contours of an RTSTRUCT; of another file, the place."""
    if "ROIContourSequence" not in dataset:
        repeat_place(dataset, stream)
        return
    item = dataset.ROIContourSequence[int(stream.integers(3))]
    contour = item.ContourSequence[int(stream.integers(len(item.ContourSequence)))]
    values = [str(v) for v in contour.ContourData]
    kind = int(stream.integers(8))
    if kind == 0:
        for place in stream.integers(0, len(values), 3):
            values[place] = str(stream.choice(NUMBERS))
    elif kind == 1:
        values = values[: int(stream.choice([1, 2, 3, 5, 6, 7, len(values) - 1]))]
    elif kind == 2:
        values = (values * 100000)[:300000]
    elif kind == 3:
        values[2::3] = [str(float(v) + float(stream.choice([3.0, 600.0, -600.0, 1e9]))) for v in values[2::3]]
    elif kind == 4:
        values[0::3] = [str(float(v) * 1e4) for v in values[0::3]]
    elif kind == 5:
        item.ReferencedROINumber = int(stream.choice([0, 1, 2, 99]))
    elif kind == 6:
        contour.ContourGeometricType = str(stream.choice(["POINT", "OPEN_PLANAR", "Vosk", ""]))
    else:
        del item.ContourSequence
        return
    put(contour, "ContourData", values)


def no_dicom(content: bytes, stream: np.random.Generator) -> bytes:
    noise = bytes(stream.integers(0, 256, 4000, dtype=np.uint8))
    head = bytes(128) + b"DICM"
    return [b"", b"\0" * 132, head, head + noise, noise, b"Vosk Quillfeather ZQ77315"][int(stream.integers(6))]


MUTATIONS: dict[str, Mutation] = {
    **{
        change.__name__.replace("_", "-"): change
        for change in (
            *(truncate, truncate_header, flip_header, flip_pixels, splice, change_vr, change_length, nest, leave_open),
            *(rename_syntax, no_dicom),
        )
    },
    **{
        change.__name__.replace("_", "-"): of_dataset(change)
        for change in (
            *(set_shape, claim_terabytes, set_place, set_number, set_text, drop, drop_important, swap, swap_identity),
            *(resize_pixels, repeat_place, damage_frames, damage_contours),
        )
    },
}
