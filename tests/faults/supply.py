"""Supply chain: `python -m tests.faults.supply [--sbom FILE]`: licences of all dependencies, and the list as CycloneDX.

Everything is read from what is installed (`importlib.metadata`); nothing is fetched.
"""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from email.message import Message
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import cast

ROOT = Path(__file__).resolve().parents[2]
# Licences whose terms would reach the program that imports the package.
_COPYLEFT = re.compile(r"\b(A?GPL|GNU (Affero )?General Public|SSPL|Server Side Public|EUPL|OSL-|CC-BY-(NC|SA))", re.I)
# The lesser ones leave an importing program its own licence.
_LESSER = re.compile(r"\b(LGPL|GNU (Lesser|Library) General Public)", re.I)
_CLASSIFIER = "License :: "


@dataclass(frozen=True)
class Part:
    """One installed dependency at its pinned version; `licence` is what its metadata declare, "" where nothing."""

    name: str
    pinned: str
    installed: str | None
    licence: str

    @property
    def copyleft(self) -> bool:
        """Whether every way to take it is under a licence that reaches the importing program."""
        choices = re.split(r"\bOR\b|\n", _LESSER.sub("", self.licence))
        return all(_COPYLEFT.search(choice) for choice in choices)


def pinned() -> dict[str, str]:
    """Names and versions in constraints.txt, gfviz itself left out."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = [line.split("==") for line in lines if line.strip() and not line.startswith("#")]
    return {name.strip(): version.split(";")[0].strip() for name, version in pairs if name != "gfviz"}


def parts() -> list[Part]:
    """Every pinned dependency with the licence it declares."""
    found = []
    for name, version in sorted(pinned().items()):
        try:
            about = distribution(name)
        except PackageNotFoundError:
            found.append(Part(name, version, None, ""))
        else:
            found.append(Part(name, version, about.version, declared(about)))
    return found


def declared(about: Distribution) -> str:
    """The licence in a distribution's metadata: SPDX expression, else classifiers, else the first line of the field."""
    fields = cast(Message, about.metadata)
    expression = fields.get("License-Expression")
    if expression:
        return str(expression)
    classified = [
        text.rsplit(" :: ", 1)[-1]
        for text in fields.get_all("Classifier") or []
        if text.startswith(_CLASSIFIER) and not text.endswith("OSI Approved")
    ]
    if classified:
        return "\n".join(classified)
    return str(fields.get("License") or "").strip().split("\n")[0][:200]


def sbom() -> dict[str, object]:
    """The dependencies as a CycloneDX 1.5 document."""
    about = distribution("gfviz")
    components = [
        {
            "type": "library", "bom-ref": f"pkg:pypi/{part.name}@{part.pinned}", "name": part.name,
            "version": part.pinned, "purl": f"pkg:pypi/{part.name}@{part.pinned}",
            "licenses": [{"license": {"name": part.licence.replace("\n", " OR ") or "not declared"}}],
        }
        for part in parts()
    ]  # fmt: skip
    program = {
        "type": "application", "bom-ref": f"pkg:pypi/gfviz@{about.version}", "name": "gfviz", "version": about.version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }  # fmt: skip
    return {
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {"component": program, "tools": [{"name": "tests.faults.supply"}]},
        "components": components,
        "dependencies": [{"ref": program["bom-ref"], "dependsOn": [item["bom-ref"] for item in components]}],
    }  # fmt: skip


def audited(report: str) -> tuple[str, int]:
    """What a JSON report of pip-audit says of the pins, and how many vulnerabilities it knows.

    A pin that its database does not hold is passed over there without a word in the summary; here it is counted.

    >>> audited('{"dependencies": [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "no"}]}')
    ('known vulnerabilities: 0 in 1 of 2 dependencies; 1 could not be looked up', 0)
    """
    listed = json.loads(report)["dependencies"]
    known = [item for item in listed if "skip_reason" not in item]
    found = [f"{item['name']} {item['version']}: {flaw['id']}" for item in known for flaw in item["vulns"]]
    skipped = len(listed) - len(known)
    text = f"known vulnerabilities: {len(found)} in {len(known)} of {len(listed)} dependencies"
    return "\n".join([text + (f"; {skipped} could not be looked up" if skipped else ""), *found]), len(found)


def main() -> int:
    """Print what is declared; exit code 1 where a dependency is copyleft or declares nothing, or is vulnerable."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.supply", description=__doc__)
    parser.add_argument("--sbom", type=Path, help="write the CycloneDX document to this file")
    parser.add_argument("--audited", type=Path, help="count what this JSON report of pip-audit knew, and no more")
    asked = parser.parse_args()
    if asked.audited is not None:
        text, count = audited(asked.audited.read_text("utf-8"))
        print(text)
        return 1 if count else 0
    listed = parts()
    bad = [part for part in listed if part.installed is not None and (part.copyleft or not part.licence)]
    if asked.sbom is not None:
        asked.sbom.write_text(json.dumps(sbom(), indent=1) + "\n")
    present = [part for part in listed if part.installed is not None]
    print(f"{len(listed)} dependencies pinned, {len(present)} installed, {len(bad)} with an unfit or unknown licence")
    for part in bad:
        print(f"{part.name} {part.pinned}: {part.licence or 'no licence declared'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
