"""Prometheus text, as far as the tests read it."""

import re

_LINE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Metrics:
    def __init__(self, text):
        self.text = text
        self.samples = []  # (name, {label: value}, number)
        for line in text.splitlines():
            if not line or line.startswith("#"):
                continue
            match = _LINE.match(line)
            assert match, f"not a line of the Prometheus text format: {line!r}"
            self.samples.append((match[1], dict(_LABEL.findall(match[2] or "")), float(match[3])))
        seen = set()
        for name, labels, _ in self.samples:
            series = (name, *sorted(labels.items()))
            assert series not in seen, f"twice, so Prometheus would refuse the whole page: {series}"
            seen.add(series)

    def values(self, name, **labels):
        return [number for sample, has, number in self.samples
                if sample == name and all(has.get(key) == value for key, value in labels.items())]

    def total(self, name, **labels):
        """The sum over all series with these labels; 0 when there are none."""
        return sum(self.values(name, **labels))

    def names(self):
        return {sample for sample, _, _ in self.samples}

    def outcomes(self):
        """{outcome: requests}, summed over models, zero ones left out."""
        counts = {}
        for sample, labels, number in self.samples:
            if sample == "llm_requests_total" and number:
                counts[labels["outcome"]] = counts.get(labels["outcome"], 0) + int(number)
        return counts
