"""The built-in cohort: atlas anatomy, grown tumours, MR contrast, written as NIfTI or DICOM."""
