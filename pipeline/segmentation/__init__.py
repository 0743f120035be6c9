"""The segmenter that arms of an evaluation train, and the judge of synthetic scans."""
