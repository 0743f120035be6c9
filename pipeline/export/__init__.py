"""Stage export: the release, behind the privacy gate."""
