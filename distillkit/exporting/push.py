"""`distillkit push`: a student goes to the Hugging Face Hub, as one commit, with its card and with GGUF files if asked."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from distillkit import __version__
from distillkit.console import Console, format_bytes
from distillkit.errors import DistillkitError, PreconditionError, UsageError, first_line
from distillkit.exporting.adapter_files import AdapterFiles, adapter_files
from distillkit.exporting.chosen_student import CARD, ChosenStudent
from distillkit.exporting.export import default_name
from distillkit.exporting.gguf_file import STUDENT_KEY, import_gguf
from distillkit.exporting.number_formats import GGUF_FORMATS
from distillkit.hub import http_status, is_offline, is_unreachable, reason, retry
from distillkit.interrupts import check_interrupted
from distillkit.models.adapters import BASE
from distillkit.models.plain_folder import ADAPTER_CONFIG
from distillkit.reports.adapter_card import card_beside_base
from distillkit.reports.card.page import published_card
from distillkit.silence_libraries import silence_hub
from distillkit.storage import files_below

_TAG = "distillkit"
# Of an earlier student, these would be loaded beside or instead of the new weights.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
# And these would say of what kind it is.
_KINDS = ("config.json", ADAPTER_CONFIG, f"{BASE}/config.json")
# What the Hub puts into a repository that has just been made.
_OF_THE_HUB = (".gitattributes",)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Pushed:
    """What lies on the Hub now.

    Attributes:
        repository: its id.
        url: of its page.
        commit: the newest one.
        private: whether others do not see it.
        files: what this push holds, paths in the repository.
        left: GGUF files of an earlier push that are still there.
    """

    repository: str
    url: str
    commit: str
    private: bool
    files: list[str]
    left: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For --json."""
        return {
            "repository": self.repository, "url": self.url, "commit": self.commit, "private": self.private,
            "files": self.files, "left": self.left,
        }  # fmt: skip


def check_repository_id(repository: str) -> None:
    """Refuse what is no id of a repository.

    Raises:
        UsageError: it is none.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UsageError(f"{repository!r} is no name of a repository", hint="use OWNER/NAME") from error


def gguf_files(student: ChosenStudent, named: Sequence[str]) -> list[Path]:
    """The GGUF files to push.

    Args:
        named: paths, or number formats of files that `distillkit export` has put into the run.

    Raises:
        UsageError: one is not there, or is no GGUF file; two have one name.
        PreconditionError: one was made of another student.
    """
    found: list[Path] = []
    for name in named:
        path = Path(name).expanduser()
        form = name.lower()
        if form in GGUF_FORMATS and not path.exists():
            path = student.run.exports / f"{default_name(student, form)}.gguf"
            if not path.is_file():
                command = f"distillkit export --run {shlex.quote(str(student.run.path))} --dtype {form}"
                raise UsageError(f"--gguf {name}: {path} is not there", hint=f"make it first: {command}")
        _check_gguf(path, name, student)
        if path.name in {other.name for other in found}:
            raise UsageError(f"--gguf: two files are named {path.name}", hint="give each once")
        found.append(path)
    return found


def _check_gguf(path: Path, name: str, student: ChosenStudent) -> None:
    if not path.is_file():
        raise UsageError(f"--gguf: {name!r} does not exist", hint=f"a file, or one of: {', '.join(GGUF_FORMATS)}")
    try:
        made_of = import_gguf().GGUFReader(path).get_field(STUDENT_KEY)
    except (OSError, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
        raise UsageError(f"--gguf: {path} is no GGUF file: {first_line(error)}", hint="name another one") from error
    if made_of is not None and made_of.contents() != student.located.fingerprint():
        raise PreconditionError(
            f"--gguf: {path} was made of another student than the one that is pushed ({student.folder})",
            hint=f"make it again: distillkit export --run {shlex.quote(str(student.run.path))} --which {student.which}",
        )


def push(
    student: ChosenStudent, repository: str, ggufs: Sequence[Path], console: Console, *, public: bool, overwrite: bool
) -> Pushed:
    """Put a student into a repository, made if it is missing. Doing it again changes nothing where nothing has changed.

    Args:
        repository: `OWNER/NAME`, or a name among one's own.
        ggufs: files of `gguf_files`.
        public: whether a new repository is seen by all; the visibility of an existing one stays.
        overwrite: whether it may hold something else than a push of this program.

    Raises:
        UsageError: the name is malformed, or the repository holds something else.
        PreconditionError: no token, no right, no network.
    """
    from huggingface_hub import CommitOperationDelete, HfApi, get_token

    check_repository_id(repository)
    token = get_token()
    if token is None:
        raise PreconditionError(
            "there is no access token for the Hub", hint="hf auth login, or set HF_TOKEN to one that may write"
        )
    api = HfApi(token=token, library_name="distillkit", library_version=__version__)
    asked = _Asked(repository, console)
    with silence_hub(keep_bars=console.shows_progress):
        there, private = _existing(api, asked)
        if there is None:
            made = asked(lambda: api.create_repo(repository, private=not public, exist_ok=True))
            asked = _Asked(made.repo_id, console)
            there, private = [], not public
        elif public and private:
            console.warn(f"{asked.repository} is there already and stays private: its settings on the Hub change that")
        if not overwrite and set(there) - {*_OF_THE_HUB} and not _is_ours(api, asked, there):
            raise UsageError(
                f"{asked.repository} holds something that distillkit did not put there",
                hint="name another repository, or let its weights and card be replaced with --overwrite",
            )
        additions = _additions(student, asked.repository, ggufs)
        files = [operation.path_in_repo for operation in additions]
        stale = [
            path for path in there if path not in files and (path in _KINDS or any(map(Path(path).match, _WEIGHTS)))
        ]
        operations = [*additions, *(CommitOperationDelete(path) for path in stale)]
        size = sum(operation.upload_info.size for operation in additions)
        console.info(f"uploading {len(files)} files, {format_bytes(size)}, to {asked.repository}")
        # What is uploaded already is not uploaded again when it is tried again, and a commit without a change is not made.
        done = asked(lambda: api.create_commit(asked.repository, operations, commit_message=_message(student)))
    left = [path for path in there if path.endswith(".gguf") and path not in files]
    return Pushed(asked.repository, f"{api.endpoint}/{asked.repository}", done.oid, private, files, left)


def _message(student: ChosenStudent) -> str:
    return f"Distilled student ({student.which}) by distillkit {__version__}"


def _additions(student: ChosenStudent, repository: str, ggufs: Sequence[Path]) -> list[Any]:
    from huggingface_hub import CommitOperationAdd

    card = (student.written / CARD).read_text(encoding="utf-8")
    made = adapter_files(student) if student.is_adapter else AdapterFiles(_files(student.folder), None)
    if made.base is not None:
        card = card_beside_base(card, repository, made.base)
    card = published_card(card, repository, [path.name for path in ggufs])
    files = {**made.files, **{path.name: path for path in ggufs}}
    files.pop(CARD, None)
    return [
        CommitOperationAdd(CARD, card.encode("utf-8")),
        *(
            CommitOperationAdd(name, path if isinstance(path, bytes) else str(path))
            for name, path in sorted(files.items())
        ),
    ]


def _files(folder: Path) -> dict[str, Path | bytes]:
    """A whole model, by paths in the repository."""
    return {path.relative_to(folder).as_posix(): path for path in files_below(folder)}


def _existing(api: Any, asked: _Asked) -> tuple[list[str] | None, bool]:
    """The paths in the repository and whether it is private; None where there is no repository that this token sees."""
    info = asked(lambda: _unless_missing(api.model_info, asked.repository))
    if info is None:
        return None, False
    return [file.rfilename for file in info.siblings or ()], bool(info.private)


def _unless_missing(ask: Callable[[str], _Result], repository: str) -> _Result | None:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return ask(repository)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _is_ours(api: Any, asked: _Asked, there: Sequence[str]) -> bool:
    """Whether the repository's card says that distillkit wrote it."""
    from huggingface_hub import ModelCard

    if CARD not in there:
        return False
    with tempfile.TemporaryDirectory() as place:
        path = asked(lambda: api.hf_hub_download(asked.repository, CARD, local_dir=place))
        try:
            card: Any = ModelCard.load(path, ignore_metadata_errors=True)
            return _TAG in (card.data.tags or ())
        except (OSError, ValueError):
            return False


class _Asked:
    """Asks the Hub about a repository, again where that may help, and explains what it answers."""

    def __init__(self, repository: str, console: Console) -> None:
        self.repository = repository
        self._console = console

    def __call__(self, action: Callable[[], _Result]) -> _Result:
        """The result of `action`.

        Raises:
            PreconditionError: the Hub refuses or is out of reach.
            DistillkitError: a file cannot be read.
        """
        try:
            return retry(action, self.repository, inform=self._console.info, check_interrupted=check_interrupted)
        except DistillkitError:
            raise
        except Exception as error:
            explained = self._explained(error)
            if explained is None:
                raise
            raise explained from error

    def _explained(self, error: Exception) -> DistillkitError | None:
        status = http_status(error)
        if is_offline(error) or is_unreachable(error):
            return PreconditionError(
                f"{self.repository}: {reason(error)}; nothing was changed there",
                hint="run the same command again later",
            )
        if status == 401:
            return PreconditionError(
                f"{self.repository}: the Hub does not accept the access token", hint="hf auth login, or set HF_TOKEN"
            )
        if status in (403, 404):
            return PreconditionError(
                f"{self.repository}: this access token may not write there",
                hint="use a token with the right to write, or another owner before the /",
            )
        if status is not None:
            return PreconditionError(
                f"{self.repository}: the Hub answered with status {status}: {first_line(error)}",
                hint="run the same command again later",
            )
        if isinstance(error, OSError):
            return DistillkitError(f"cannot push: {error.strerror or error}: {error.filename}", hint="check the files")
        return None
