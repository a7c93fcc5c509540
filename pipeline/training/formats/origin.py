"""Where a dialogue is from: what an export says of each, in the fields that its trainer leaves alone."""

from __future__ import annotations

from typing import Any

from pipeline.dialogue import Sample


def origin(sample: Sample) -> dict[str, Any]:
    """source, row: of the text, and its licence. synthetic: the speech was made by a machine."""
    return {
        "language": sample.language,
        "source": sample.source.name,
        "row": sample.source.row,
        "license": sample.source.license,
        "synthetic": sample.provenance.synthetic,
    }
