#!/usr/bin/python3
"""Real data that every Debian machine has: is a package a library, by the words of its description?

Reads `apt-cache dumpavail` on standard input and writes LIBSVM text: one row a package, tf-idf of the words as unit
rows over the 12,000 words that occur in most packages, +1 for a library (Section libs, libdevel or oldlibs), -1
otherwise. A tenth of the rows, chosen by a hash of the package's name, goes to the second file.

    apt-cache dumpavail | debian_descriptions.py train.svm heldout.svm
"""

import collections
import math
import re
import sys
import zlib

WORDS = 12000
WORD = re.compile(r"[a-z][a-z0-9+]+")


def packages(lines):
    """Yields (name, is it a library, words of the description)."""
    name, section, text, inside = None, "", [], False
    for line in lines:
        if line == "\n":
            if name and text:
                yield name, section, text
            name, section, text, inside = None, "", [], False
        elif line[0] == " ":  # goes on
            if inside:
                text.append(line)
        else:
            key, _, value = line.partition(":")
            inside = key in ("Description", "Description-en")
            if inside:
                text.append(value)
            elif key == "Package":
                name = value.strip()
            elif key == "Section":
                section = value.strip().rpartition("/")[2]
    if name and text:
        yield name, section, text


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    rows, seen = [], set()
    documents = collections.Counter()
    sys.stdin.reconfigure(encoding="utf-8", errors="replace")
    for name, section, text in packages(sys.stdin):
        words = collections.Counter(WORD.findall(" ".join(text).lower()))
        if name in seen or not words:
            continue  # another version of the same package
        seen.add(name)
        rows.append((name, section in ("libs", "libdevel", "oldlibs"), words))
        documents.update(words.keys())

    chosen = sorted(documents, key=lambda word: (-documents[word], word))[:WORDS]
    column = {word: j + 1 for j, word in enumerate(sorted(chosen))}
    idf = {word: math.log(len(rows) / documents[word]) for word in chosen}

    with open(sys.argv[1], "w") as train, open(sys.argv[2], "w") as heldout:
        for name, library, words in rows:
            entries = [(column[w], (1 + math.log(n)) * idf[w]) for w, n in words.items() if w in column]
            norm = math.sqrt(sum(value * value for _, value in entries)) or 1.0
            cells = " ".join(f"{j}:{value / norm:.6g}" for j, value in sorted(entries))
            out = heldout if zlib.crc32(name.encode()) % 10 == 0 else train
            out.write(f"{'+1' if library else '-1'} {cells}\n")
    print(f"{len(rows)} packages, {len(chosen)} words")


if __name__ == "__main__":
    main()
