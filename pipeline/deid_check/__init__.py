"""Verb deid-check: what a folder or file carries that it should not, named by kind and place, never by value."""
