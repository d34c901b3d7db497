"""Write the scores of a finished evaluation into tiny's model card: ``python scripts/model_card.py``.

Reads runs/evaluation/tiny_world/scores.json, which ``videollm evaluate eval_configs/tiny_world.yaml`` writes, and
replaces what stands between the two marks in videollm/assets/tiny/MODEL_CARD.md.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CARD = ROOT / "videollm/assets/tiny/MODEL_CARD.md"
BEGIN, END = "<!-- scores: begin -->", "<!-- scores: end -->"


def tables(scores: dict) -> str:
    """The cells as Markdown: a table a condition, a line a question type, ``score (baseline)`` in each cell."""
    cells = scores["cells"]
    parts: list[str] = []
    for condition in dict.fromkeys(cell["condition"] for cell in cells):
        here = [cell for cell in cells if cell["condition"] == condition]
        rows = list(dict.fromkeys(cell["row"] for cell in here))
        lines = [f"### {condition}", "", "| question | " + " | ".join(rows) + " |", "|---|" + "---|" * len(rows)]
        for kind in sorted({cell["type"] for cell in here}):
            found = {cell["row"]: cell for cell in here if cell["type"] == kind}
            texts = [
                f"{found[row]['score']:.2f} ({found[row]['baseline']:.2f})" if row in found else "" for row in rows
            ]
            lines.append(f"| {kind} | " + " | ".join(texts) + " |")
        fewest = min(cell["count"] for cell in here)
        lines += ["", f"Questions a cell: {fewest} to {max(cell['count'] for cell in here)}.", ""]
        parts.append("\n".join(lines))
    parts.append("### Refusing and inventing\n\n" + "\n".join(f"* {line}" for line in scores["honesty"]) + "\n")
    return "\n".join(parts)


def main() -> None:
    """Replace the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", default=str(ROOT / "runs/evaluation/tiny_world/scores.json"))
    args = parser.parse_args()
    scores = json.loads(Path(args.scores).read_text(encoding="utf-8"))
    card = CARD.read_text(encoding="utf-8")
    before, rest = card.split(BEGIN)
    after = rest.split(END)[1]
    CARD.write_text(f"{before}{BEGIN}\n\n{tables(scores)}\n{END}{after}", encoding="utf-8")
    print(CARD)


if __name__ == "__main__":
    main()
