"""Errors a user meets, each with the exit code of the command line.

::

    TestbedError            base; never raised itself
    |-- CheckFailed    1    a check or test found a difference
    |-- BadInput       2    bad usage, bad topology file; nothing was created
    |-- LabError       3    a lab could not be built or reached; it was rolled back
    `-- MachineLacks   4    this machine lacks something; says what to install
"""

from __future__ import annotations


class TestbedError(Exception):
    """Base of every error that ends a command with one clear message."""

    exit_code = 3
    __test__ = False  # pytest must not take the name for a test class


class CheckFailed(TestbedError):
    """A check ran to its end and the result differs from what is expected."""

    exit_code = 1


class BadInput(TestbedError):
    """The user's input is wrong: names the place (file, line, key) and the remedy."""

    exit_code = 2


class LabError(TestbedError):
    """A lab could not be built, changed or reached."""

    exit_code = 3


class MachineLacks(TestbedError):
    """The machine lacks a program, a kernel feature or a right."""

    exit_code = 4
