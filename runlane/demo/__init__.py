"""`runlane demo`: runs seen from a terminal, whose workers die, and one that needs a person."""

from runlane.demo.play import run_demo

__all__ = ["run_demo"]
