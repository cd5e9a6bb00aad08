"""What users choose by name, and the code behind each name: one line here registers one more.

The values are import paths, "module:attribute", resolved when the name is used for the first time: listing the names
must not load torch. Stages are registered in `distillkit.stages`, in the order in which they run.

To add a divergence, write a function in `losses/divergences.py` (or any module) and name it in `DIVERGENCES`; an
alignment, a data format or a source of the teacher's targets likewise. Flags, configuration files, the reference pages and
the plan follow from these tables.

Other packages add names through entry points, in the groups that the tables are made with (docs/extending.md). They are looked for
when a name is asked for that this package does not have, or all names are.
"""

from __future__ import annotations

import contextlib
import importlib
import operator
import re
from collections.abc import Collection, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distillkit.errors import PreconditionError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@dataclass(frozen=True)
class Added:
    """A name that an installed package adds.

    Attributes:
        path: "module:attribute".
        package: its name and version, as in "pkg 1.0".
    """

    path: str
    package: str


# "module:attribute", with the extras that an entry point may ask for.
_PATH = re.compile(r"\s*([\w.]+)\s*:\s*([\w.]+)\s*(?:\[.*\]\s*)?")


class Table(MutableMapping[str, str]):
    """Names and import paths: this package's own, and behind them those of other installed packages.

    A name of this package's is never replaced, and a name that two packages claim belongs to neither: `conflicts` says so.

    Args:
        group: of the entry points that add names.
        own: what this package has.
        names: what a name that is added has to match as a whole; `auto` never is one.
    """

    _own_alone = False

    def __init__(self, group: str, own: Mapping[str, str], *, names: str = r"[A-Za-z0-9][\w.+-]*") -> None:
        self.group, self.own, self.names = group, dict(own), names
        self._found: dict[str, Added] | None = None
        self._conflicts: list[str] = []

    @property
    def added(self) -> Mapping[str, Added]:
        """What other packages add."""
        if Table._own_alone:
            return {}
        if self._found is None:
            self._find()
        return self._found or {}

    @property
    def conflicts(self) -> list[str]:
        """What cannot be added, and why."""
        return self._conflicts if self.added is not None else []

    @classmethod
    @contextlib.contextmanager
    def own_alone(cls) -> Iterator[None]:
        """As if no other package were installed, for what is written once for all users."""
        before, cls._own_alone = cls._own_alone, True
        try:
            yield
        finally:
            cls._own_alone = before

    def __getitem__(self, name: str) -> str:
        return self.own[name] if name in self.own else self.added[name].path

    def __setitem__(self, name: str, path: str) -> None:
        self.own[name] = path

    def __delitem__(self, name: str) -> None:
        del self.own[name]

    def __contains__(self, name: object) -> bool:
        return name in self.own or name in self.added

    def __iter__(self) -> Iterator[str]:
        return iter([*self.own, *(name for name in self.added if name not in self.own)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _find(self) -> None:
        from importlib import metadata

        claims: dict[str, dict[str, Added]] = {}
        self._found, self._conflicts = {}, []
        for point in metadata.entry_points(group=self.group):
            package, path = _package(point), _PATH.fullmatch(point.value)
            problem = None
            if package is None:
                problem = "the package that adds it has no readable METADATA"
            elif point.name == "auto" or not re.fullmatch(self.names, point.name, re.ASCII):
                problem = f"{package} cannot call it that, names match {self.names} and are not 'auto'"
            elif path is None:
                problem = f"{package} names no 'module:function' but {point.value!r}"
            if problem is not None or package is None or path is None:
                self._conflicts.append(f"{self.group}: {point.name!r} is left out: {problem}")
                continue
            # A package that is found twice on the path is one.
            claims.setdefault(point.name, {})[package] = Added(":".join(path.groups()), package)
        for name, claim in sorted(claims.items()):
            packages = ", ".join(claim)
            if name in self.own:
                self._conflicts.append(f"{self.group}: {name!r} of {packages} is left out: distillkit has one itself")
            elif len(claim) > 1:
                self._conflicts.append(f"{self.group}: {name!r} is left out: {packages} all claim it")
            else:
                self._found[name] = next(iter(claim.values()))


def _package(point: EntryPoint) -> str | None:
    """Name and version of the package of an entry point; None where its metadata are damaged."""
    try:
        about = point.dist.metadata if point.dist is not None else {}
        name, version = about["Name"], about["Version"]
    # What damaged metadata raise differs between versions of Python.
    except Exception:
        return None
    return f"{name} {version}" if name and version else None


class AutoOr(Collection[str]):
    """`auto` and the names of a table, looked up when they are asked for."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __contains__(self, name: object) -> bool:
        return name == "auto" or name in self.table

    def __iter__(self) -> Iterator[str]:
        yield "auto"
        yield from self.table

    def __len__(self) -> int:
        return 1 + len(self.table)


DIVERGENCES = Table(
    "distillkit.divergences",
    {
        "forward-kl": "distillkit.losses.divergences:forward_kl",
        "reverse-kl": "distillkit.losses.divergences:reverse_kl",
        "jsd": "distillkit.losses.divergences:jensen_shannon",
        "skew-kl": "distillkit.losses.divergences:skew_kl",
        "skew-reverse-kl": "distillkit.losses.divergences:skew_reverse_kl",
        "alpha-beta": "distillkit.losses.divergences:alpha_beta",
        "total-variation": "distillkit.losses.divergences:total_variation",
        "taid": "distillkit.losses.divergences:taid",
    },
)
"""`--divergence`: functions of teacher's and student's log-probabilities [N, V] to [N] nats."""

ALIGNMENTS = Table(
    "distillkit.alignments",
    {
        "bpm": "distillkit.teachers.prefix_targets:byte_prefix",
        "strict": "distillkit.teachers.prefix_targets:strict",
        "alm": "distillkit.training.aligned_objectives:likelihood_matching",
        "uld": "distillkit.training.aligned_objectives:universal_logit",
    },
)
"""`alignment`: functions of (teacher, text encoders, parameters) to a `teachers.protocol.TargetMaker`, the teacher's
distributions in the student's tokens; or to a `training.objectives.Objective`, where the loss is one of its own."""

TEACHER_SOURCES = Table(
    "distillkit.teacher_sources",
    {
        "exact": "distillkit.teachers.sources:open_exact",
        "sparse": "distillkit.teachers.open_sparse:open_sparse",
        "off": "distillkit.teachers.sources:open_live",
    },
)
"""`--teacher-cache`: functions of (context, loader, training rows) to a `teachers.protocol.TeacherSource`."""

# A reader is `def read_xyz(file: DataFile) -> Iterator[Row]`, in a module of distillkit.data: it opens `file.open()`, yields
# `Row(text, f"{file.name}:{line}")` for each text, and raises UsageError for what it cannot use. See data/plain_text.py.
DATA_FORMATS = Table(
    "distillkit.data_formats",
    {
        ".txt": "distillkit.data.plain_text:read_plain_text",
        ".text": "distillkit.data.plain_text:read_plain_text",
        ".md": "distillkit.data.plain_text:read_plain_text",
        ".markdown": "distillkit.data.plain_text:read_plain_text",
        ".jsonl": "distillkit.data.json_rows:read_jsonl",
        ".ndjson": "distillkit.data.json_rows:read_jsonl",
        ".json": "distillkit.data.json_rows:read_json",
        ".csv": "distillkit.data.csv_rows:read_csv",
        ".tsv": "distillkit.data.csv_rows:read_csv",
        ".parquet": "distillkit.data.parquet_rows:read_parquet",
        ".arrow": "distillkit.data.arrow_rows:read_arrow",
        ".feather": "distillkit.data.arrow_rows:read_arrow",
    },
    # Suffixes of files are compared in lower case.
    names=r"\.[a-z0-9_+-]+",
)
"""`--dataset-path`: suffixes of files, each also read packed (`.gz`, `.zst` …), to functions of a `DataFile` to its rows."""

SHARED_WORK: dict[str, str] = {
    "teacher pass": "distillkit.training.following:teacher_pass",
    "train": "distillkit.training.following:train",
}
"""What several processes do together (`distillkit.processes`): functions of (values that process 0 gives, group, console), run
in the processes other than 0."""


def resolve(table: Mapping[str, str], name: str) -> Any:
    """What `table` registers under `name`.

    Raises:
        KeyError: `table` registers nothing under `name`.
        PreconditionError: another package registers it, and its code cannot be loaded.
    """
    module, _, attribute = table[name].partition(":")
    added = table.added.get(name) if isinstance(table, Table) and name not in table.own else None
    if added is None:
        return getattr(importlib.import_module(module), attribute)
    try:
        found = operator.attrgetter(attribute)(importlib.import_module(module))
    # Code of others may raise anything while it is imported, and may even want to end the process.
    except (Exception, SystemExit) as error:
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if isinstance(error, SystemExit):
            reason = f"it ends the process ({reason})"
        raise PreconditionError(
            f"{name!r} of {added.package} ({added.path}) cannot be loaded: {reason}",
            hint=f"mend or update that package, or do without: pip uninstall {added.package.rpartition(' ')[0]}",
        ) from error
    if not callable(found):
        raise PreconditionError(
            f"{name!r} of {added.package} ({added.path}) is no function", hint="update that package, or do without it"
        )
    return found
