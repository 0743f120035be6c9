"""Synthetic brain-tumour MRI cohorts that can be shared: synthesis, audit, gain, gated release."""

__version__ = "0.1.0"
