"""Sources full of invented identities: a token at each place where a real one may sit, all with one rare word in it."""

import gzip
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
from conftest import toy_brain
from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileDataset

from pipeline.phantom.dicom import write_study
from pipeline.volumes import Volume

WORD = "QZXJWVKP"
TEXT_VRS = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "ST": 64, "LT": 64, "PN": 64, "UC": 64, "UT": 64, "UR": 64}
PROFILE = [int(tag, 16) for tag in (Path(__file__).parent / "ps3_15_table_e_1_1.txt").read_text().split()]
# What ingest needs to tell persons and series apart; planted by hand, or left alone.
NEEDED = frozenset({"PatientID", "SeriesDescription", "Modality", "ContrastBolusAgent", "BurnedInAnnotation"})
OVERLAY_ELEMENTS = {0x0022: "LO", 0x1500: "LO", 0x4000: "LT", 0x0010: "US", 0x3000: "OW"}
CURVE_ELEMENTS = {0x0020: "CS", 0x0022: "LO", 0x0030: "SH", 0x0040: "SH", 0x2500: "LO", 0x3000: "OW"}
DATE_VALUE, TIME_VALUE = "18730605", "060708.735173"


class Tokens:
    """Gives out tokens and remembers of which kind each is.

    Parameters
    ----------
    kinds : dict of str to str
        Token to kind.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, str] = {}

    def new(self, kind: str) -> str:
        token = f"{WORD}{len(self.kinds):05d}"
        self.kinds[token] = kind
        return token

    def count(self) -> Counter[str]:
        return Counter(self.kinds.values())


def text_attributes(vrs: dict[str, int]) -> Iterator[int]:
    """Yield the tags of the Basic Profile that hold text, but for those that ingest needs."""
    for tag in PROFILE:
        is_known = dictionary_has_tag(tag) and dictionary_VR(tag) in vrs
        if is_known and tag >> 16 not in (0x0000, 0x0002, 0x0004) and keyword_for_tag(tag) not in NEEDED:
            yield tag


def plant_in_header(tokens: Tokens, data: Dataset) -> Dataset:
    """Return attributes with a token in each: texts of the profile, nested, private, overlays and curves.

    The same for all images of a series: a converter takes images that differ for several series.
    """
    planted = Dataset()
    if data.SeriesDescription not in ("T1 AX", "TUMOR SEG"):
        for tag in list(text_attributes(TEXT_VRS))[::9]:
            planted.add_new(tag, dictionary_VR(tag), tokens.new("text VR"))
        return planted
    for tag in text_attributes(TEXT_VRS):
        vr = dictionary_VR(tag)
        planted.add_new(tag, vr, tokens.new("text VR") + ("^A" if vr == "PN" else ""))
    for tag in PROFILE:
        vr = dictionary_VR(tag) if dictionary_has_tag(tag) else ""
        if vr in ("DA", "TM", "DT") and tag >> 16 != 0:
            planted.add_new(tag, vr, {"DA": DATE_VALUE, "TM": TIME_VALUE, "DT": DATE_VALUE + TIME_VALUE}[vr])
    _plant_nested(planted, tokens)
    _plant_private(planted, tokens)
    if data.Modality == "MR":
        for group, elements, kind in ((0x6000, OVERLAY_ELEMENTS, "overlay"), (0x5000, CURVE_ELEMENTS, "curve")):
            for repeat in (0, 2, 0x1E):
                for element, vr in elements.items():
                    value = {"OW": lambda k=kind: tokens.new(k).encode() + b"\0", "US": lambda: 8}.get(vr)
                    tag = (group + repeat) << 16 | element
                    planted.add_new(tag, vr, value() if value else tokens.new(kind))
    return planted


def _plant_nested(planted: Dataset, tokens: Tokens) -> None:
    """Add each text VR in sequences one, two and three deep."""
    sequences = [tag for tag in PROFILE if dictionary_has_tag(tag) and dictionary_VR(tag) == "SQ"]
    texts = list(text_attributes(TEXT_VRS))
    for number, tag in enumerate(sequences):
        if keyword_for_tag(tag) in ("SourceImageSequence", "ReferencedImageSequence", "ContentSequence"):
            continue
        item, outer = Dataset(), tag
        for depth in range(3):
            text = texts[(7 * number + depth) % len(texts)]
            item.add_new(text, dictionary_VR(text), tokens.new(f"nested {3 - depth} deep"))
            if depth < 2:
                wrapper = Dataset()
                wrapper.add_new(sequences[(number + 1 + depth) % len(sequences)], "SQ", [item])
                item = wrapper
        planted.add_new(outer, "SQ", [item])


def _plant_private(planted: Dataset, tokens: Tokens) -> None:
    for group in (0x0009, 0x0019, 0x0029, 0x0043, 0x0051, 0x2001):
        block = planted.private_block(group, tokens.new("private"), create=True)
        for element, vr in enumerate(("LO", "SH", "LT", "UN", "OB", "PN"), start=0x10):
            token = tokens.new("private")
            block.add_new(element, vr, token.encode() + b"\0" if vr in ("UN", "OB") else token)
        inner = Dataset()
        inner.PatientName = tokens.new("private")
        block.add_new(0x20, "SQ", [inner])


def write_toy_study(number: int, folder: Path) -> None:
    """Write a study of a toy brain as the phantom's DICOM writer does: four MR series and a SEG."""
    images, _, tumor = toy_brain((24, 28, 20), np.random.default_rng(number))
    affine = np.diag([-6.0, -6.0, 6.0, 1.0])
    volumes = {name: Volume(image.astype(np.int16), affine) for name, image in images.items()}
    write_study(volumes, Volume(tumor, affine), number, folder)


def plant_dicom(root: Path, n_studies: int) -> Tokens:
    """Write phantom studies with planted identities below a folder, and some that must be quarantined.

    In the first study every attribute is planted in each image of the T1 series and in the labels, a part of them in
    its other series; all images have tokens for the identifiers, and in names of folders and files.
    """
    tokens = Tokens()
    for number in range(1, n_studies + 1):
        folder = root / tokens.new("folder name") / f"{tokens.new('folder name')} A"
        write_toy_study(number, folder)
        identity = _identity(tokens)
        planted: dict[str, Dataset] = {}
        names = {series: tokens.new("folder name") for series in sorted(path.name for path in folder.iterdir())}
        for path in sorted(folder.rglob("*.dcm")):
            data = pydicom.dcmread(path)
            if number == 1:
                if data.SeriesInstanceUID not in planted:
                    planted[data.SeriesInstanceUID] = plant_in_header(tokens, data)
                _merge(data, planted[data.SeriesInstanceUID], tokens, path)
            data.update(identity)
            data.SeriesDescription = f"{data.SeriesDescription} {identity.PatientName}"
            out = path.parent.with_name(names[path.parent.name]) / f"{identity.PatientName}_{path.name}"
            out.parent.mkdir(exist_ok=True)
            data.save_as(out)
            path.unlink()
    _break_studies(root, tokens)
    return tokens


def _identity(tokens: Tokens) -> Dataset:
    identity = Dataset()
    identity.PatientName = tokens.new("text VR")
    identity.PatientID = tokens.new("text VR")
    identity.PatientBirthDate = DATE_VALUE
    identity.AccessionNumber = tokens.new("text VR")
    identity.InstitutionName = tokens.new("text VR")
    return identity


def _merge(data: FileDataset, planted: Dataset, tokens: Tokens, path: Path) -> None:
    """Add what is planted; what says how the pixels lie stays as it is."""
    for element in planted:
        is_layout = element.tag.group == 0x0028 or element.keyword in ("ReferencedSeriesSequence",)
        if not is_layout:
            data[element.tag] = element
    if path.name.endswith("0001.dcm"):
        data.preamble = f"{tokens.new('preamble')}".encode().ljust(128, b"\0")
        data.file_meta.SourceApplicationEntityTitle = tokens.new("file meta")
        data.file_meta.PrivateInformationCreatorUID = "2.25.5"
        data.file_meta.PrivateInformation = tokens.new("file meta").encode() + b"\0"


def _break_studies(root: Path, tokens: Tokens) -> None:
    """Add three studies that cannot be used: without labels, with a damaged series, with labels that are none."""
    (study,) = [path for path in sorted(root.glob("*/*")) if path.is_dir()][-1:]
    for problem in ("no labels", "cut off", "no segment"):
        identity, uid = _identity(tokens), f"2.25.77{len(tokens.kinds)}"
        folder = root / tokens.new("folder name")
        folder.mkdir()
        for path in sorted(study.rglob("*.dcm")):
            data = pydicom.dcmread(path)
            if problem == "no labels" and data.Modality == "SEG":
                continue
            data.update(identity)
            data.StudyInstanceUID, data.SeriesInstanceUID = uid, f"{uid}.{data.SeriesNumber}"
            if problem == "no segment" and data.Modality == "SEG":
                for segment in data.SegmentSequence:
                    segment.SegmentLabel = tokens.new("quarantined")
            out = folder / f"{tokens.new('file name')}.dcm"
            data.save_as(out)
            if problem == "cut off" and data.Modality == "SEG":
                out.write_bytes(out.read_bytes()[:-300])


NIFTI_MANIFEST = """
name: planted
license: none
citation: none
format: nifti
subject: '(?P<person>[A-Z]+\\d+)_\\d'
images:
  t1: "**/{subject}/*_t1.nii.gz"
  t1ce: "**/{subject}/*_t1ce.nii.gz"
  t2: "**/{subject}/*_t2.nii.gz"
  flair: "**/{subject}/*_flair.nii.gz"
tumor: "**/{subject}/*_seg.nii.gz"
labels: {necrotic_core: 1, oedema: 2, enhancing: 4}
prepared: {skull_stripped: true, coregistered: true, resampled: true}
"""
SIDECAR_KEYS = (
    "InstitutionName",
    "InstitutionAddress",
    "StationName",
    "PatientName",
    "ProtocolName",
    "SeriesDescription",
)


def plant_nifti(root: Path, n_cases: int, n_broken: int = 3) -> Tokens:
    """Write scans with planted headers, sidecars, tables and names below a folder; the last ones are damaged."""
    tokens = Tokens()
    rows = ["participant_id\tname\tdob"]
    for number in range(n_cases + n_broken):
        subject = f"{tokens.new('folder name')}_1"
        folder = root / f"{tokens.new('folder name')} B" / subject
        folder.mkdir(parents=True)
        images, _, tumor = toy_brain((30, 34, 28), np.random.default_rng(number))
        labels = np.array([0, 1, 2, 4], np.uint8)[tumor]
        for role, array in {**{name: image.astype(np.int16) for name, image in images.items()}, "seg": labels}.items():
            path = folder / f"{tokens.new('file name')}_{role}.nii.gz"
            write_planted_nifti(path, array, tokens)
            sidecar = {key: tokens.new("sidecar") for key in SIDECAR_KEYS} | {tokens.new("sidecar"): 1}
            path.with_suffix("").with_suffix(".json").write_text(json.dumps(sidecar))
            if number >= n_cases and role == ("t1", "flair", "seg")[(number - n_cases) % 3]:
                path.write_bytes(path.read_bytes()[: (3000, 0, 200)[(number - n_cases) % 3]])
        rows.append(f"{subject}\t{tokens.new('table')}\t{tokens.new('table')}")
    (root / "participants.tsv").write_text("\n".join(rows) + "\n")
    (root / f"{tokens.new('file name')}.txt").write_text(tokens.new("table"))
    return tokens


def write_planted_nifti(path: Path, array: np.ndarray, tokens: Tokens) -> None:
    """Write a scan with a token in each text field, in three extensions, behind the voxels and in the gzip header."""
    image = nib.Nifti1Image(array, np.diag([-5.0, -5.0, 5.0, 1.0]))
    for name in ("descrip", "aux_file", "db_name", "intent_name"):
        image.header[name] = tokens.new("NIfTI field")
    for code in (2, 4, 6):
        content = tokens.new("NIfTI extension").encode()
        if code == 2:
            header = Dataset()
            header.PatientName = content.decode()
            image.header.extensions.append(nib.nifti1.Nifti1DicomExtension(2, header))
        else:
            image.header.extensions.append(nib.nifti1.Nifti1Extension(code, content))
    with path.open("wb") as file, gzip.GzipFile(f"{tokens.new('gzip name')}.nii", "wb", 6, file) as packed:
        packed.write(image.to_bytes() + tokens.new("behind the voxels").encode())
