"""Write the small splits that ship with gfviz: `python -m gfviz.study.tasks --out sample_data/tasks`."""

import argparse
from pathlib import Path

from gfviz.study.tasks import FAMILIES, make_split, write_jsonl

SAMPLE_COUNTS = {"train": 400, "validation": 200, "test": 200}
SAMPLE_SEED = 1


def main() -> None:
    """Write train.jsonl, validation.jsonl and test.jsonl, all families mixed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the three files")
    folder = parser.parse_args().out
    for split, count in SAMPLE_COUNTS.items():
        write_jsonl(folder / f"{split}.jsonl", make_split(list(FAMILIES), split, count, SAMPLE_SEED))


if __name__ == "__main__":
    main()
