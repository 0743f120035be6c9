"""Stage generate: the synthetic cohort."""
