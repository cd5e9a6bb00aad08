"""Questions to a whole configuration (name to value): which method it is, and what that method uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from distillkit.settings.facts import Use

Values = Mapping[str, Any]

# How a teacher behind a server is named: `openai:MODEL`.
SERVED = "openai:"
# How a folder of imported log-probabilities is named: `logprobs:FOLDER`.
IMPORTED = "logprobs:"

# Alignments that bring a loss of their own; all others give distributions.
_OWN_LOSS = ("alm", "uld")
# Divergences that have neither a mixture nor exponents; of those that other packages add nothing is known here.
_WITHOUT_SETTINGS = ("forward-kl", "reverse-kl", "total-variation", "taid")


def is_white_box(values: Values) -> bool:
    return values["box_type"] == "white"


def needs_control(values: Values) -> bool:
    """Whether the quality gate compares the student with its control."""
    return values["quality_gate"] == "better-than-control"


def has_divergence(values: Values) -> bool:
    """Whether the distance of two distributions is a choice; `alm` and `uld` bring their own."""
    return is_white_box(values) and values["alignment"] not in _OWN_LOSS


def is_softened(values: Values) -> bool:
    """Whether the temperature has a part in the loss."""
    return is_white_box(values) and values["alignment"] != "alm"


def anneals(values: Values) -> bool:
    """Whether the temperature changes over the training."""
    return is_softened(values) and values["temperature_schedule"] == "anneal" and values["temperature"] != 1


def is_tempered(values: Values) -> bool:
    """Whether the factor τ² of the soft term is taken off its weight again: only a divergence has it, and where beta is 0
    there is nothing that the teacher is weighed against."""
    return values["alpha_schedule"] == "tempered" and _can_be_tempered(values)


def _can_be_tempered(values: Values) -> bool:
    return has_divergence(values) and values["temperature"] > 1 and 0 < values["alpha"] < 1


def _alpha_is_scheduled(values: Values) -> bool:
    return values["alpha"] > 0 and (values["alpha_schedule"] != "tempered" or _can_be_tempered(values))


def sparse_problem(values: Values) -> str | None:
    """The setting for which sparse targets cannot stand in for the teacher; None if they can."""
    if values["alignment"] in _OWN_LOSS:
        return f"alignment {values['alignment']}"
    if values["divergence"] != "forward-kl":
        return f"--divergence {values['divergence']}"
    if anneals(values):
        return "--temperature-schedule anneal"
    return None


def may_be_sparse(values: Values) -> bool:
    """Whether the run may turn out to use sparse targets."""
    return is_white_box(values) and values["teacher_cache"] in ("sparse", "auto") and sparse_problem(values) is None


def _divergence_except(*names: str) -> Callable[[Values], bool]:
    return lambda values: has_divergence(values) and values["divergence"] not in (*_WITHOUT_SETTINGS, *names)


def teacher_writes(values: Values) -> bool:
    """Whether the teacher writes texts that the student learns."""
    return not is_white_box(values) and values["alpha"] > 0


TEACHER_WRITES = Use("black box with alpha above 0", teacher_writes)
WHITE_BOX = Use("white box", is_white_box)
CHOSEN_DIVERGENCE = Use("white box with alignment auto, bpm or strict", has_divergence)
SOFTENED = Use("white box except alignment alm", is_softened)
FALLING_TEMPERATURE = Use(
    "white box with a temperature other than 1, except alignment alm",
    lambda values: is_softened(values) and values["temperature"] != 1,
)
SCHEDULED_ALPHA = Use(
    "trainings with an alpha above 0 (tempered: below 1 too, in white box with alignment auto, bpm or strict, at a temperature "
    "above 1)",
    _alpha_is_scheduled,
)
BYTE_PREFIXES = Use(
    "alignment auto or bpm in white box", lambda values: is_white_box(values) and values["alignment"] in ("auto", "bpm")
)
SPARSE_TARGETS = Use("--teacher-cache sparse", may_be_sparse)
MIXTURE = Use("--divergence jsd, skew-kl or skew-reverse-kl", _divergence_except("alpha-beta"))
EXPONENTS = Use("--divergence alpha-beta", _divergence_except("jsd", "skew-kl", "skew-reverse-kl"))


# --- teachers behind a server ------------------------------------------------------------------------------------------


def is_served(values: Values) -> bool:
    """Whether the teacher's weights are not here: it is behind a server, or only its log-probabilities were imported."""
    return values["teacher_model_path"] is None and values["teacher_model"].startswith((SERVED, IMPORTED))


def is_imported(values: Values) -> bool:
    """Whether the teacher is a folder of imported log-probabilities."""
    return is_served(values) and values["teacher_model"].startswith(IMPORTED)


def is_behind_server(values: Values) -> bool:
    """Whether the teacher is behind a server."""
    return is_served(values) and not is_imported(values)


SERVED_TEACHER = Use("a teacher behind a server (--teacher-model openai:MODEL)", is_behind_server)


# --- students cut from the teacher ------------------------------------------------------------------------------------


def _student(values: Values) -> str:
    """The student as it was named; "" where a path names it."""
    return "" if values["student_model_path"] is not None else values["student_model"]


def is_cut(values: Values) -> bool:
    """Whether the student is a part of the teacher."""
    return _student(values).startswith("teacher:")


def has_measured_layers(values: Values) -> bool:
    """Whether it is left to the program which layers such a student keeps: `teacher:N` rather than `teacher:0,4,9`."""
    items = _student(values).removeprefix("teacher:").split(",")
    return is_cut(values) and sum(item.strip().isdigit() for item in items) < 2


def is_automatic(values: Values) -> bool:
    """Whether the shape of such a student is looked for."""
    return is_cut(values) and _student(values).removeprefix("teacher:").strip() == "auto"


CUT_STUDENT = Use("a student cut from the teacher (teacher:N)", is_cut)
MEASURED_LAYERS = Use("a student teacher:N, whose layers are not named", has_measured_layers)
AUTOMATIC_CUT = Use("the student teacher:auto", is_automatic)
TEACHER_IN_WHITE_BOX = Use("white box with alpha above 0", lambda values: is_white_box(values) and values["alpha"] > 0)


# --- adapters -----------------------------------------------------------------------------------------------------------


def has_adapter(values: Values) -> bool:
    """Whether an adapter is trained instead of the student's own weights."""
    return values["adapter"] != "none"


LORA = Use("--adapter lora", has_adapter)


# --- several teachers ---------------------------------------------------------------------------------------------------


def has_several_teachers(values: Values) -> bool:
    """Whether more than one teacher is named, in white box, where their distributions are mixed."""
    return is_white_box(values) and values["extra_teachers"] is not None


def has_own_loss(values: Values) -> bool:
    """Whether the alignment brings a loss of its own instead of distributions."""
    return values["alignment"] in _OWN_LOSS


SEVERAL_TEACHERS = Use("white box with alpha above 0 and --extra-teachers", has_several_teachers)


# --- on-policy batches --------------------------------------------------------------------------------------------------


def is_on_policy(values: Values) -> bool:
    """Whether some batches continue from what the student writes itself."""
    return is_white_box(values) and values["alpha"] > 0 and values["on_policy_fraction"] > 0


ON_POLICY = Use("--on-policy-fraction above 0", is_on_policy)
REPLAYED = Use("--replay-buffer above 0", lambda values: is_on_policy(values) and values["replay_buffer"] > 0)
