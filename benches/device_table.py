"""One table from the records of `device` and, where there is one, `device_peers.py`.

    device_table.py WGLOSS.json [PEERS.json]

A row a work: GB/s of the bytes that must move, and the share of the copy that was measured in the same run.
"""

import json
import sys

COLUMNS = {
    "wgloss": ["wgloss"],
    "torch eager": ["torch eager"],
    "torch.compile": ["torch.compile"],
    "liger": ["liger"],
    "quack": ["quack", "quack fused"],
}


def read(path):
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return {"lines": []}


def key(line):
    return line["work"], line["dtype"], line["rows"], line["cols"]


def cell(runs, names):
    """The fastest of the runs of these names."""
    found = [runs[name] for name in names if name in runs]
    timed = [run for run in found if "gb_per_s" in run]
    if not timed:
        return "failed" if found else "-"
    best = max(timed, key=lambda run: run["gb_per_s"])
    return f"{best['gb_per_s']:.1f} ({100 * best['share_of_copy']:.0f} %)"


def copy(*lines):
    return " / ".join(f"{line['copy']['gb_per_s']:.1f}" if "copy" in line else "-" for line in lines)


def main(own_path, peers_path=None):
    own, peers = read(own_path), read(peers_path) if peers_path else {"lines": []}
    by_key = {}
    for place, record in enumerate((own, peers)):
        for line in record["lines"]:
            by_key.setdefault(key(line), [{}, {}])[place] = line
    rows = [["work", "dtype", "rows x cols", *COLUMNS, "copy: wgpu / torch"]]
    for (work, dtype, lines, cols), (mine, theirs) in by_key.items():
        runs = {**theirs.get("runs", {}), **mine.get("runs", {})}
        cells = [cell(runs, names) for names in COLUMNS.values()]
        for word in ("wrong", "skipped"):
            if word in mine:
                cells[0] = word
        rows.append([work, dtype, f"{lines} x {cols}", *cells, copy(mine, theirs)])
    versions = ", ".join(f"{name} {version}" for name, version in peers.get("versions", {}).items())
    print("GB/s of the bytes that must move (share of the copy measured in the same run)")
    print(f"wgloss {own.get('commit', 'not run')}: {own.get('adapter')}, {own.get('driver')}, {own.get('timer')}")
    print(f"peers {versions or 'not run'}: {peers.get('adapter')}, {peers.get('timer')}")
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for place, row in enumerate(rows):
        print("| " + " | ".join(text.ljust(width) for text, width in zip(row, widths)) + " |")
        if place == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    for line in own["lines"] + peers["lines"]:
        faults = {name: run["fault"] for name, run in line.get("runs", {}).items() if "fault" in run}
        faults.update({word: line[word] for word in ("wrong", "skipped") if word in line})
        for name, fault in faults.items():
            print(f"{line['work']} {line['dtype']} {line['rows']} x {line['cols']}, {name}: {fault}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
