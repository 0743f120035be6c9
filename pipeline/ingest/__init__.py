"""Stage ingest: from a folder of scans to a pseudonymous, harmonised cohort."""
