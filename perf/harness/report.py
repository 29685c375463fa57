"""From samples to medians, ratios and verdicts; and those as a table."""

import random
import statistics

OTHERS = ("haproxy", "nginx")
COLUMNS = (("direct", "direct"), ("corinth", "Corinth"), ("haproxy", "HAProxy"), ("nginx", "nginx stream"))
# From so many samples on an interval of confidence is given; below, the smallest and the largest.
INTERVAL_FROM = 5

IDLE_BYTES_MAX = 15_000_000
CONNECTION_BYTES_MAX = 8 * 1024
CRR_RATIO_MIN = 2.0
# Others may use this share of the machine during a load, and it still counts as quiet.
FOREIGN_MAX = 0.05

MET, MISSED, UNCLEAR, UNKNOWN, NONE = "met", "missed", "unclear", "no data", "–"


class Row:
    """One line of the table: the samples of each system, the goal, and whether it is met."""

    def __init__(self, name, unit, digits, goal="", better="more"):
        self.name, self.unit, self.digits, self.goal, self.better = name, unit, digits, goal, better
        self.samples = {}       # system → values; a round without data has None
        self.ratio = None       # ours to the best of the others, median over the rounds
        self.of_medians = None  # the same made of the medians that the table shows
        self.verdict = NONE

    def values(self, system):
        return [value for value in self.samples.get(system, []) if value is not None]

    def median(self, system):
        values = self.values(system)
        return statistics.median(values) if values else None

    def ratios(self, other):
        """Ours to theirs, in rounds where both have a value above zero: neighbours in time are compared."""
        pairs = zip(self.samples.get("corinth", []), self.samples.get(other, []))
        return [ours / theirs for ours, theirs in pairs if ours is not None and theirs is not None and theirs > 0]

    def compare(self):
        """Sets the ratio to the best of the others. Without one of them there is none."""
        if not all(self.ratios(other) for other in OTHERS):
            return self
        worst = min if self.better == "more" else max
        self.ratio = worst(statistics.median(self.ratios(other)) for other in OTHERS)
        theirs = [self.median(other) for other in OTHERS]
        if min(theirs) > 0:
            self.of_medians = worst(self.median("corinth") / their for their in theirs)
        return self

    def judge_ratio(self, is_met):
        """Two ways to look at the same samples must agree; if they do not, the machine was too noisy to tell."""
        if self.ratio is None or self.of_medians is None:
            self.verdict = UNKNOWN
        elif is_met(self.ratio) != is_met(self.of_medians):
            self.verdict = UNCLEAR
        else:
            self.verdict = MET if is_met(self.ratio) else MISSED
        return self

    def judge_most(self, most):
        ours = self.values("corinth")
        self.verdict = UNKNOWN if not ours else MET if max(ours) <= most else MISSED
        return self

    def cell(self, system):
        values = self.values(system)
        if system not in self.samples:
            return NONE
        if not values:
            return "no data"
        middle = number(statistics.median(values), self.digits)
        if len(values) == 1:
            return middle
        low, high = interval(values)
        lost = len(self.samples[system]) - len(values)
        note = f", {lost} lost" if lost else ""
        return f"{middle} [{number(low, self.digits)} – {number(high, self.digits)}{note}]"

    def as_json(self):
        return {
            "name": self.name, "unit": self.unit, "better": self.better, "goal": self.goal,
            "median": {system: self.median(system) for system in self.samples},
            "interval": {system: interval(self.values(system)) for system in self.samples if self.values(system)},
            "samples": self.samples, "ratio_to_best_of_others": self.ratio,
            "ratio_of_medians": self.of_medians, "verdict": self.verdict,
        }


def number(value, digits):
    return f"{value:,.{digits}f}"


def interval(values):
    """95 % interval of the median by resampling, or the smallest and the largest of few values."""
    if len(values) < INTERVAL_FROM:
        return [min(values), max(values)]
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(values, k=len(values))) for _ in range(2000))
    return [medians[50], medians[1949]]


def rows(results):
    """The rows of the table. `results` maps measure → system → list of samples, None where there was no data."""
    table = []

    def row(measure, field, *arguments, **named):
        made = Row(*arguments, **named)
        for system, samples in results[measure].items():
            made.samples[system] = [None if sample is None else pick(sample, field) for sample in samples]
        table.append(made)
        return made

    bulks = [(streams, way) for streams in (1, 8) for way in ("up", "down") if f"bulk-{streams}-{way}" in results]
    for streams, way in bulks:
        name = f"bulk, {streams} stream{'s' if streams > 1 else ''}, {way}"
        made = row(f"bulk-{streams}-{way}", "gbps", name, "Gb/s", 2, "ahead of both")
        made.compare().judge_ratio(lambda ratio: ratio > 1)
    for streams, way in bulks:
        name = f"CPU for it, {streams} stream{'s' if streams > 1 else ''}, {way}"
        row(f"bulk-{streams}-{way}", "cpu_s_per_gb", name, "CPU-s per GB", 3, better="less").compare()
    if "crr" in results:
        made = row("crr", "per_second", "new connections", "per second", 0, "≥ 2 × both")
        made.compare().judge_ratio(lambda ratio: ratio >= CRR_RATIO_MIN)
        row("crr", "cpu_s_per_1000", "CPU for them", "CPU-s per 1,000", 3, better="less").compare()
    if "rr" in results:
        row("rr", "p50_us", "request on a kept connection, p50", "µs", 0, better="less")
        row("rr", "p99_us", "request on a kept connection, p99", "µs", 0, better="less")
        for field, name, goal in (("p50_us", "p50", "≤ both"), ("p99_us", "p99", "")):
            table.append(added(results["rr"], field, f"added by the gateways, {name}", goal))
    if "idle" in results:
        made = row("idle", ("idle_bytes", max), "RSS of an idle gateway", "MB", 1, "≤ 15 MB", better="less")
        made.judge_most(IDLE_BYTES_MAX).compare()
        scale(made, 1e6)
        for side, title in (("a", "near"), ("b", "far")):
            name = f"RSS for an idle connection, {title} gateway"
            made = row("idle", ("per_connection", side), name, "bytes", 0, "≤ 8 KiB", better="less")
            made.judge_most(CONNECTION_BYTES_MAX).compare()
    return table


def pick(sample, field):
    """`field` of a sample, or (field, function of the values of both sides), or (field, side)."""
    if isinstance(field, str):
        return sample[field]
    name, choice = field
    return choice(sample[name].values()) if callable(choice) else sample[name][choice]


def scale(row, divisor):
    row.samples = {system: [None if v is None else v / divisor for v in values] for system, values in row.samples.items()}


def added(results, field, name, goal):
    """What each system adds to the direct path, in each round by itself."""
    row = Row(name, "µs", 0, goal, better="less")
    direct = results.get("direct", [])
    for system, samples in results.items():
        if system != "direct":
            pairs = zip(samples, direct)
            row.samples[system] = [None if None in pair else pair[0][field] - pair[1][field] for pair in pairs]
    row.compare()
    return row.judge_ratio(lambda ratio: ratio <= 1) if goal else row


def markdown(table):
    """The table, with a column for every system."""
    lines = [
        "| measure | unit | " + " | ".join(title for _, title in COLUMNS) + " | Corinth / best of others | goal | verdict |",
        "|---|---|" + "---:|" * (len(COLUMNS) + 1) + "---|---|",
    ]
    for row in table:
        ratio = NONE if row.ratio is None else f"{row.ratio:.2f} ×"
        verdict = f"**{row.verdict}**" if row.verdict in (MISSED, UNCLEAR, UNKNOWN) else row.verdict
        cells = [row.name, row.unit, *(row.cell(key) for key, _ in COLUMNS), ratio, row.goal or NONE, verdict]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def noise(results):
    """Largest and median share of the machine that others used, and that was stolen, over all samples."""
    found = [sample for systems in results.values() for samples in systems.values() for sample in samples]
    found = [sample for sample in found if sample and "foreign" in sample]
    if not found:
        return None
    return {
        name: {"median": statistics.median(sample[name] for sample in found), "max": max(s[name] for s in found)}
        for name in ("foreign", "steal")
    }


def noise_text(quiet):
    if quiet is None:
        return ""
    text = "other processes used {median:.1%} of the machine (median; at most {max:.1%})".format(**quiet["foreign"])
    text += ", {median:.1%} was stolen by the host (at most {max:.1%})".format(**quiet["steal"])
    is_quiet = quiet["foreign"]["max"] < FOREIGN_MAX
    return text if is_quiet else text + ". **The machine was not quiet: do not quote these figures**"


BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def write_docs(path, text):
    """Puts `text` between the marker comments of a document."""
    with open(path) as file:
        old = file.read()
    if BEGIN not in old or END not in old.split(BEGIN, 1)[1]:
        raise ValueError(f"{path} does not hold {BEGIN} … {END}")
    head, rest = old.split(BEGIN, 1)
    tail = rest.split(END, 1)[1]
    with open(path, "w") as file:
        file.write(f"{head}{BEGIN}\n\n{text.strip()}\n\n{END}{tail}")
