"""Which DICOM attributes may be filled, and with what: an allow-list; all else is a finding.

Allowed are numbers and codes that describe geometry, sequence and pixels, what names the object's kind, and statements
of de-identification. The Basic Profile's list of what has to go is the measure: nothing on it is allowed but emptied,
replaced by a dummy, or a UID drawn anew.

References
----------
DICOM PS3.15, Annex E, table E.1-1 (2026c); PS3.6, chapter 6.
"""

import re

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag, tag_for_keyword

from pipeline.deid_check.person_names import looks_like_person
from pipeline.deid_check.text_rules import is_uid_to_report, kinds_in_text

NUMBERS = frozenset({"DS", "IS", "FD", "FL", "US", "SS", "UL", "SL", "UV", "SV", "US or SS", "OF", "OD"})
CODES = frozenset({"CS", "AT", "SQ"})
DATES = frozenset({"DA", "TM", "DT", "AS"})
# Acquisition, relationship (geometry), image presentation, nuclear medicine, segmentation, functional groups: numbers
# and codes there are parameters, but for those named below.
PARAMETER_GROUPS = frozenset({0x0018, 0x0020, 0x0028, 0x0054, 0x0062, 0x5200})
_NOT_PARAMETERS = """
    LensSpecification GPSLatitudeRef GPSLatitude GPSLongitudeRef GPSLongitude GPSAltitudeRef GPSAltitude GPSStatus
    GPSMeasureMode GPSDOP GPSSpeedRef GPSSpeed GPSTrackRef GPSTrack GPSImgDirectionRef GPSImgDirection
    GPSDestLatitudeRef GPSDestLatitude GPSDestLongitudeRef GPSDestLongitude GPSDestBearingRef GPSDestBearing
    GPSDestDistanceRef GPSDestDistance GPSDifferential ModifyingDeviceID UDISequence TransducerIdentificationSequence
    ContributingEquipmentSequence BurnedInAnnotation RecognizableVisualFeatures
"""
NOT_PARAMETERS = frozenset(_NOT_PARAMETERS.split())
_ALLOWED = """
    FileMetaInformationVersion MediaStorageSOPClassUID TransferSyntaxUID ImplementationClassUID
    ImplementationVersionName SpecificCharacterSet ImageType SOPClassUID Modality ConversionType SyntheticData
    PresentationIntentType Manufacturer ManufacturerModelName SoftwareVersions SequenceName PulseSequenceName
    ImagedNucleus ContrastBolusRoute ReceiveCoilName TransmitCoilName ReceiveCoilManufacturerName
    TransmitCoilManufacturerName MultiCoilElementName ConvolutionKernel AcquisitionMode TriggerSourceOrType
    PositionReferenceIndicator TargetPositionReferenceIndicator StackID DimensionDescriptionLabel RescaleType
    ModalityLUTType WindowCenterWidthExplanation LUTExplanation SegmentLabel SegmentDescription SegmentAlgorithmName
    PatientOrientation FrameType PixelPresentation VolumetricProperties VolumeBasedCalculationTechnique
    ComplexImageComponent AcquisitionContrast LossyImageCompressionRetired RecommendedDisplayFrameRate ContentLabel
    SkipFrameRangeFlag NumberOfStages StageNumber ReferencedFrameNumber SimpleFrameList AnatomicStructure
    AttenuationCorrectionMethod ReconstructionMethod ScatterCorrectionMethod
    CodeValue LongCodeValue CodingSchemeDesignator CodingSchemeVersion CodeMeaning MappingResource ContextIdentifier
    ContextUID MappingResourceUID MappingResourceName CodingSchemeUID CodingSchemeName CodingSchemeRegistry
    CodingSchemeIdentificationSequence CodingSchemeURL CodingSchemeURLType CodingSchemeResponsibleOrganization
    AnatomicRegionSequence AnatomicRegionModifierSequence PrimaryAnatomicStructureSequence DerivationImageSequence
    DerivationCodeSequence SourceImageSequence ReferencedImageSequence ReferencedSeriesSequence
    ReferencedInstanceSequence ReferencedImageEvidenceSequence SourceImageEvidenceSequence ReferencedRawDataSequence
    StudiesContainingOtherReferencedInstancesSequence PurposeOfReferenceCodeSequence ReferencedSOPClassUID
    RealWorldValueMappingSequence MeasurementUnitsCodeSequence RealWorldValueFirstValueMapped LUTLabel
    RealWorldValueLastValueMapped RealWorldValueIntercept RealWorldValueSlope RealWorldValueLUTData
    PatientIdentityRemoved DeidentificationMethod DeidentificationMethodCodeSequence
    LongitudinalTemporalInformationModified BurnedInAnnotation RecognizableVisualFeatures
    RedPaletteColorLookupTableData GreenPaletteColorLookupTableData BluePaletteColorLookupTableData
    PixelData FloatPixelData DoubleFloatPixelData ExtendedOffsetTable ExtendedOffsetTableLengths
    FileSetConsistencyFlag DirectoryRecordSequence DirectoryRecordType ReferencedFileID
    OffsetOfTheFirstDirectoryRecordOfTheRootDirectoryEntity OffsetOfTheLastDirectoryRecordOfTheRootDirectoryEntity
    OffsetOfTheNextDirectoryRecord OffsetOfReferencedLowerLevelDirectoryEntity RecordInUseFlag
    ReferencedSOPClassUIDInFile ReferencedTransferSyntaxUIDInFile
"""
ALLOWED = frozenset(_ALLOWED.split())
# Texts that a synthetic object may carry, where they say that it is one.
SYNTHETIC_TEXTS = frozenset(
    {
        "StudyDescription",
        "SeriesDescription",
        "ContentDescription",
        "ImageComments",
        "DerivationDescription",
        "ProtocolName",
    }
)
PSEUDONYM = re.compile(r"(?:sub-)?(?:[0-9a-f]{16}|syn\d{1,8})|sub-[0-9A-Za-z]{1,64}")
DUMMIES = frozenset(
    {
        "anonymous",
        "anonymized",
        "anonymised",
        "anon",
        "deidentified",
        "de-identified",
        "removed",
        "none",
        "unknown",
        "n/a",
        "no^name",
        "anonymous^anonymous",
        "synthetic",
        "synthetic^subject",
    }
)
DUMMY_DATES = re.compile(r"(?:0001|1900)0101(?:000000(?:\.0{1,6})?)?|000000(?:\.0{1,6})?|1900-01-01|00:00:00(?:\.0+)?")
# Of software and vocabularies, not of a study.
SOFTWARE_UIDS = frozenset({"ImplementationClassUID", "CodingSchemeUID", "MappingResourceUID", "ContextUID"})
NUMBER = re.compile(r"[\d+\-.eE \\]*")
CODE = re.compile(r"[A-Za-z0-9_ ./+\-]{0,16}(?:\\[A-Za-z0-9_ ./+\-]{0,16})*")
# Kinds of objects whose pixels or payload show text.
CLASS_KEYWORDS = frozenset({"SOPClassUID", "MediaStorageSOPClassUID"})
TEXT_BEARING_CLASSES = ("1.2.840.10008.5.1.4.1.1.7", "1.2.840.10008.5.1.4.1.1.104.")


def judge_filled(tag: int, vr: str) -> str:  # noqa: PLR0911 one line a rule
    """Return why an attribute must not be filled at all; empty if it depends on the value.

    Parameters
    ----------
    tag : int
        Group and element.
    vr : str
        Value representation of the file, used where the dictionary does not know the tag.
    """
    group, element = tag >> 16, tag & 0xFFFF
    if element == 0:
        return ""
    if group % 2:
        return "private attribute"
    if group & 0xFF00 in (0x5000, 0x6000) and group != 0x5200:
        return "overlay" if group & 0xFF00 == 0x6000 else "curve"
    keyword = keyword_for_tag(tag)
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) else vr
    if keyword in ALLOWED or keyword in ("PatientName", "PatientID", *SYNTHETIC_TEXTS) or vr == "UI" or vr in DATES:
        return ""
    if group in PARAMETER_GROUPS and vr in NUMBERS | CODES and keyword and keyword not in NOT_PARAMETERS:
        return ""
    if vr == "PN":
        return "person's name"
    return "attribute that is not on the allow-list"


def judge_text_value(attribute: str, value: str, is_synthetic: bool = False) -> str:
    """Return what is wrong with the value of an attribute; empty if nothing.

    Parameters
    ----------
    attribute : str
        Keyword, or tag as eight hexadecimal digits.
    value : str
        Decoded, not empty.
    is_synthetic : bool
        Whether the object says that it is synthetic.
    """
    tag = int(attribute, 16) if re.fullmatch(r"[0-9A-F]{8}", attribute) else tag_for_keyword(attribute) or 0
    keyword = keyword_for_tag(tag)
    vr = dictionary_VR(tag) if dictionary_has_tag(tag) else "UN"
    reason = judge_filled(tag, vr)
    if reason:
        return reason
    if keyword in ("PatientName", "PatientID"):
        is_dummy = value.lower() in DUMMIES or (PSEUDONYM.fullmatch(value) and not looks_like_person(value))
        return "" if is_dummy else "person's name" if keyword == "PatientName" else "patient's identifier"
    if vr in DATES:
        return "" if DUMMY_DATES.fullmatch(value) else "age" if vr == "AS" else "date or time"
    if vr == "UI":
        return _judge_uid(keyword, value)
    if keyword in SYNTHETIC_TEXTS and not (is_synthetic and value.lower().startswith("synthetic")):
        return "attribute that is not on the allow-list"
    return _judge_statement(keyword, value) or _judge_content(vr, value)


def _judge_uid(keyword: str, value: str) -> str:
    if keyword in CLASS_KEYWORDS and value.startswith(TEXT_BEARING_CLASSES):
        return "kind of object that shows text"
    uids = [part.strip(" \0") for part in value.split("\\")]
    is_real = keyword not in SOFTWARE_UIDS and any(uid and is_uid_to_report(uid) for uid in uids)
    return "UID of a real object" if is_real else ""


def _judge_statement(keyword: str, value: str) -> str:
    if keyword in ("BurnedInAnnotation", "RecognizableVisualFeatures"):
        return "" if value.upper() == "NO" else "says that pixels identify"
    if keyword == "PatientIdentityRemoved":
        return "" if value.upper() == "YES" else "says that the identity was not removed"
    return ""


def _judge_content(vr: str, value: str) -> str:
    if vr in ("DS", "IS"):
        return "" if NUMBER.fullmatch(value) else "text in place of a number"
    if vr == "CS" and not CODE.fullmatch(value):
        return "text in place of a code"
    kinds = kinds_in_text(value)
    if kinds:
        return kinds[0]
    return "person's name" if vr in ("LO", "SH", "ST") and looks_like_person(value, strict=True) else ""
