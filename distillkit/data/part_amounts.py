"""Whether the parts of a data set hold enough: an empty one is refused, a small one is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from distillkit.console import Console
from distillkit.data.prepared_parts import PreparedPart
from distillkit.errors import UsageError
from distillkit.settings.parameters import Parameters
from distillkit.wording import counted

# A bootstrap over fewer documents gives intervals that are clearly too narrow.
_FEW_HELD_OUT = 20


def check_amounts(
    config: Parameters, source: str, parts: Mapping[str, PreparedPart], dropped: Sequence[str], console: Console
) -> None:
    """Look at the sizes of train, validation and test.

    Args:
        source: what the texts are, for messages.
        parts: by name.
        dropped: for people, why texts were left out.

    Raises:
        UsageError: a part has no example.
    """
    for part, built in parts.items():
        if not built and dropped:
            raise UsageError(
                f"{source}: no text is left for the {part} part: {'; '.join(dropped)}",
                hint="use texts that both tokenizers can read, other models, or --box-type black, which compares no bytes"
                if config.box_type == "white"
                else "use texts that the tokenizers can read, or other models",
            )
        if not built:
            raise UsageError(
                f"{source}: not enough text for the {part} part",
                hint="use more text, or lower --max-length, --sample-size or --held-out-size",
            )
    built = len(parts["train"])
    if built < config.sample_size:
        console.warn(
            f"{source} gives {counted(built, 'training example')}, fewer than sample_size {config.sample_size:,}: all are used; "
            f"held out besides (--held-out-size): {len(parts['validation']):,} to choose by, {len(parts['test']):,} to judge by"
        )
    short = min((part for part in ("validation", "test")), key=lambda part: len(parts[part]))
    if config.held_out_size is not None and len(parts[short]) < config.held_out_size:
        console.warn(
            f"{source} gives {counted(len(parts[short]), f'{short} example')}, fewer than held_out_size "
            f"{config.held_out_size:,}: a quarter of the text at most is held out for each part"
        )
    fewest = min((part for part in ("validation", "test")), key=lambda part: parts[part].documents)
    if config.held_out_size is None and parts[fewest].documents < _FEW_HELD_OUT:
        console.warn(
            f"{source} leaves {counted(parts[fewest].documents, f'{fewest} document')} to measure on: intervals over so few are too "
            "narrow, so take the verdict as a hint; more documents mend it"
        )
