"""Durations in a readable form."""


def in_words(seconds: float) -> str:
    """Returns minutes and seconds, and hours if there are any: 4:05, 12:00:00."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
