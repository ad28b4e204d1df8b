"""Words about a checkpoint that follow from its index entry alone: its card and its values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zoo.nn.options import OptionGroup

__all__ = ["brief", "card", "value"]

# What the grid shows, by the entry's `pictures`, and how one gets such images.
PICTURES = {
    "samples": (
        "64 samples, seed 0, not selected",
        "images = model.sample(64, seed=0)  # (N, C, H, W) in [-1, 1]",
    ),
    "translations": (
        "12 test images, not selected, and their translations",
        'translations = model.translate(images, "{target}")  # both (N, C, H, W) in [-1, 1]',
    ),
    "reconstructions": (
        "32 images, not selected, each above its reconstruction",
        "reconstructions = model.reconstruct(images)  # both (N, C, H, W) in [-1, 1]",
    ),
    "assembled images": (
        "32 images, not selected, each above what is made of patches of it",
        "images, masks = model.assemble(patches, seed=0)  # of patches (N, P, C, H, W) in [-1, 1]",
    ),
    "similarities": ("", "fit = model.encode(images) @ model.encode_text(captions).T  # of (N, C, H, W) in [-1, 1]"),
    "probabilities": ("", "probabilities = model.classify(images)  # (N, K) of (N, C, H, W) in [-1, 1]"),
}
# The change that float16 weights may cause.
LITTLE = {"log p": "0.01 % of it", "probabilities": "1 percentage point", "similarities": "0.01"}


def value(metric: dict[str, Any], number: float | None = None) -> str:
    """A published value in words, with digits that fit its size, and a percent sign where it is a percentage.

    Args:
        metric: an entry's metric; its `value` sets the digits.
        number: another number in the same form, such as its tolerance.
    """
    size = abs(metric["value"])
    percent = metric.get("unit") == "%"
    # One image of 10,000 is 0.01 %; three digits that count otherwise.
    limits = ((1, 10.0), (2, 1.0), (3, 0.1), (4, 0.01), (5, 0.001))
    digits = 2 if percent else next((n for n, limit in limits if size >= limit), 6 if size else 4)
    number = metric["value"] if number is None else number
    # A number that is far smaller than the value would be 0.
    form = ".1g" if number and abs(number) < 0.5 * 10**-digits else f".{digits}f"
    return f"{number:{form}}{' %' if percent else ''}"


def brief(protocol: str) -> str:
    """A protocol in a few words: the features and the number of images, or the images that were measured.

    Args:
        protocol: such as `fd[features=efficientnet-lite0, ..., fake=5000, weights=ema]`.
    """
    facts = dict(fact.split("=", 1) for fact in protocol.partition("[")[2].rstrip("]").split(", ") if "=" in fact)
    words = [facts[name] for name in ("features", "test", "usual", "real") if name in facts][:1]
    words += [f"{facts['fake']} images"] if "fake" in facts else []
    return ", ".join(words)


def default_arguments(class_path: str) -> dict[str, Any]:
    """Arguments of a class with their defaults, as plain types: its own and those that it passes on to its bases.

    Args:
        class_path: a class of this package.
    """
    import inspect
    from importlib import import_module

    module, _, name = class_path.rpartition(".")
    defaults: dict[str, Any] = {}
    kind = getattr(import_module(module), name)
    while True:
        parameters = inspect.signature(vars(kind).get("__init__", kind)).parameters.values()
        own = {p.name: p.default for p in parameters if p.default is not p.empty}
        defaults = own | defaults
        passes_on = any(p.kind is p.VAR_KEYWORD for p in parameters)
        bases = [base for base in kind.__mro__[1:] if "__init__" in vars(base)]
        if not (passes_on and bases and bases[0].__module__.startswith("zoo.")):
            return {key: _plain(value) for key, value in defaults.items()}
        kind = bases[0]


def _plain(value: Any) -> Any:
    """A default as a configuration or a header holds it."""
    if isinstance(value, OptionGroup):
        return value.fields()
    return list(value) if isinstance(value, tuple) else value


def _chosen(entry: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters that differ from the defaults of the class."""
    if not entry["class"].startswith("zoo."):  # importing a class of another package runs its code
        return dict(entry["hparams"])
    defaults = default_arguments(entry["class"])
    return {key: value for key, value in entry["hparams"].items() if key not in defaults or defaults[key] != value}


COLUMNS = (
    ("chance", "chance", "{}"),
    ("standard_error", "standard error", "{}"),
    ("deviation", "deviation over seeds", "{}"),
    ("better_untrained", "untrained, better", "{}"),
    ("tolerance", "tolerance", "±{}"),
)


def _measured(metrics: list[dict[str, Any]]) -> list[str]:
    """The table of the values, with the columns that any of them fills."""
    rows = [metric | {"better_untrained": _better_untrained(metric)} for metric in metrics]
    columns = [column for column in COLUMNS if any(row.get(column[0]) is not None for row in rows)]
    lines = [
        f"| value | {' | '.join(title for _, title, _ in columns)} | protocol |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in rows:
        cells = [form.format(value(row, row[key])) if row.get(key) is not None else "" for key, _, form in columns]
        lines.append(f"| {row['name']} {value(row)} | {' | '.join(cells)} | `{row['protocol']}` |")
    return lines


def _better_untrained(metric: dict[str, Any]) -> float | None:
    """The value of the untrained model, where it is better than that of the trained one."""
    untrained: float | None = metric.get("untrained")
    if untrained is None:
        return None
    is_better = untrained < metric["value"] if metric["better"] == "lower" else untrained > metric["value"]
    return untrained if is_better else None


def card(slug: str, entry: dict[str, Any], address: str | None = None, *, picture: str | None = "") -> str:
    """The card of a checkpoint. What nobody has measured or said is left out.

    Args:
        slug: its name.
        entry: its index entry.
        address: name or address by which a reader loads it; by default its name.
        picture: file of its picture, by default `<slug>.png`; None for no picture.
    """
    address = slug if address is None else address
    title, use = PICTURES[entry.get("pictures", "samples")]
    if columns := entry.get("columns"):
        title, use = f"{title}; columns: {', '.join(columns)}", use.format(target=entry["targets"][-1])
    lines = [f"# {slug}", ""]
    if title and picture is not None:
        lines += [f"![{title}]({picture or f'{slug}.png'})", ""]
    lines += [*([entry["note"], ""] if "note" in entry else []), "| | |", "|---|---|"]
    lines += [f"| {name} | {text} |" for name, text in _facts(entry)]
    if entry.get("metrics"):
        lines += ["", "## Measured", "", *_measured(entry["metrics"])]
        for metric in entry["metrics"]:
            if metric["history"]:
                history = ", ".join(
                    f"{value({**metric, 'value': number})} at step {step:,}" for step, number in metric["history"]
                )
                lines += ["", f"{metric['name']} during training: {history}."]
        lines += ["", f"`zoo verify {address}` measures again."]
    package = entry["class"].partition(".")[0]
    trust = "" if package == "zoo" else f', trust=["{package}"]'
    lines += ["", "## Use", "", "```python", "import zoo", "", f'model = zoo.load("{address}"{trust})']
    lines += [*([use] if {"pictures", "training"} & entry.keys() else []), "```", ""]
    return "\n".join(lines)


def _facts(entry: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Rows of the card's first table."""
    yield "class", f"`{entry['class']}`"
    yield "hyperparameters", ", ".join(f"`{k}={v}`" for k, v in _chosen(entry).items()) or "the defaults"
    count = f"{entry['parameters']:,} in " if "parameters" in entry else ""
    yield "parameters", count + ", ".join(entry["networks"])
    if "recipe" in entry:
        recipe = f"`zoo fit --config {entry['recipe']}`" if entry["recipe"] else "none: the run's own configuration"
        if entry["changed"]:
            recipe += " with " + ", ".join(f"`{key}={value}`" for key, value in entry["changed"].items())
        yield "recipe", recipe
    if data := entry.get("data"):
        yield "data", f"{data['name']}, licence {data['licence']}"
    if training := entry.get("training"):
        # Batches of a model that grows are of many sizes.
        images = f", {training['images']:,} images" if "images" in training else f" of {training['batch_size']} images"
        yield "training", f"{training['steps']:,} steps{images}, {training['precision']}, seed {training['seed']}"
    if selected := entry.get("selected"):
        yield "chosen by", f"values of the {selected} split: options or checkpoint"
    if training and (start := training.get("start")):
        steps = f" after {start['steps']:,} steps" if "steps" in start else ""
        minutes = f" and {start['seconds'] / 60:.0f} minutes" if "seconds" in start else ""
        yield "started from", f"{start['name']}{steps}{minutes}, sha256 `{start['sha256'][:16]}`"
    if training and (commit := training.get("commit")):
        yield "trained by", f"commit {commit}"
    if training and training["seconds"]:
        yield "time", f"{training['seconds'] / 60:.0f} minutes with measurements on {training['hardware']}"
    if full := entry.get("full"):
        yield "full file", f"{full['bytes'] / 2**20:.1f} MiB with {', '.join(full['networks'])}: to train on"
    stored = f", {entry['stored']}" if "stored" in entry else ""
    yield "file", f"{entry['bytes'] / 2**20:.1f} MiB{stored}"
    if "rounding" in entry:
        compared = entry.get("compared", entry.get("pictures", "samples"))
        # Older files were judged by their worst pixel.
        little = LITTLE.get(compared, "0.29 on average" if "on average" in entry["rounding"] else "2")
        yield "float16", f"changes {compared} by {entry['rounding']}; it is taken where that is below {little}"
    yield "sha256", f"`{entry['sha256']}`"
    yield "written by", ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
