"""Speed, memory, size, cost, and where it was measured."""

from __future__ import annotations

from distillkit.reports.html.elements import Child, Markup, element, together
from distillkit.reports.html.writer import Form, Writer, finite, looked_up

_FIGURES: tuple[tuple[str, str, Form], ...] = (
    ("cost.train.tokens", "metrics.train.tokens", "count"),
    ("cost.train.steps", "metrics.train.steps", "count"),
    ("cost.train.speed", "metrics.train.tokens_per_second", "plain"),
    ("cost.train.memory", "metrics.train.peak_memory_bytes", "bytes"),
    ("cost.pass.tokens", "metrics.teacher_pass.tokens", "count"),
    ("cost.pass.speed", "metrics.teacher_pass.tokens_per_second", "plain"),
    ("cost.pass.cache", "metrics.teacher_pass.cache_bytes", "bytes"),
    ("cost.control.speed", "control.train.tokens_per_second", "plain"),
    ("cost.texts.written", "metrics.teacher_texts.written", "count"),
    ("cost.texts.kept", "metrics.teacher_texts.kept", "count"),
    ("cost.server.requests", "metrics.teacher_server.requests", "count"),
    ("cost.server.prompt", "metrics.teacher_server.prompt_tokens", "count"),
    ("cost.server.completion", "metrics.teacher_server.completion_tokens", "count"),
    ("cost.size.student", "validation.after.size_bytes", "bytes"),
    ("cost.size.teacher", "validation.teacher.size_bytes", "bytes"),
    ("cost.speed.student", "validation.after.generated_tokens_per_second", "plain"),
    ("cost.speed.teacher", "validation.teacher.generated_tokens_per_second", "plain"),
)


def cost(w: Writer) -> Markup:
    """The section."""
    rows: list[tuple[Child, Child]] = []
    for key, path, form in _FIGURES:
        file, *keys = path.split(".")
        if finite(looked_up(w.facts.content(file), keys)) is not None:
            rows.append((w(key), w.figure(path, form)))
    return w.section(
        "cost", _times(w), element("h3", w("cost.figures")), w.pairs(rows) if rows else w.missing("cost.missing"),
        _decisions(w), _environment(w),
    )  # fmt: skip


def _times(w: Writer) -> Markup:
    seconds = {name: record.seconds for name, record in w.facts.stages.items() if record.seconds is not None}
    if not seconds:
        return w.missing("cost.no_times")
    rows: list[list[Child]] = [[w(f"stage.{name}") if w.has(f"stage.{name}") else element("code", name),
                                w.derived(value, "seconds")] for name, value in seconds.items()]  # fmt: skip
    rows.append([w("cost.total"), w.derived(sum(seconds.values()), "seconds")])
    return w.table(w.text("cost.times"), [w("cost.stage"), w("cost.time")], rows)


def _decisions(w: Writer) -> Markup | None:
    decided = w.facts.metrics.get("decisions") or {}
    rows: list[tuple[Child, Child]] = [(element("code", name), str(value)) for name, value in decided.items()]
    return together(element("h3", w("cost.decisions")), w.pairs(rows)) if rows else None


def _environment(w: Writer) -> Markup:
    device = w.facts.device
    rows: list[tuple[Child, Child]] = []
    if device:
        kind, name = (str(device.get(key, "–")) for key in ("type", "name"))
        rows.append((w("cost.device"), kind if kind == name else f"{kind}, {name}"))
        rows.append((w("cost.precision"), str(device.get("precision", "–"))))
        forms: dict[str, Form] = {"threads": "count", "memory_total": "bytes"}
        rows += [
            (w(f"cost.{key}"), w.figure(f"device.{key}", form))
            for key, form in forms.items()
            if finite(device.get(key)) is not None
        ]
    versions = [f"distillkit {w.facts.version}", *(f"{name} {value}" for name, value in w.facts.versions.items())]
    rows.append((w("cost.versions"), ", ".join(versions)))
    return together(element("h3", w("cost.environment")), w.pairs(rows))
