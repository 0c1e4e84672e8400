"""The supply chain: pins, licences, the bill of materials, and scripts of the canvas."""

import json
import re
from importlib.metadata import requires

import pytest

from tests.faults.supply import ROOT, Part, audited, parts, pinned, sbom


def test_no_dependency_is_copyleft_and_each_declares_a_licence() -> None:
    for part in parts():
        if part.installed is not None:
            assert part.licence, f"{part.name} declares no licence"
            assert not part.copyleft, f"{part.name} is under {part.licence}"


@pytest.mark.parametrize(
    ("licence", "copyleft"),
    [
        ("GPL-3.0-or-later", True), ("GNU General Public License v2 (GPLv2)", True), ("AGPL-3.0", True),
        ("LGPL-2.1-or-later", False), ("MIT OR GPL-2.0", False), ("MIT AND GPL-2.0", True), ("Apache-2.0", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
    ],
)  # fmt: skip
def test_what_counts_as_copyleft(licence: str, copyleft: bool) -> None:
    assert Part("x", "1", "1", licence).copyleft is copyleft


def test_what_is_installed_is_what_is_pinned() -> None:
    for part in parts():
        if part.installed is not None:
            # A local build, "+cpu", is the pinned version for another machine.
            assert part.installed.split("+")[0] == part.pinned, f"{part.name} {part.installed} is not {part.pinned}"


def test_every_direct_dependency_is_pinned() -> None:
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pinned()}
    for line in requires("gfviz") or []:
        name, _, marker = line.partition(";")
        if "extra" not in marker or "'app'" in marker or '"app"' in marker:
            direct = re.split(r"[<>=\[ ]", name.strip())[0].replace("_", "-").lower()
            assert direct in names, f"{direct} has no tested version in constraints.txt"


def test_the_bill_of_materials_names_every_pin() -> None:
    bill = json.loads(json.dumps(sbom()))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert {(item["name"], item["version"]) for item in bill["components"]} == set(pinned().items())
    references = [item["bom-ref"] for item in bill["components"]]
    assert len(set(references)) == len(references)
    assert bill["dependencies"][0]["dependsOn"] == references
    assert all(item["licenses"][0]["license"]["name"] for item in bill["components"])


def test_the_canvas_is_built_of_locked_packages_under_free_licences() -> None:
    lock = json.loads((ROOT / "app" / "canvas" / "package-lock.json").read_text("utf-8"))
    packages = {name: about for name, about in lock["packages"].items() if name}
    assert packages
    for name, about in packages.items():
        assert about.get("integrity", "").startswith("sha512-"), f"{name} is not locked to its content"
        assert about.get("license"), f"{name} declares no licence"
        assert not Part(name, "", "", about["license"]).copyleft, f"{name} is under {about['license']}"


def test_pins_that_nobody_could_look_up_are_not_called_safe() -> None:
    unknown = {"name": "torch", "skip_reason": "Dependency not found on PyPI and could not be audited: torch (2.13.0)"}
    flawed = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}]}
    text, count = audited(json.dumps({"dependencies": [unknown, flawed], "fixes": []}))
    assert count == 1
    assert text.splitlines() == [
        "known vulnerabilities: 1 in 1 of 2 dependencies; 1 could not be looked up", "jinja2 2.10: PYSEC-2019-217",
    ]  # fmt: skip
