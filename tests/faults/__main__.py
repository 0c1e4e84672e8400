"""`python -m tests.faults --kills N --inputs N [--json]`: what the README's figures of reliability come from."""

import argparse
import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def main() -> int:
    """Run the campaign; exit code 1 where something was lost or a parser crashed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=0, help="processes to kill with SIGKILL")
    parser.add_argument("--inputs", type=int, default=0, help="hostile inputs to give to the parsers")
    parser.add_argument("--only", help="kinds of process to kill, with commas between (all if left out)")
    parser.add_argument("--parsers", help="parsers to try, with commas between (all if left out)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the inputs")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--out", type=Path, help="also write the JSON to this file")
    asked = parser.parse_args()

    def say(text: str) -> None:
        if not asked.json:
            print(text, flush=True)

    began = time.time()
    report: dict[str, object] = {
        "kills": 0, "survived": 0, "lost": 0, "kills_by_kind": {},
        "inputs": 0, "inputs_by_parser": {}, "crashes": 0, "findings": [],
    }  # fmt: skip
    findings: list[str] = []
    if asked.kills:
        import torch

        torch.set_num_threads(1)
        from tests.faults.kills import campaign

        found = asdict(campaign(asked.kills, asked.seed, say, asked.only.split(",") if asked.only else None))
        findings += found.pop("findings")
        report |= {"kills_by_kind": found.pop("by_kind"), **found}
    if asked.inputs:
        from tests.faults.fuzzing import storm

        tried = storm(asked.inputs, asked.seed, say, asked.parsers.split(",") if asked.parsers else None)
        findings += tried.findings
        report |= {
            "inputs": tried.inputs, "inputs_by_parser": tried.by_parser, "crashes": tried.crashes,
            "engine": tried.engine,
        }  # fmt: skip
    report |= {
        "findings": findings,
        "seed": asked.seed,
        "seconds": round(time.time() - began, 1),
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "command": f"python -m tests.faults {' '.join(sys.argv[1:])}",
    }
    text = json.dumps(report, indent=1)
    print(text)
    if asked.out is not None:
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(text + "\n")
    return 1 if report["lost"] or report["crashes"] else 0


if __name__ == "__main__":
    sys.exit(main())
