"""Croissant metadata of a release, for machine learning tools.

References
----------
Akhtar et al. 2024, "Croissant: a metadata format for ML-ready datasets", doi:10.1145/3650203.3663326.
"""

import re
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.attributes import NUMBER_COLUMNS
from pipeline.cohort import digest_file, read_tsv
from pipeline.export.bids import PUBLIC_COLUMNS
from pipeline.export.card import CC_BY_DEED, Release

# Croissant's own words: the standard context, that readers compare with theirs.
CROISSANT_WORDS = (
    *("citeAs", "column", "extract", "field", "fileObject", "fileProperty", "fileSet", "format", "includes"),
    *("isLiveDataset", "jsonPath", "key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated"),
    *("replace", "samplingRate", "separator", "source", "subField", "transform", "equivalentProperty"),
)
CROISSANT_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    **{word: f"cr:{word}" for word in CROISSANT_WORDS},
}


def describe_croissant(release: Release, folder: Path) -> dict[str, Any]:
    """Return the Croissant 1.0 description of a release.

    Parameters
    ----------
    release : Release
    folder : Path
        The release folder, its ``bids/`` written.

    Returns
    -------
    dict
        JSON-LD.
    """
    config, table = release.config, folder / "bids" / "participants.tsv"
    name = re.sub(r"[^a-z0-9]+", "-", config.title.lower()).strip("-") or "synthetic-cohort"
    spdx = f"https://spdx.org/licenses/{config.license}.html"
    columns = list(read_tsv(table)[0])
    return {
        "@context": CROISSANT_CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "description": f"SYNTHETIC: {config.title}. {len(release.cohort.cases)} synthetic cases of brain MRI with "
        f"label maps; no scan shows a patient. Privacy audit: {release.decision.verdict}.",
        "license": CC_BY_DEED if config.license == "CC-BY-4.0" else spdx,
        "citeAs": f"{config.title}; synthetic data made with synthcohort {__version__}",
        "version": __version__,
        "keywords": ["synthetic data", "MRI", "brain tumour", "segmentation", "BIDS"],
        "isLiveDataset": False,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "participants",
                "name": "participants.tsv",
                "contentUrl": "bids/participants.tsv",
                "encodingFormat": "text/tab-separated-values",
                "sha256": digest_file(table),
            },
            _file_set("images", [f"bids/sub-*/anat/*_{suffix}.nii.gz" for suffix in ("T1w", "T2w", "FLAIR")]),
            _file_set("label-maps", ["bids/sub-*/anat/*_dseg.nii.gz"]),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "cases",
                "name": "cases",
                "description": "One row per synthetic case",
                "field": [_field(column) for column in columns],
            }
        ],
    }


def _file_set(name: str, includes: list[str]) -> dict[str, Any]:
    return {
        "@type": "cr:FileSet",
        "@id": name,
        "name": name,
        "encodingFormat": "application/gzip",
        "includes": includes,
    }


def _field(column: str) -> dict[str, Any]:
    is_number = column in NUMBER_COLUMNS
    return {
        "@type": "cr:Field",
        "@id": f"cases/{column}",
        "name": column,
        "description": PUBLIC_COLUMNS.get(column, "Name of the synthetic case"),
        "dataType": "sc:Float" if is_number else "sc:Text",
        "source": {"fileObject": {"@id": "participants"}, "extract": {"column": column}},
    }
