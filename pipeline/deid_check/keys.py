"""Keys and columns whose values identify: those of DICOM, of sidecars that converters write, and of usual tables."""

import re
from functools import lru_cache

from pydicom.datadict import tag_for_keyword

from pipeline.deid_check.attributes import judge_text_value
from pipeline.deid_check.person_names import looks_like_person
from pipeline.deid_check.text_rules import MAX_AGE, kinds_in_text

EMPTY = frozenset({"", "n/a", "na", "nan", "none", "null", "unknown", "-", "anonymous", "anonymized", "anonymised"})
# Compared without case and signs: first_name, First Name, firstName.
IDENTIFYING_KEYS = {
    "person's name": "firstname lastname surname familyname givenname maidenname fullname patientsname patientname "
    "realname physician physicianname referringphysician doctor radiologist operator operatorname technician "
    "technologist nextofkin lastmodifiedby",
    "date of birth": "dob birthdate dateofbirth birthday birthyear yearofbirth placeofbirth",
    "record number": "mrn medicalrecordnumber patientid patientnumber hospitalnumber hospitalid ssn nhsnumber "
    "socialsecuritynumber insurancenumber passportnumber accession accessionnumber",
    "address or contact": "address street streetaddress zip zipcode postcode postalcode phone phonenumber telephone "
    "fax email emailaddress",
    "institution": "institution institutionname hospital hospitalname clinic ward institutionaladdress",
    "device": "deviceserialnumber serialnumber stationname scannerserialnumber",
    "date or time": "studydate scandate seriesdate acquisitiondate acqdate acqtime scantime acquisitiontime "
    "acquisitiondatetime visitdate examdate admissiondate dischargedate deathdate dateofdeath",
    "text by staff": "procedurestepdescription studydescription seriesdescription protocolname",
    "user or machine": "mlflowuser mlflowsourcename username hostname loginname computername",
}
# In running text these begin sentences.
KEYS_OF_STRUCTURES = {
    "person's name": "patient creator lastauthor",
    "comment": "comment comments remark remarks patientcomments imagecomments clinicalhistory",
    "address or contact": "city mobile mail",
    "user or machine": "user userid host account login",
    "institution": "department",
}
AUTHOR_KEYS = frozenset(
    {
        "authors",
        "author",
        "creator",
        "creators",
        "contributors",
        "maintainers",
        "maintainer",
        "acknowledgements",
        "howtoacknowledge",
        "citation",
        "references",
        "citeas",
        "funding",
        "referencesandlinks",
        "copyright",
        "publisher",
        "license",
    }
)
KIND_OF_KEY = {key: kind for kind, keys in IDENTIFYING_KEYS.items() for key in keys.split()}
KIND_OF_STRUCTURE_KEY = {key: kind for kind, keys in KEYS_OF_STRUCTURES.items() for key in keys.split()}
AGE_KEYS = frozenset({"age", "ageyears", "ageinyears", "ageatscan", "ageatvisit"})
PLAIN_KEY = re.compile(r"[A-Za-z_$@][\w .@:$/-]{0,60}")
TAG_KEY = re.compile(r"[0-9A-Fa-f]{8}")
HUMPS = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]+")
MAX_LABEL = 80


def judge_entry(key: str, value: str, is_structured: bool = True) -> str:
    """Return what kind of identifier a key holds; empty if none.

    Parameters
    ----------
    key : str
        Key, column, or DICOM keyword or tag (eight hexadecimal digits, as in the DICOM JSON model).
    value : str
        Its value as text.
    is_structured : bool
        Whether it is surely a key: one of a JSON object or a table, rather than the begin of a line.
    """
    value = value.strip()
    if value.lower() in EMPTY:
        return ""
    attribute = _attribute(key)
    if attribute:
        return judge_text_value(attribute, value)
    name = re.sub(r"[^a-z0-9]", "", key.lower())
    if name in ("patient", "patientid", "patientname") and not judge_text_value("PatientID", value):
        # A pseudonym, as under the DICOM keyword.
        return ""
    if name in AGE_KEYS:
        is_old = re.fullmatch(r"\d{2,3}(?:\.\d+)?", value) is not None and float(value) > MAX_AGE
        return f"age above {MAX_AGE}" if is_old else ""
    return KIND_OF_KEY.get(name, "") or (KIND_OF_STRUCTURE_KEY.get(name, "") if is_structured else "")


def judge_text(text: str, key: str = "") -> list[str]:
    """Return the kinds of identifiers in a value, each once: by the rules for text, and names that stand alone."""
    kinds = kinds_in_text(text)
    is_by_author = re.sub(r"[^a-z]", "", key.lower()) in AUTHOR_KEYS
    if not kinds and not is_by_author and len(text) <= MAX_LABEL and looks_like_person(text, strict=True):
        return ["person's name"]
    return kinds


def show_key(key: str, number: int) -> str:
    """Return a key for display; its number where it may carry an identifier itself."""
    if TAG_KEY.fullmatch(key) or (PLAIN_KEY.fullmatch(key) and not judge_text(key)):
        return key
    return f"#{number}"


@lru_cache(maxsize=4096)
def _attribute(key: str) -> str:
    """Return the DICOM keyword or tag that a key means; empty if none. One word alone means nothing."""
    if TAG_KEY.fullmatch(key):
        return key.upper()
    is_keyword = len(HUMPS.findall(key)) > 1 and tag_for_keyword(key) is not None
    return key if is_keyword else ""
