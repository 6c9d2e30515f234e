"""Numbers of generated examples, in proportion to the profile of hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

_DEFAULT_EXAMPLES = 100


def examples(count: int, **more: Any) -> settings:
    """Return settings for this many examples; `--hypothesis-profile=fast` takes a tenth of them."""
    return settings(max_examples=max(count * settings().max_examples // _DEFAULT_EXAMPLES, 2), **more)
