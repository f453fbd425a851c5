"""`ratchet doctor`: is this machine, with this configuration, fit to serve and to learn?"""

from ratchet.doctor.checks import Finding, examine

__all__ = ["Finding", "examine"]
