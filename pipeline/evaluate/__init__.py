"""Stage evaluate: segmentation with and without synthetic scans."""
