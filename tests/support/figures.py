"""What tests have measured; the end of the run tells it, whether the tests passed or not."""

FIGURES: list[str] = []


def measured(what: str, value: float, unit: str) -> None:
    """Keeps a figure for the summary: `measured("takeover", 5.3, "s")`."""
    FIGURES.append(f"measured: {what}: {value:.4g} {unit}")
