"""A run's results for programs: plain data and JUnit XML."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree import ElementTree as ET

import msgspec

from testbed.conformance.runner import Result


def plain(results: Sequence[Result]) -> dict[str, Any]:
    """{"statements": [{"number", "text", "source", "verdict", "evidence"}]}."""
    return {"statements": [msgspec.to_builtins(result) for result in results]}


def junit(results: Sequence[Result]) -> str:
    """One test case for each statement."""
    verdicts = [result.verdict for result in results]
    suite = ET.Element(
        "testsuite",
        name="testbed conformance",
        tests=str(len(results)),
        failures=str(verdicts.count("fail")),
        skipped="0",
        errors="0",
    )
    for result in results:
        case = ET.SubElement(
            suite, "testcase", classname="conformance", name=f"{result.number}. {_xml_text(result.text)}"
        )
        evidence = _xml_text(result.evidence)
        if result.verdict == "fail":
            ET.SubElement(case, "failure", message=evidence)
        else:
            ET.SubElement(case, "system-out").text = f"{result.verdict}: {evidence}"
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True)


def _xml_text(text: str) -> str:
    """Without characters that XML 1.0 cannot hold."""
    return "".join(each if each in "\t\n" or each.isprintable() else "?" for each in text)
