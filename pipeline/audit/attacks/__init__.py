"""The attacks, one file each; :mod:`pipeline.audit.attacks.registry` lists them."""
