"""`ratchet doctor`: whether this machine is fit to serve and learn with this configuration."""

from ratchet.doctor.checks import Finding, examine

__all__ = ["Finding", "examine"]
